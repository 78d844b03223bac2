package remote

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// IDMap maps a range of ids of a user namespace to ids of the host.
type IDMap struct{ Inside, Host, Size int }

// SpawnOptions say where the first stub of an arena is born.
type SpawnOptions struct {
	UserNS []IDMap    // a new user namespace with these uids and gids; nil: ours
	Files  []*os.File // descriptors 4 and up; the arena is descriptor 3, 0 to 2 are /dev/null
	Group  *os.File   // the directory of its v2 control group; nil: ours
}

// Spawn makes the first stub of an arena: a child of ours, in its own session, that waits in the given slot.
// It returns its pid and a pidfd, which the caller closes; the caller reaps it too.
// It is root in its user namespace, with all privileges there.
func Spawn(a *Arena, slot int, opt SpawnOptions) (pid, pidfd int, err error) {
	image, err := memfd("vps-stub")
	if err != nil {
		return 0, -1, err
	}
	defer image.Close()
	if _, err := image.Write(loader(a.base, uint64(a.Size()), a.Page(slot).address)); err != nil {
		return 0, -1, fmt.Errorf("write stub image: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, -1, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), a.file.Fd()}
	for _, f := range opt.Files {
		files = append(files, f.Fd())
	}
	program, err := executable(image, int(slices.Max(files))+2*len(files))
	if err != nil {
		return 0, -1, err
	}
	defer unix.Close(program)
	image.Close()

	attr := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if opt.UserNS != nil {
		attr.Cloneflags = unix.CLONE_NEWUSER
		for _, m := range opt.UserNS {
			attr.UidMappings = append(attr.UidMappings, syscall.SysProcIDMap{ContainerID: m.Inside, HostID: m.Host, Size: m.Size})
		}
		attr.GidMappings = attr.UidMappings
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{}
	}
	if opt.Group != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(opt.Group.Fd())
	}
	pid, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(program), []string{"vps-stub"}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: files, Sys: attr,
	})
	if err != nil {
		return 0, -1, fmt.Errorf("spawn stub: %w", err)
	}
	return pid, pidfd, nil
}

// executable opens a memfd anew, since a file that is open for writing cannot be executed. The descriptor is above least: between
// fork and execve, ForkExec puts others at those below.
func executable(image *os.File, least int) (int, error) {
	ro, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(image.Fd())))
	if err != nil {
		return -1, err
	}
	defer ro.Close()
	fd, err := unix.FcntlInt(ro.Fd(), unix.F_DUPFD_CLOEXEC, least+1)
	if err != nil {
		return -1, fmt.Errorf("duplicate stub image: %w", err)
	}
	return fd, nil
}
