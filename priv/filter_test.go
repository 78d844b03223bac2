package priv

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/linux"
)

// run interprets a filter as the kernel does: words of seccomp_data are in the
// byte order of the host, where x/net/bpf's machine reads packets in network
// order.
func run(t *testing.T, filter []unix.SockFilter, d linux.SeccompData) uint32 {
	t.Helper()
	data := (*[unsafe.Sizeof(d)]byte)(unsafe.Pointer(&d))[:]
	acc := uint32(0)
	jump := func(cond bool, i unix.SockFilter) int {
		if cond {
			return int(i.Jt)
		}
		return int(i.Jf)
	}
	for pc := 0; pc < len(filter); pc++ {
		switch i := filter[pc]; i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.NativeEndian.Uint32(data[i.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			pc += jump(acc == i.K, i)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			pc += jump(acc > i.K, i)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			pc += jump(acc >= i.K, i)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			pc += jump(acc&i.K != 0, i)
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		default:
			t.Fatalf("instruction %d has code %#x", pc, i.Code)
		}
	}
	t.Fatal("filter ends without an answer")
	return 0
}

func native(number int32, args ...uint64) linux.SeccompData {
	d := linux.SeccompData{Nr: number, Arch: unix.AUDIT_ARCH_X86_64}
	copy(d.Args[:], args)
	return d
}

func compile(t *testing.T, s *Set) []unix.SockFilter {
	t.Helper()
	filter, err := s.Filter()
	if err != nil {
		t.Fatal(err)
	}
	return filter
}

func TestFilterByState(t *testing.T) {
	all := make(map[State]*Set)
	for _, state := range []State{Allow, Deny, Nosys} {
		s := new(Set)
		for i := range s.states {
			s.states[i] = state
		}
		all[state] = s
	}
	for state, s := range all {
		filter := compile(t, s)
		for _, p := range table {
			for _, c := range p.calls {
				want := map[State]uint32{Allow: allow, Deny: eperm, Nosys: enosys}[state]
				if c.absent && state == Deny {
					want = enosys
				}
				d := native(int32(c.number))
				if c.when != nil {
					d.Args[c.when.arg] = uint64(c.when.value | c.when.mask&-c.when.mask)
				}
				if got := run(t, filter, d); got != want {
					t.Errorf("all %v: %s, call %d: %#x, want %#x", state, p.name, c.number, got, want)
				}
			}
		}
	}
}

func TestDefaultFilter(t *testing.T) {
	isolated := compile(t, newSet(t, "", "", "", true))
	confined := compile(t, newSet(t, "", "NAMESPACE", "", true))
	for _, test := range []struct {
		what   string
		filter []unix.SockFilter
		data   linux.SeccompData
		want   uint32
	}{
		{"read", isolated, native(unix.SYS_READ), allow},
		{"the last call", isolated, native(lastCall), allow},
		{"restart_syscall", isolated, native(unix.SYS_RESTART_SYSCALL), allow},
		{"reboot", isolated, native(unix.SYS_REBOOT), allow},
		{"mount", isolated, native(unix.SYS_MOUNT), allow},
		{"io_uring_setup", isolated, native(unix.SYS_IO_URING_SETUP), enosys},
		{"bpf", isolated, native(unix.SYS_BPF), enosys},
		{"finit_module", isolated, native(unix.SYS_FINIT_MODULE), eperm},
		{"kexec_load", isolated, native(unix.SYS_KEXEC_LOAD), eperm},
		{"a call of a later kernel", isolated, native(lastCall + 1), enosys},
		{"read of x32", isolated, native(unix.SYS_READ | 0x40000000), enosys},
		{"number -1", isolated, native(-1), enosys},
		{"read of i386", isolated, linux.SeccompData{Nr: 3, Arch: unix.AUDIT_ARCH_I386}, enosys},
		{"another machine", isolated, linux.SeccompData{Nr: 0, Arch: unix.AUDIT_ARCH_AARCH64}, enosys},
		{"socket AF_INET", isolated, native(unix.SYS_SOCKET, unix.AF_INET), allow},
		{"socket AF_VSOCK", isolated, native(unix.SYS_SOCKET, unix.AF_VSOCK), eperm},
		{"socket AF_VSOCK, high half set", isolated, native(unix.SYS_SOCKET, 1<<32|unix.AF_VSOCK), eperm},
		{"clone with a namespace", isolated, native(unix.SYS_CLONE, unix.CLONE_NEWNET), allow},
		{"clone of a thread", confined, native(unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_THREAD), allow},
		{"clone with a namespace, denied", confined, native(unix.SYS_CLONE, unix.CLONE_NEWNET|unix.CLONE_VM), eperm},
		{"unshare of files", confined, native(unix.SYS_UNSHARE, unix.CLONE_FILES), allow},
		{"unshare of time, denied", confined, native(unix.SYS_UNSHARE, unix.CLONE_NEWTIME), eperm},
		{"clone3, denied", confined, native(unix.SYS_CLONE3), enosys},
	} {
		if got := run(t, test.filter, test.data); got != test.want {
			t.Errorf("%s: %#x, want %#x", test.what, got, test.want)
		}
	}
	if n := len(isolated); n > 4096 {
		t.Errorf("filter has %d instructions, BPF_MAXINSNS is 4096", n)
	}
}

// What the child of TestInstalled tries, without harm if it were allowed.
var attempts = []struct {
	name   string
	number uintptr
	args   [2]uintptr
	want   string
}{
	{"getpid", unix.SYS_GETPID, [2]uintptr{}, "ok"},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [2]uintptr{}, "ENOSYS"},
	{"bpf", unix.SYS_BPF, [2]uintptr{^uintptr(0)}, "ENOSYS"},
	{"landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, [2]uintptr{}, "ENOSYS"},
	{"set_mempolicy", unix.SYS_SET_MEMPOLICY, [2]uintptr{}, "ENOSYS"},
	{"delete_module", unix.SYS_DELETE_MODULE, [2]uintptr{}, "EPERM"},
	{"swapoff", unix.SYS_SWAPOFF, [2]uintptr{}, "EPERM"},
	{"socket AF_VSOCK", unix.SYS_SOCKET, [2]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, "EPERM"},
	{"socket AF_UNIX", unix.SYS_SOCKET, [2]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}, "ok"},
	{"call 9999", 9999, [2]uintptr{}, "ENOSYS"},
	{"read of x32", unix.SYS_READ | 0x40000000, [2]uintptr{}, "ENOSYS"},
}

const childVariable = "VPS_PRIV_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := underFilter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// underFilter installs the default filter in this process and prints how each
// attempt ends.
func underFilter() error {
	s, err := New(nil, nil, nil, true)
	if err != nil {
		return err
	}
	filter, err := s.Filter()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	for _, a := range attempts {
		_, _, errno := unix.RawSyscall(a.number, a.args[0], a.args[1], 0)
		answer := "ok"
		if errno != 0 {
			answer = unix.ErrnoName(errno)
		}
		fmt.Printf("%s: %s\n", a.name, answer)
	}
	return nil
}

func TestInstalled(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := make(map[string]string)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		name, answer, _ := strings.Cut(s.Text(), ": ")
		answers[name] = answer
	}
	for _, a := range attempts {
		if got := answers[a.name]; got != a.want {
			t.Errorf("%s: %s, want %s", a.name, got, a.want)
		}
	}
}
