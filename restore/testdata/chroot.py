"""Processes in a root of their own, with the directory inside of it and outside."""
from kind import *


def test():
    os.makedirs(path("jail/inner"))
    with open(path("jail/inner/note"), "w") as f:
        f.write("here")
    os.mkdir(path("outside"))

    def inside():
        os.chroot(path("jail"))
        os.chdir("/inner")
        open("/ready-inside", "w").close()
        until(lambda: os.path.exists("/GO"), "GO inside")
        with open("note") as f:
            text = f.read()
        entries = sorted(os.listdir("/"))
        return 0 if (text, os.getcwd()) == ("here", "/inner") and "inner" in entries and "usr" not in entries else 3

    def astride():
        os.chdir(path("outside"))
        os.chroot(path("jail"))
        open("/ready-astride", "w").close()
        until(lambda: os.path.exists("/GO"), "GO inside")
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY))
        return 0 if not os.path.exists("/usr") and os.path.exists("/inner") else 3

    pids = [fork(inside), fork(astride)]
    until(lambda: there("jail/ready-inside") and there("jail/ready-astride"), "children")
    wait()
    same("root of the child", os.readlink(f"/proc/{pids[0]}/root"), path("jail"))
    write("jail/GO", "go\n")
    for pid in pids:
        join(pid)
    check(there("outside/made"), "directory outside of the root")


main(test)
