package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"vps/linux"
)

// cgroupFiles makes a cgroup and looks what it has.
func cgroupFiles(*machine) error {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return err
	}
	if len(mounts) == 0 {
		return errors.New("no cgroup2 is mounted")
	}
	dir, err := os.MkdirTemp(mounts[0].Mountpoint, "vps-probe-")
	if err != nil {
		return err
	}
	for _, name := range []string{"cgroup.freeze", "cgroup.kill"} {
		if _, e := os.Stat(filepath.Join(dir, name)); e != nil {
			err = e
		}
	}
	return errors.Join(err, os.Remove(dir))
}

// controller looks for a cgroup controller in either version.
func controller(name string) func(*machine) error {
	return func(*machine) error {
		mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
			return i.FSType != "cgroup" && i.FSType != "cgroup2", false
		})
		if err != nil {
			return err
		}
		for _, m := range mounts {
			offered := strings.Split(m.VFSOptions, ",")
			if m.FSType == "cgroup2" {
				list, _ := os.ReadFile(filepath.Join(m.Mountpoint, "cgroup.controllers"))
				offered = strings.Fields(string(list))
			}
			for _, c := range offered {
				if c == name {
					return nil
				}
			}
		}
		return fmt.Errorf("no cgroup hierarchy has the controller %s", name)
	}
}

// idmappedMounts maps the ids of a copy of the state directory's mount that is nowhere attached.
func idmappedMounts(m *machine) error {
	if m.child == nil {
		return errNoUserNamespace
	}
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", m.child.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer userns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, m.state, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("copy mount of %s: %w", m.state, err)
	}
	defer unix.Close(tree)
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:  unix.MOUNT_ATTR_IDMAP,
		Userns_fd: uint64(userns.Fd()),
	})
	if err != nil {
		return fmt.Errorf("file system of %s: %w", m.state, err)
	}
	return nil
}

const (
	wpAsync = linux.UFFD_FEATURE_WP_ASYNC
	poison  = linux.UFFD_FEATURE_POISON
)

// userfaultDevice opens what lets us serve faults of the kernel, userfaultfd(2).
func userfaultDevice(*machine) error {
	f, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func userfaultfd(feature uint64) func(*machine) error {
	return func(*machine) error {
		features, err := linux.UserfaultfdFeatures()
		if err == nil && features&feature != feature {
			err = unix.EOPNOTSUPP
		}
		return err
	}
}

func pagemapScan(*machine) error {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = linux.PagemapScan(int(f.Fd()), &linux.PMScanArg{
		CategoryMask: linux.PAGE_IS_PRESENT,
		ReturnMask:   linux.PAGE_IS_PRESENT,
	}, make([]linux.PageRegion, 1))
	return err
}

// bpfIterator loads a program that would visit tasks, and attaches it to nothing.
func bpfIterator(*machine) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceIter,
		AttachTo:     "task",
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	return program.Close()
}

// tcx asks for the eBPF programs at the first interface, which is lo.
func tcx(*machine) error {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	return err
}

// unixDiag asks for the Unix sockets in no state at all.
func unixDiag(*machine) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const requestSize = 24 // struct unix_diag_req, linux/unix_diag.h
	var b []byte
	b = binary.NativeEndian.AppendUint32(b, unix.NLMSG_HDRLEN+requestSize)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...) // sequence number, port
	b = append(b, unix.AF_UNIX)
	b = append(b, make([]byte, requestSize-1)...)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	const typeAt, errorAt = 4, unix.NLMSG_HDRLEN
	if n >= errorAt+4 && binary.NativeEndian.Uint16(reply[typeAt:]) == unix.NLMSG_ERROR {
		return unix.Errno(-int32(binary.NativeEndian.Uint32(reply[errorAt:])))
	}
	return nil
}

func tcpRepair(*machine) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
}
