package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func kernelVersion(*machine) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major > 6 || major == 6 && minor >= 1) {
		return nil
	}
	return fmt.Errorf("this is Linux %s", release)
}

// child is a process in a user namespace of its own that never runs an instruction.
type child struct{ cmd *exec.Cmd }

// newChild starts a child, stopped at its execve by ptrace.
func newChild(ctx context.Context) (*child, error) {
	// The tracer is a thread: it must be there as long as the child is.
	runtime.LockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 16, Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Ptrace:      true,
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: ids,
		GidMappings: ids,
	}
	if err := cmd.Start(); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return &child{cmd}, nil
}

func (c *child) end() {
	if c == nil {
		return
	}
	c.cmd.Process.Kill()
	c.cmd.Wait()
	runtime.UnlockOSThread()
}

var errNoUserNamespace = errors.New("no user namespace can be made; see sysctl user.max_user_namespaces")

func userNamespaces(m *machine) error {
	if m.child == nil {
		return errNoUserNamespace
	}
	return nil
}

func namespace(kind string) func(*machine) error {
	return func(*machine) error {
		_, err := os.Stat("/proc/self/ns/" + kind)
		return err
	}
}

// cloneSetTid makes a call that fails for its contents if they are understood, and for its length if they are not.
func cloneSetTid(*machine) error {
	const maxPidNSLevel = 32 // linux/pid_namespace.h
	args := struct {         // struct clone_args, linux/sched.h
		flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize uint64
	}{setTidSize: maxPidNSLevel + 1}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	return expect(errno, unix.EINVAL)
}

// expect turns the error that shows that a call is understood into success.
func expect(errno, understood syscall.Errno) error {
	if errno == understood {
		return nil
	}
	return errno
}

func pidfdGetfd(*machine) error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func memfdExec(*machine) error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // before 6.3 all of them execute
		fd, err = unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func kcmp(*machine) error {
	const kcmpVM = 1 // KCMP_VM, linux/kcmp.h
	pid := uintptr(os.Getpid())
	_, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpVM, 0, 0, 0)
	return expect(errno, 0)
}

func checkpointRestore(*machine) error {
	var size uint32
	return unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, uintptr(unsafe.Pointer(&size)), 0, 0)
}

// rseq calls rseq(2) with flags that no kernel knows. PTRACE_GET_RSEQ_CONFIGURATION is there where rseq is, since 5.13.
func rseq(*machine) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RSEQ, 0, 0, ^uintptr(0), 0, 0, 0)
	return expect(errno, unix.EINVAL)
}

func seccompFilters(*machine) error {
	const path = "/proc/sys/kernel/seccomp/actions_avail"
	actions, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, action := range []string{"errno", "allow"} {
		if !strings.Contains(string(actions), action) {
			return fmt.Errorf("%s does not list %s", path, action)
		}
	}
	return nil
}

// capabilities by number, linux/capability.h.
var capabilities = map[string]uint{
	"NET_ADMIN": unix.CAP_NET_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
	"SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "MKNOD": unix.CAP_MKNOD, "CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
}

func capability(name string) func(*machine) error {
	return func(*machine) error {
		status, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(string(status), "\nCapEff:\t")
		text, _, _ := strings.Cut(rest, "\n")
		set, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return fmt.Errorf("read effective capabilities: %w", err)
		}
		if set>>capabilities[name]&1 == 0 {
			return errors.New("this process does not have it")
		}
		return nil
	}
}
