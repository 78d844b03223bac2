"""Open files of /proc: of the process itself, of others, of threads, of processes that are gone; namespaces."""
import re

from kind import *

# Directories and files of a process's directory in /proc
NAMES = ["", "stat", "status", "maps", "smaps", "mountinfo", "environ", "auxv", "cmdline", "limits", "net", "net/dev", "fd", "fdinfo", "task",
         "ns", "attr"]


def opened(pid):
    return {name: os.open(f"/proc/{pid}/{name}", os.O_RDONLY) for name in NAMES}


def content(fd, size=1 << 20):
    data = b""
    while piece := os.pread(fd, size, len(data)):
        data += piece
    return data


def rest(fd):
    data = b""
    while piece := os.read(fd, 4096):
        data += piece
    return data


def link(fd):
    return os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")


def inode(what):
    s = os.stat(what)
    return s.st_dev, s.st_ino


def check_live(pid, files):
    for name, fd in files.items():
        who = f"/proc/{pid}/{name}".rstrip("/")
        same(who, link(fd), who)
        if os.path.isdir(who):
            check(name in ("fd", "fdinfo", "ns") or sorted(os.listdir(fd)) == sorted(os.listdir(who)), who)
            same("inode of " + who, inode(fd), inode(who))
        elif name in ("maps", "mountinfo", "environ", "auxv", "cmdline"):
            lines = 2 if name == "maps" else None  # what is below changes
            same(who, content(fd).splitlines()[:lines], content(os.open(who, os.O_RDONLY)).splitlines()[:lines])
    check(f"\nPid:\t{pid}\n".encode() in content(files["status"]), f"status of {pid}")


def check_dead(pid, files):
    for name, fd in files.items():
        same(f"dead {name}", link(fd), f"/proc/{pid}/{name}".rstrip("/"))
        try:
            if name in ("", "fd", "fdinfo", "task", "ns"):
                same(f"dead {name}", os.listdir(fd), [])
            elif name in ("maps", "smaps", "environ"):
                same(f"dead {name}", os.read(fd, 100), b"")
            elif name == "stat":
                fail(f"dead {name}: {os.read(fd, 100)!r}")
        except (ProcessLookupError, FileNotFoundError):
            pass


def test():
    me = os.getpid()
    mine = opened("self")
    first = opened(1)
    started, over = threading.Event(), threading.Event()
    thread(lambda: started.set() or over.wait())
    started.wait()
    tid = max(int(n) for n in os.listdir("/proc/self/task"))
    of_thread = os.open(f"/proc/self/task/{tid}/stat", os.O_RDONLY)
    maps = os.open("/proc/self/maps", os.O_RDONLY)
    os.read(maps, 333)
    text = os.open("/proc/self/limits", os.O_RDONLY)
    os.read(text, 10)
    memory = os.open("/proc/self/mem", os.O_RDWR)
    word = ctypes.create_string_buffer(b"before the snapshot")
    os.lseek(memory, ctypes.addressof(word), os.SEEK_SET)
    exe = os.open("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW)
    spaces = {n: os.open(f"/proc/self/ns/{n}", os.O_RDONLY) for n in ("net", "mnt", "user", "pid_for_children")}
    poll = select.epoll()
    poll.register(mine["mountinfo"], select.EPOLLPRI)
    dead = fork(lambda: go())
    buried = opened(dead)
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)

    def child():
        os.chdir(f"/proc/{me}")
        theirs = opened(me)
        write("child", "")
        go()
        check_live(me, theirs)
        same("child: shared offset", os.lseek(maps, 0, os.SEEK_CUR), 333)
        same("child: cwd", os.getcwd(), f"/proc/{me}")
        check(b"\x01" not in content(os.open("comm", os.O_RDONLY)), "child: a file of its directory")
        check_live(me, mine)
        until(lambda: there("looked"), "the parent's look")
    pid = fork(child)

    def mourner():
        gone = fork(lambda: go())
        os.chdir(f"/proc/{gone}")
        os.kill(gone, signal.SIGKILL)
        os.waitpid(gone, 0)
        where = os.readlink("/proc/self/cwd")
        write("mourner", "")
        go()
        same("mourner: cwd", os.readlink("/proc/self/cwd"), where)
        try:
            os.getcwd()
            fail("mourner: its directory is there")
        except FileNotFoundError:
            pass
    heir = fork(mourner)
    his = opened(pid)
    until(lambda: there("child") and there("mourner"), "children")
    wait()
    check_live(pid, his)
    write("looked", "")
    join(pid)
    join(heir)
    check_live(me, mine)
    check_live(1, first)
    check_dead(dead, buried)
    check(content(of_thread).startswith(b"%d " % tid), "file of a thread")
    over.set()
    now = os.open("/proc/self/maps", os.O_RDONLY)
    same("rest of maps", rest(maps).splitlines()[:2], content(now)[333:].splitlines()[:2])
    same("rest of limits", rest(text), content(os.open("/proc/self/limits", os.O_RDONLY))[10:])
    same("memory", os.read(memory, 6), b"before")
    os.lseek(memory, ctypes.addressof(word), os.SEEK_SET)
    os.write(memory, b"beyond")
    same("memory, written", word.value, b"beyond the snapshot")
    same("link", os.readlink("", dir_fd=exe), os.readlink("/proc/self/exe"))
    for name, fd in spaces.items():
        same("namespace " + name, inode(fd), inode("/proc/self/ns/" + name))
        check(re.fullmatch(r"\w+:\[\d+\]", link(fd)), "link of namespace " + name)
    same("epoll", poll.poll(0), [])


main(test)
