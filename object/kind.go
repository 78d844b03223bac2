package object

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kind dumps one kind of open file description: it fills in the record's kind.
type kind func(*Descriptors, *openFile, *look) error

// linkKinds are the kinds that the text of the link in /proc/PID/fd tells.
var linkKinds = []struct {
	link string
	dump kind
}{
	{"pipe:[", (*Descriptors).dumpPipe},
	{"socket:[", (*Descriptors).dumpSocket},
	{"anon_inode:[eventfd]", (*Descriptors).dumpEventFd},
	{"anon_inode:[timerfd]", (*Descriptors).dumpTimerFd},
	{"anon_inode:[signalfd]", (*Descriptors).dumpSignalFd},
	{"anon_inode:[eventpoll]", (*Descriptors).dumpEpoll},
}

// Numbers of character devices, Documentation/admin-guide/devices.txt.
const (
	memoryMajor   = 1
	ttyAuxMajor   = 5
	ptySlaveMajor = 136 // to 143
)

const (
	mqueueMagic    = 0x19800202 // MQUEUE_MAGIC of ipc/mqueue.c
	hugetlbfsMagic = unix.HUGETLBFS_MAGIC
)

// kindOf tells how a descriptor is dumped, or refuses it.
func (d *Descriptors) kindOf(l *look) (kind, error) {
	for _, line := range l.info.lines {
		if line.key == "lock" && strings.Contains(line.value, "LEASE") {
			return nil, l.at.refusal("lease on "+l.link, "")
		}
	}
	for _, k := range linkKinds {
		if strings.HasPrefix(l.link, k.link) {
			return k.dump, refuseSome(l)
		}
	}
	if name, anon := strings.CutPrefix(l.link, "anon_inode:"); anon {
		return nil, l.at.refusal(strings.Trim(name, "[]"), "")
	}
	if !strings.HasPrefix(l.link, "/") { // mnt:[4026531841], pidfd:[12]
		name, _, _ := strings.Cut(l.link, ":")
		return nil, l.at.refusal(name+" descriptor", "")
	}
	switch l.fs {
	case mqueueMagic:
		return nil, l.at.refusal("message queue "+l.link, "")
	case hugetlbfsMagic:
		return nil, l.at.refusal("file of huge pages "+l.link, "")
	case unix.PROC_SUPER_MAGIC:
		if dir, pid := procPID(l.link); pid != 0 {
			return nil, l.at.refusal(dir+" file "+l.link, "")
		}
	}
	switch l.st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		if l.info.flags&unix.O_PATH != 0 {
			return d.pathKind(l)
		}
		if l.st.Nlink != 0 {
			ref, err := d.reference(l)
			if err == nil && ref.GetDeleted() {
				err = l.at.refusal("FIFO "+l.link, "deleted, but it has another name")
			}
			return (*Descriptors).dumpPipe, err
		}
		return (*Descriptors).dumpPipe, nil
	case unix.S_IFREG:
		if l.st.Nlink == 0 {
			return (*Descriptors).dumpMemory, nil
		}
		return d.pathKind(l)
	case unix.S_IFDIR:
		if l.st.Nlink == 0 {
			return nil, l.at.refusal("deleted directory "+l.link, "")
		}
		return d.pathKind(l)
	case unix.S_IFLNK, unix.S_IFSOCK: // by O_PATH
		return d.pathKind(l)
	case unix.S_IFCHR:
		return d.deviceKind(l)
	}
	return nil, l.at.refusal("block device "+l.link, "")
}

// pathKind is the kind of what is found again by its path.
func (d *Descriptors) pathKind(l *look) (kind, error) {
	_, err := d.reference(l)
	return (*Descriptors).dumpPath, err
}

func (d *Descriptors) deviceKind(l *look) (kind, error) {
	if l.info.flags&unix.O_PATH != 0 {
		return d.pathKind(l)
	}
	major, minor := unix.Major(l.st.Rdev), unix.Minor(l.st.Rdev)
	switch {
	case major == memoryMajor:
		switch minor {
		case 3, 5, 7, 8, 9: // null, zero, full, random, urandom
			return d.pathKind(l)
		}
	case major == ttyAuxMajor && (minor == 0 || minor == 2), // tty, ptmx
		major >= ptySlaveMajor && major < ptySlaveMajor+8:
		return (*Descriptors).dumpTty, nil
	}
	return nil, l.at.refusal("device "+l.link, "")
}

// refuseSome refuses those of a kind that cannot be made again.
func refuseSome(l *look) error {
	if strings.HasPrefix(l.link, "socket:[") {
		return refuseSocket(l)
	}
	if clock := l.info.line("clockid"); clock == strconv.Itoa(unix.CLOCK_REALTIME_ALARM) || clock == strconv.Itoa(unix.CLOCK_BOOTTIME_ALARM) {
		return l.at.refusal("timerfd that wakes the machine", "")
	}
	return nil
}

// procPID finds the process whose directory in /proc a path leads through.
func procPID(path string) (dir string, pid int) {
	for part := range strings.SplitSeq(path, "/") {
		if n, err := strconv.Atoi(part); err == nil {
			return "process " + part, n
		}
	}
	return "", 0
}
