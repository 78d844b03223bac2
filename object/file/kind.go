package file

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/object/fdinfo"
)

// kind dumps one kind of open file description: it fills in the record's kind.
type kind func(*Descriptors, *OpenFile, *Look) error

// Dumper dumps open files of a kind that has a package of its own, and what they are open on.
type Dumper interface {
	// Claims tells whether an open file is of this kind. An error is why it is, and cannot be dumped.
	Claims(l *Look) (bool, error)
	// Dump fills in the kind of the record of an open file that it has claimed.
	Dump(f *OpenFile, l *Look) error
	// Finish writes what the open files are open on. It may come upon further open files, see [Descriptors.Received].
	Finish() error
}

// DumpKind makes a kind's part of a dump.
type DumpKind func(*Descriptors) Dumper

// memoryMajor is the number of character devices like /dev/null, Documentation/admin-guide/devices.txt.
const memoryMajor = 1

// kindOf tells how a descriptor is dumped, or refuses it.
func (d *Descriptors) kindOf(l *Look) (kind, error) {
	for _, k := range d.kinds {
		mine, err := k.Claims(l)
		if err != nil {
			return nil, err
		}
		if mine {
			return func(_ *Descriptors, f *OpenFile, l *Look) error { return k.Dump(f, l) }, nil
		}
	}
	if strings.HasPrefix(l.Link, "socket:[") {
		return nil, refuseSocket(l)
	}
	if l.Link == "anon_inode:[eventpoll]" {
		return (*Descriptors).dumpEpoll, nil
	}
	if name, anon := strings.CutPrefix(l.Link, "anon_inode:"); anon {
		return nil, l.At.Refusal(strings.Trim(name, "[]"), "")
	}
	if !strings.HasPrefix(l.Link, "/") { // mnt:[4026531841], pidfd:[12]
		name, _, _ := strings.Cut(l.Link, ":")
		return nil, l.At.Refusal(name+" descriptor", "")
	}
	switch l.fs {
	case unix.HUGETLBFS_MAGIC:
		return nil, l.At.Refusal("file of huge pages "+l.Link, "")
	case unix.SECRETMEM_MAGIC:
		return nil, l.At.Refusal("secret memory", "")
	case unix.PROC_SUPER_MAGIC:
		return d.pathKind(l)
	}
	switch l.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if l.Stat.Nlink == 0 {
			if leased(l) { // to read it, we would have to break that
				return nil, l.At.Refusal("lease on "+l.Link, "")
			}
			return (*Descriptors).dumpMemory, nil
		}
		return d.pathKind(l)
	case unix.S_IFDIR:
		if l.Stat.Nlink == 0 {
			return (*Descriptors).dumpMemory, nil
		}
		return d.directoryKind(l)
	case unix.S_IFLNK, unix.S_IFSOCK, unix.S_IFIFO: // by O_PATH
		return d.pathKind(l)
	case unix.S_IFCHR:
		return d.deviceKind(l)
	}
	return nil, l.At.Refusal("block device "+l.Link, "")
}

// leased tells whether somebody has a lease on an open file.
func leased(l *Look) bool {
	return slices.ContainsFunc(l.info.Lines, func(line fdinfo.Line) bool {
		return line.Key == "lock" && strings.Contains(line.Value, "LEASE")
	})
}

// pathKind is the kind of what is found again by its path.
func (d *Descriptors) pathKind(l *Look) (kind, error) {
	_, err := d.Reference(l)
	return (*Descriptors).dumpPath, err
}

// directoryKind refuses a directory in the middle of which somebody is reading, if it will be made anew: offsets mean nothing there
// (telldir(3)).
func (d *Descriptors) directoryKind(l *Look) (kind, error) {
	if l.fs == unix.TMPFS_MAGIC && l.info.Pos != 0 && l.info.Flags&unix.O_PATH == 0 {
		fd, err := Reopen(l.FD, l.Link, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		if _, err := unix.Seek(fd, int64(l.info.Pos), unix.SEEK_SET); err != nil {
			return nil, fmt.Errorf("seek in %s: %w", l.Link, err)
		}
		if n, err := unix.Getdents(fd, make([]byte, 4096)); err == nil && n > 0 {
			return nil, l.At.Refusal("directory "+l.Link, "in the middle of being read, in a memory file system")
		}
	}
	return d.pathKind(l)
}

func (d *Descriptors) deviceKind(l *Look) (kind, error) {
	if l.info.Flags&unix.O_PATH != 0 {
		return d.pathKind(l)
	}
	major, minor := unix.Major(l.Stat.Rdev), unix.Minor(l.Stat.Rdev)
	if major == memoryMajor {
		switch minor {
		case 3, 5, 7, 8, 9: // null, zero, full, random, urandom
			return d.pathKind(l)
		}
	}
	return nil, l.At.Refusal("device "+l.Link, "")
}

var socketFamilies = map[int]string{
	unix.AF_INET: "IPv4 socket", unix.AF_INET6: "IPv6 socket", unix.AF_NETLINK: "netlink socket", unix.AF_PACKET: "packet socket",
	unix.AF_VSOCK: "vsock socket", unix.AF_ALG: "crypto socket", unix.AF_XDP: "XDP socket", unix.AF_BLUETOOTH: "Bluetooth socket",
}

// refuseSocket names the kind of a socket that nobody claims.
func refuseSocket(l *Look) error {
	family, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("family of %s: %w", l.Link, err)
	}
	name, ok := socketFamilies[family]
	if !ok {
		name = fmt.Sprintf("socket of family %d", family)
	}
	if family == unix.AF_INET || family == unix.AF_INET6 {
		protocol, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil {
			return fmt.Errorf("protocol of %s: %w", l.Link, err)
		}
		switch protocol {
		case unix.IPPROTO_TCP:
			name = "TCP socket"
		case unix.IPPROTO_UDP:
			name = "UDP socket"
		}
	}
	return l.At.Refusal(name, "")
}
