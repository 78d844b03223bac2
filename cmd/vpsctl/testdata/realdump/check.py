# Holds memory of several kinds, in two processes, and counts as long as all of it is as it was.
import hashlib, os, time

data = bytearray(os.urandom(1 << 20) * 6)
want = hashlib.sha1(data).digest()
cache = os.memfd_create("cache")
os.write(cache, data[:300000])
zeros = bytearray(1 << 20)
child = os.fork()
if child == 0:
    data[5000] ^= 1  # the rest stays shared with the parent
    want = hashlib.sha1(data).digest()
n = 0
out = os.open("/tmp/check." + ("parent" if child else "child"), os.O_RDWR | os.O_CREAT, 0o644)
while True:
    assert hashlib.sha1(data).digest() == want
    assert os.pread(cache, 300000, 0)[6000:] == data[6000:300000]
    assert not any(zeros[::997])
    n += 1
    os.pwrite(out, b"%9d %-40s\n" % (n, os.uname().nodename.encode()), 0)
    time.sleep(0.02)
