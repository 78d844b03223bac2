"""200 MiB of memory, unchanged by hash."""
import hashlib
import mmap
import random

from kind import *

SIZE = 200 << 20


def test():
    area = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    rng = random.Random(1)
    for i in range(0, SIZE, 1 << 20):
        if i >> 20 & 3 == 3:
            area[i:i + (1 << 20)] = b"same" * (1 << 18)
        else:
            area[i:i + (1 << 20)] = rng.randbytes(1 << 20)
    digest = hashlib.blake2b(area).hexdigest()
    wait()
    same("hash", hashlib.blake2b(area).hexdigest(), digest)
    area[SIZE - 1] = 7
    check(hashlib.blake2b(area).hexdigest() != digest, "hash after a change")


main(test)
