# Three threads that wait, and some bytes at an address that it tells.
import ctypes, threading, time

text = ctypes.create_string_buffer(b"found me in the heap")
ready = threading.Barrier(4)


def wait():
    ready.wait()
    threading.Event().wait(10000)


for n in range(3):
    threading.Thread(target=wait).start()
ready.wait()
time.sleep(0.2)
with open("/tmp/threads", "w") as f:
    f.write("%#x\n" % ctypes.addressof(text))
time.sleep(10000)
