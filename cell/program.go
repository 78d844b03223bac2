package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// Rights bound what a program and its children may do.
type Rights struct {
	Capabilities uint64            // bounding set, bit N for capability N
	Filter       []unix.SockFilter // seccomp filter; nil for none
}

// Rlimit is a resource limit, setrlimit(2).
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// InitSpec is the program that becomes the instance's init.
type InitSpec struct {
	Args    []string // the first one is its path
	Env     []string
	Rights  Rights
	Rlimits []Rlimit
}

// ExecInit turns the parked stub into init: a session leader with the umask, signals and descriptors that a program expects. As on a
// booted machine the console does not become its controlling terminal: that is for a getty to take, which has no right to steal it.
// If it returns an error, the cell is of no use any more.
func (c *Cell) ExecInit(ctx context.Context, spec InitSpec) error {
	if len(spec.Args) == 0 {
		return errors.New("init: no program is given")
	}
	leave, err := c.enter()
	if err != nil {
		return err
	}
	defer leave()
	host, err := readHost()
	if err != nil {
		return err
	}
	path := spec.Args[0]
	running, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer running.Close()
	defer theirs.Close()
	c.births.Lock()
	_, err = c.give(ctx, c.Init, []int{int(theirs.Fd())})
	c.births.Unlock()
	if err != nil {
		return err
	}
	theirs.Close()

	b := c.Init.Page.Batch()
	b.Mode = remote.Mortal
	b.Call("setsid", unix.SYS_SETSID)
	terminal := "/dev/null"
	if c.Console != nil {
		terminal = "/dev/console"
	}
	b.Call("dup2", unix.SYS_DUP2, b.Call("open "+terminal, unix.SYS_OPEN, b.String(terminal), unix.O_RDWR|unix.O_NOCTTY, 0), 0)
	b.Call("dup2", unix.SYS_DUP2, 0, 1)
	b.Call("dup2", unix.SYS_DUP2, 0, 2)
	host.freshProcess(b, spec.Rlimits)
	host.restrict(b, spec.Rights)
	b.Call("close on exec", unix.SYS_CLOSE_RANGE, 3, ^uint32(0), unix.CLOSE_RANGE_CLOEXEC)
	b.Call("init "+path, unix.SYS_EXECVE, b.String(path), b.Strings(spec.Args), b.Strings(spec.Env))
	if err := b.Start(); err != nil {
		return err
	}
	if err := waitForExec(ctx, running); err != nil {
		return err
	}
	return b.Err()
}

// waitForExec waits for the end of a pipe whose only writer is a stub's descriptor that execve closes, or its end.
func waitForExec(ctx context.Context, pipe *os.File) error {
	stop := context.AfterFunc(ctx, func() { pipe.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	switch _, err := pipe.Read(make([]byte, 1)); {
	case err == io.EOF:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return err
	}
}

// freshProcess adds what makes a stub's process like one that a login made.
func (h host) freshProcess(b *remote.Batch, limits []Rlimit) {
	b.Call("umask", unix.SYS_UMASK, 0o022)
	b.Try("new session keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	// The keeper has one of its own, for its history.
	b.Call("setrlimit FSIZE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_FSIZE, b.Words(h.fileSize.Cur, h.fileSize.Max), 0)
	for _, l := range limits {
		b.Call("setrlimit "+strconv.Itoa(l.Resource), unix.SYS_PRLIMIT64, 0, l.Resource, b.Words(l.Soft, l.Hard), 0)
	}
	b.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, b.Words(0), 0, 8)
}

// restrict adds the loss of all rights that are not given.
func (h host) restrict(b *remote.Batch, r Rights) {
	for n := 0; n <= h.lastCap; n++ {
		if n > 63 || r.Capabilities&(1<<n) == 0 {
			b.Call("drop capability "+strconv.Itoa(n), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0)
		}
	}
	if r.Filter != nil {
		code := make([]byte, 0, 8*len(r.Filter))
		for _, f := range r.Filter {
			code = append(code, byte(f.Code), byte(f.Code>>8), f.Jt, f.Jf, byte(f.K), byte(f.K>>8), byte(f.K>>16), byte(f.K>>24))
		}
		prog := b.Words(uint64(len(r.Filter)), uint64(b.Data(code))) // struct sock_fprog
		b.Call("seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, prog)
	}
}

// host is what a program's start depends on of ours.
type host struct {
	lastCap  int         // the highest capability that the kernel knows
	fileSize unix.Rlimit // our own
}

func readHost() (h host, err error) {
	const file = "/proc/sys/kernel/cap_last_cap"
	text, err := os.ReadFile(file)
	if err != nil {
		return h, err
	}
	if h.lastCap, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return h, fmt.Errorf("%s: %w", file, err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &h.fileSize); err != nil {
		return h, fmt.Errorf("getrlimit: %w", err)
	}
	return h, nil
}
