package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// session is vpsctl at a terminal of its own.
type session struct {
	t      *testing.T
	cmd    *exec.Cmd
	pty    *os.File
	tty    *os.File // kept open, so that its settings can be looked at after vpsctl's end
	before *unix.Termios

	mu     sync.Mutex
	shown  bytes.Buffer
	change chan struct{}
}

// atTerminal runs vpsctl with a host of its own.
func atTerminal(t *testing.T, home string, args ...string) *session {
	t.Helper()
	p, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, pty: p, tty: tty, change: make(chan struct{}, 1)}
	s.before = s.termios()
	if err := pty.Setsize(p, &pty.Winsize{Rows: 30, Cols: 90}); err != nil {
		t.Fatal(err)
	}
	s.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{"vpsctl"}, args...),
		Env:   append(os.Environ(), "VPS_HOME="+home, "TERM=vt100"),
		Stdin: tty, Stdout: tty, Stderr: tty,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		p.Close()
		tty.Close()
	})
	return s
}

func (s *session) termios() *unix.Termios {
	s.t.Helper()
	settings, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return settings
}

func (s *session) read() {
	b := make([]byte, 4096)
	for {
		n, err := s.pty.Read(b)
		s.mu.Lock()
		s.shown.Write(b[:n])
		s.mu.Unlock()
		select {
		case s.change <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// expect waits until text was shown, and forgets what was shown up to it.
func (s *session) expect(text string) {
	s.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		before, after, found := strings.Cut(s.shown.String(), text)
		if found {
			s.shown.Reset()
			s.shown.WriteString(after)
		}
		s.mu.Unlock()
		if found {
			return
		}
		select {
		case <-s.change:
		case <-timeout:
			s.t.Fatalf("no %q in %q", text, before)
		}
	}
}

func (s *session) write(text string) {
	s.t.Helper()
	if _, err := s.pty.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// end waits for vpsctl's end, and wants its exit status and the terminal as it was.
func (s *session) end(status int) {
	s.t.Helper()
	s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); got != status {
		s.t.Errorf("exit status %d, want %d", got, status)
	}
	if after := s.termios(); *after != *s.before {
		s.t.Errorf("terminal settings %+v, were %+v", after, s.before)
	}
}

func newHome(t *testing.T) string {
	dir := t.TempDir()
	t.Cleanup(func() { stopDaemons(t, dir) })
	return filepath.Join(dir, "home")
}

func TestExecAtTerminal(t *testing.T) {
	s := atTerminal(t, newHome(t), "exec", "-it", "web", "--", "sh", "-c",
		`trap 'echo "size $(stty size)"' WINCH; echo "$TERM $(stty size)"; while ! read x; do :; done; echo "got $x"; exit 9`)
	s.expect("vt100 30 90")
	if err := pty.Setsize(s.pty, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	s.expect("size 40 100")
	s.write("hello\r")
	s.expect("got hello")
	s.end(9)
}

func TestExecLetsGo(t *testing.T) {
	s := atTerminal(t, newHome(t), "execwt", "web", "sh", "-c", "echo ready; exec cat")
	s.expect("ready\r\n") // before, what is typed would be echoed here too
	s.write("#x\r")
	s.expect("#x\r\n#x")
	s.write("##.\r")
	s.expect("\r\n#.\r\n#.")
	s.write("#.")
	s.expect("[detached from web]")
	s.end(0)
}

func TestConsoleAtTerminal(t *testing.T) {
	home := newHome(t)
	one := atTerminal(t, home, "console", "web")
	one.expect("login: ")
	two := atTerminal(t, home, "console", "web")
	two.expect("login: ")
	one.write("root\r")
	one.expect("root")
	two.expect("root")
	two.write("#.")
	two.expect("[detached from web]")
	two.end(0)
	again := atTerminal(t, home, "console", "web")
	again.expect("login: root")
	again.write("\x1b[?1049h")
	again.expect("\x1b[?1049h")
	if err := again.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	again.expect("\x1b[?1049l") // back from the alternate screen
	again.end(exitSignal + int(syscall.SIGTERM))
	if out, err := vpsctlAt(home, "stop", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	one.end(0)
}

// vpsctlAt runs vpsctl away from any terminal.
func vpsctlAt(home string, args ...string) ([]byte, error) {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{"vpsctl"}, args...), Env: append(os.Environ(), "VPS_HOME="+home)}
	return cmd.CombinedOutput()
}
