package cell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// leaf is the control group of what exec starts: the instance's root group may have children with controllers, and then
// takes no members.
const leaf = "exec"

// namespaces of init that an exec's process enters; it is born in those of users, pids and time.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP

// ExecSpec is a program to run inside.
type ExecSpec struct {
	Args    []string // the first one is looked for in PATH
	Env     []string
	Dir     string
	UID     int // inside
	GID     int
	Groups  []int
	Rights  Rights
	Rlimits []Rlimit

	Stdio [3]*os.File // nil is /dev/null; they stay the caller's

	// TTY asks for a terminal of the instance's own instead of Stdio.
	TTY        bool
	Rows, Cols uint16
}

// ExecError is a program that could not be run.
type ExecError struct {
	Err    error
	Status int // what a shell answers: 126 if it was found, else 127
}

func (e *ExecError) Error() string { return e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// Exec runs a program in the instance, as a child of the keeper. With a terminal its master side is returned, which the
// caller closes. An *ExecError says that it is the program that cannot be run.
func (c *Cell) Exec(ctx context.Context, spec ExecSpec) (p *Process, master *os.File, err error) {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return nil, nil, errors.New("no command is given")
	}
	leave, err := c.enter()
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	e := &execution{ExecSpec: spec, cell: c}
	var slot int
	select {
	case slot = <-c.free:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	if err := e.birth(ctx, slot); err != nil {
		e.abandon(slot)
		return nil, nil, err
	}
	defer e.close()
	if err := e.run(ctx); err != nil {
		e.abandon(slot)
		return nil, nil, err
	}
	c.free <- slot
	return e.process, e.master, nil
}

// execution is an Exec under way.
type execution struct {
	ExecSpec
	cell    *Cell
	stub    Stub
	process *Process
	running *os.File // read end of a pipe whose other end is gone when execve has succeeded
	master  *os.File

	// Descriptors in the stub.
	init  int
	stdio [3]int // -1: none
	next  int    // the lowest free one
}

// birth makes a stub in the instance's pid namespace and control group, and gives it its descriptors.
func (e *execution) birth(ctx context.Context, slot int) error {
	e.cell.births.Lock()
	defer e.cell.births.Unlock()
	way, err := e.cell.group.LeafEntry(leaf)
	if err != nil {
		return err
	}
	defer way.Close()
	if e.stub, e.process, err = e.cell.clone(ctx, e.cell.Arena.Page(slot), 0, way); err != nil {
		return err
	}
	running, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	e.running = running
	files := []int{e.cell.Init.PidFD, int(theirs.Fd())}
	for i, f := range e.Stdio {
		e.stdio[i] = -1
		if f != nil && !e.TTY {
			e.stdio[i] = len(files)
			files = append(files, int(f.Fd()))
		}
	}
	got, err := e.cell.give(ctx, e.stub, files)
	if err != nil {
		return err
	}
	e.init = got[0]
	for i, at := range e.stdio {
		if at >= 0 {
			e.stdio[i] = got[at]
		}
	}
	e.next = slices.Max(got) + 1
	return nil
}

// abandon kills what an execution that failed has made. Its slot is free when the process is gone.
func (e *execution) abandon(slot int) {
	if e.master != nil {
		e.master.Close()
	}
	e.close()
	if e.process == nil {
		e.cell.free <- slot
		return
	}
	e.process.Signal(unix.SIGKILL)
	go func() {
		<-e.process.Done()
		e.cell.free <- slot
	}()
}

func (e *execution) close() {
	if e.running != nil {
		e.running.Close()
	}
	if e.stub.PidFD >= 0 {
		unix.Close(e.stub.PidFD)
		e.stub.PidFD = -1
	}
}

func (e *execution) run(ctx context.Context) error {
	var b *remote.Batch
	var pid remote.Result
	err := e.stub.run(ctx, func(batch *remote.Batch) {
		b = batch
		pid = b.Call("getpid", unix.SYS_GETPID)
		b.Call("enter namespaces", unix.SYS_SETNS, e.init, namespaces)
		if e.TTY {
			e.openTerminal(b)
		}
	})
	if err != nil {
		return err
	}
	inside, err := b.Value(pid)
	if err != nil {
		return err
	}
	e.process.Inside = int(inside)
	if e.TTY {
		if err := e.takeTerminal(); err != nil {
			return err
		}
	}
	return e.become(ctx)
}

// openTerminal adds the opening of a pseudo terminal. What /dev/ptmx is, the instance decides.
func (e *execution) openTerminal(b *remote.Batch) {
	b.Call("open /dev/ptmx", unix.SYS_OPEN, b.String("/dev/ptmx"), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	b.Call("unlock terminal", unix.SYS_IOCTL, e.next, unix.TIOCSPTLCK, b.Words(0))
	b.Call("open terminal", unix.SYS_IOCTL, e.next, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	b.Call("chown terminal", unix.SYS_FCHOWN, e.next+1, e.UID, -1)
	for n := range e.stdio {
		e.stdio[n] = e.next + 1
	}
}

func (e *execution) takeTerminal() error {
	var err error
	if e.master, err = e.stub.Take(e.next); err != nil {
		return err
	}
	fd := int(e.master.Fd())
	if _, err := unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
		return fmt.Errorf("/dev/ptmx: %w", err)
	}
	if e.Rows != 0 && e.Cols != 0 {
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: e.Rows, Col: e.Cols}); err != nil {
			return fmt.Errorf("set size of terminal: %w", err)
		}
	}
	// For the runtime's poller: only we have this end.
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	e.master.Close()
	e.master = os.NewFile(uintptr(dup), "terminal")
	return nil
}

// become turns the stub into the program.
func (e *execution) become(ctx context.Context) error {
	host, err := readHost()
	if err != nil {
		return err
	}
	var chdir remote.Result
	var tries []remote.Result
	b := e.stub.Page.Batch()
	b.Mode = remote.Mortal
	b.Call("setsid", unix.SYS_SETSID)
	for n, fd := range e.stdio {
		if fd < 0 {
			b.Call("dup2", unix.SYS_DUP2, b.Call("open /dev/null", unix.SYS_OPEN, b.String("/dev/null"), unix.O_RDWR, 0), n)
		} else {
			b.Call("dup2", unix.SYS_DUP2, fd, n)
		}
	}
	if e.TTY {
		b.Call("take the terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	host.freshProcess(b, e.Rlimits)
	host.restrict(b, e.Rights)
	e.setUser(b)
	b.Call("close on exec", unix.SYS_CLOSE_RANGE, 3, ^uint32(0), unix.CLOSE_RANGE_CLOEXEC)
	chdir = b.Call("change to directory "+e.Dir, unix.SYS_CHDIR, b.String(cmp.Or(e.Dir, "/")))
	args, env := b.Strings(e.Args), b.Strings(e.Env)
	files := candidates(e.Args[0], e.Env)
	for i, file := range files {
		add := b.Try
		if i == len(files)-1 {
			add = b.Call
		}
		tries = append(tries, add(e.Args[0], unix.SYS_EXECVE, b.String(file), args, env))
	}
	if err := b.Start(); err != nil {
		return err
	}
	if err := waitForExec(ctx, e.running); err != nil {
		return err
	}
	if b.Err() == nil {
		return nil
	}
	if _, err := b.Value(chdir); err != nil && !errors.Is(err, unix.ECANCELED) {
		return &ExecError{Err: err, Status: 126}
	}
	return execFailure(b, tries)
}

// execFailure answers with the error of the candidate that comes closest to a program.
func execFailure(b *remote.Batch, tries []remote.Result) error {
	var missing error
	for _, t := range tries {
		_, err := b.Value(t)
		switch {
		case errors.Is(err, unix.ECANCELED):
			return b.Err() // something before it
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			missing = err
		case err != nil:
			return &ExecError{Err: err, Status: 126}
		}
	}
	return &ExecError{Err: missing, Status: 127}
}

func (e *execution) setUser(b *remote.Batch) {
	groups := make([]byte, 0, 4*len(e.Groups))
	for _, g := range e.Groups {
		groups = append(groups, byte(g), byte(g>>8), byte(g>>16), byte(g>>24))
	}
	b.Call("setgroups", unix.SYS_SETGROUPS, len(e.Groups), b.Data(groups))
	b.Call("setresgid", unix.SYS_SETRESGID, e.GID, e.GID, e.GID)
	b.Call("setresuid", unix.SYS_SETRESUID, e.UID, e.UID, e.UID)
}

// candidates are the files that a command's name may mean, execvp(3).
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			search = value
		}
	}
	var all []string
	for dir := range strings.SplitSeq(search, ":") {
		all = append(all, path.Join(dir, name))
	}
	return all
}
