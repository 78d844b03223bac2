package testimage

// Stuck is a Python program with a thread in an uninterruptible sleep: it copies a page of its own that a userfaultfd(2) is to fill, and
// nobody does. It prints that thread's id, and then counts.
const Stuck = `
import ctypes, fcntl, mmap, os, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
SYS_process_vm_readv, SYS_userfaultfd = 310, 323
UFFDIO_API, UFFDIO_REGISTER, MISSING = 0xc018aa3f, 0xc020aa00, 1
uffd = libc.syscall(SYS_userfaultfd, 0)
fcntl.ioctl(uffd, UFFDIO_API, bytearray(struct.pack('QQQ', 0xaa, 0, 0)))
page = mmap.mmap(-1, 4096)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(uffd, UFFDIO_REGISTER, bytearray(struct.pack('QQQQ', at, 4096, MISSING, 0)))
def copy():
    print(threading.get_native_id(), flush=True)
    to = ctypes.create_string_buffer(4096)
    local = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(to), 4096))
    remote = ctypes.create_string_buffer(struct.pack('QQ', at, 4096))
    libc.syscall(SYS_process_vm_readv, os.getpid(), local, ctypes.c_long(1), remote, ctypes.c_long(1), ctypes.c_long(0))
threading.Thread(target=copy, daemon=True).start()
n = 0
while True:
    n += 1
    time.sleep(0.01)
    print(n, flush=True)
`
