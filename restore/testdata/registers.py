"""Registers: loops in machine code that hold a pattern in every one of them, and threads that compute."""
import hashlib
import math
import random
import struct

from kind import *

FLAG, OUT = 8192, 4096
with open("/proc/cpuinfo") as f:
    FEATURES = next(line for line in f if line.startswith("flags")).split()


def vector(i, disp, store):
    op = 0x11 if store else 0x10
    modrm = 0x87 | (i & 7) << 3  # [rdi + disp32]
    if "avx512f" in FEATURES:
        p0 = 0xF1 ^ (i >> 3 & 1) << 7 ^ (i >> 4 & 1) << 4
        return bytes([0x62, p0, 0x7C, 0x48, op, modrm]) + struct.pack("<i", disp)
    if "avx" in FEATURES:
        return bytes([0xC5, 0x7C if i & 8 else 0xFC, op, modrm]) + struct.pack("<i", disp)
    return (b"\x44" if i & 8 else b"") + bytes([0x0F, op, modrm]) + struct.pack("<i", disp)


def mask(i, disp, store):
    return bytes([0xC4, 0xE1, 0xF8, 0x91 if store else 0x90, 0x87 | i << 3]) + struct.pack("<i", disp)


def general(i, disp, store):
    return bytes([0x4C if i & 8 else 0x48, 0x89 if store else 0x8B, 0x87 | (i & 7) << 3]) + struct.pack("<i", disp)


VECTORS = 32 if "avx512f" in FEATURES else 16
WIDTH = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
MASKS = range(8) if "avx512bw" in FEATURES else range(0)
GENERAL = [0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]  # not rsp, not rdi


def program():
    code = b"\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57"  # push rbx, rbp, r12-r15
    for i in range(VECTORS):
        code += vector(i, i * 64, False)
    for i in MASKS:
        code += mask(i, 2048 + i * 8, False)
    code += b"\xd9\xeb\xd9\xe8\xd9\xea"  # fldpi, fld1, fldl2e
    for i in GENERAL:
        code += general(i, 2176 + i * 8, False)
    loop = b"\xf3\x90\x83\xbf" + struct.pack("<i", FLAG) + b"\x00"  # pause; cmp dword [rdi+FLAG], 0
    code += loop + b"\x74" + struct.pack("b", -len(loop) - 2)  # je
    for i in GENERAL:
        code += general(i, OUT + 2176 + i * 8, True)
    for i in MASKS:
        code += mask(i, OUT + 2048 + i * 8, True)
    for i in range(3):
        code += b"\xdd\x9f" + struct.pack("<i", OUT + 2400 + i * 8)  # fstp qword
    for i in range(VECTORS):
        code += vector(i, OUT + i * 64, True)
    if WIDTH > 16:
        code += b"\xc5\xf8\x77"  # vzeroupper
    return code + b"\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3"


def spin(code, seed, started):
    page = libc.mmap(None, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    pattern = random.Random(seed).randbytes(2400)
    ctypes.memmove(page, pattern, len(pattern))
    started.append(page)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code)(page)
    out = ctypes.string_at(page + OUT, 2432)
    for i in range(VECTORS):
        same(f"vector register {i}", out[i * 64:i * 64 + WIDTH], pattern[i * 64:i * 64 + WIDTH])
    for i in MASKS:
        same(f"k{i}", out[2048 + i * 8:2056 + i * 8], pattern[2048 + i * 8:2056 + i * 8])
    for i in GENERAL:
        same(f"register {i}", out[2176 + i * 8:2184 + i * 8], pattern[2176 + i * 8:2184 + i * 8])
    same("x87", struct.unpack("<3d", out[2400:2424]), (math.log2(math.e), 1.0, math.pi))


def digest(rounds=20000):
    return hashlib.pbkdf2_hmac("sha512", b"secret", b"salt", rounds)


def compute(want, rounds):
    while not there("GO"):
        same("digest", digest(), want)
        rounds.append(1)
    same("digest, after", digest(), want)


def add(rounds):
    while not there("GO"):
        same("sum", math.fsum(math.sin(i) * 0.1 for i in range(20000)), WANT)
        rounds.append(1)
    same("sum, after", math.fsum(math.sin(i) * 0.1 for i in range(20000)), WANT)


WANT = math.fsum(math.sin(i) * 0.1 for i in range(20000))


def test():
    code = program()
    page = libc.mmap(None, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(page, code, len(code))
    started, rounds, sums = [], [], []
    threads = [thread(spin, page, seed, started) for seed in (1, 2)]
    threads += [thread(compute, digest(), rounds), thread(add, sums)]
    until(lambda: len(started) == 2 and rounds and sums, "start")
    time.sleep(0.05)
    wait()
    for p in started:
        ctypes.memset(p + FLAG, 1, 4)
    for t in threads:
        join_thread(t)


main(test)
