package account

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newGroup makes the groups of an instance in a home of the test's own, and
// removes the home in the end.
func newGroup(t *testing.T, owner uint32) *Group {
	t.Helper()
	h, home := newHome(t)
	g, err := h.Create(home, "web", owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err := g.Remove(deadline(t)); err != nil {
			t.Error(err)
		}
	})
	return g
}

func newHome(t *testing.T) (*Hierarchies, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	home := fmt.Sprintf("test%d", os.Getpid())
	t.Cleanup(func() {
		if err := h.RemoveHome(deadline(t), home); err != nil {
			t.Error(err)
		}
	})
	return h, home
}

// deadline bounds what only takes long when it is broken.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shell runs a script as pid 1 of its own pid namespace, as a member of the
// instance. The script ends, with all that it left behind, when the test does.
type shell struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, g *Group, script string) *shell {
	t.Helper()
	return enter(t, g.Entry, script)
}

// enter starts a shell by a way into the instance's groups.
func enter(t *testing.T, by func() (*Entry, error), script string) *shell {
	t.Helper()
	way, err := by()
	if err != nil {
		t.Fatal(err)
	}
	defer way.Close()
	join := ""
	for i := range way.Tasks {
		join += fmt.Sprintf("echo 0 >&%d; ", 3+i)
	}
	s := &shell{Cmd: exec.Command("sh", "-c", join+script)}
	s.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(way.Unified.Fd())}
	s.ExtraFiles = way.Tasks
	s.in, _ = s.StdinPipe()
	out, _ := s.StdoutPipe()
	s.out = bufio.NewReader(out)
	s.Stderr = s.Stdout
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Process.Kill()
		s.Wait()
	})
	return s
}

func (s *shell) line(t *testing.T) string {
	t.Helper()
	text, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read from the instance: %v", err)
	}
	return strings.TrimSpace(text)
}

func TestMembership(t *testing.T) {
	g := newGroup(t, 0)
	s := start(t, g, "cat /proc/self/cgroup; echo end; read stop")
	paths := map[string]string{}
	for l := s.line(t); l != "end"; l = s.line(t) {
		f := strings.SplitN(l, ":", 3)
		paths[f[1]] = f[2]
	}
	for controller := range g.h.v1 {
		if got := paths[controller]; !strings.HasSuffix(got, g.path+"/root") {
			t.Errorf("%s group is %s", controller, got)
		}
	}
	if got := paths[""]; !strings.HasSuffix(got, g.path+"/vps/root") {
		t.Errorf("v2 group is %s", got)
	}

	again, err := g.h.Find(strings.TrimPrefix(filepath.Dir(g.path), "vps-"), "web")
	if err != nil {
		t.Fatal(err)
	}
	procs, err := again.Procs()
	if want := []int{s.Process.Pid}; err != nil || !slices.Equal(procs, want) {
		t.Errorf("Procs() = %v, %v, want %v", procs, err, want)
	}
	if _, err := g.h.Find("nosuchhome", "web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Find in a home without groups: %v", err)
	}
}

func TestCreateTwice(t *testing.T) {
	g := newGroup(t, 0)
	home := strings.TrimPrefix(filepath.Dir(g.path), "vps-")
	if _, err := g.h.Create(home, "web", 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v", err)
	}
	if _, err := g.h.Find(home, "web"); err != nil {
		t.Errorf("groups of the first are gone: %v", err)
	}
	ids, err := g.h.List(home)
	if err != nil || !slices.Equal(ids, []string{"web"}) {
		t.Errorf("List() = %v, %v", ids, err)
	}
	if err := g.h.RemoveHome(deadline(t), home); !errors.Is(err, unix.EBUSY) {
		t.Errorf("RemoveHome with an instance: %v", err)
	}
}

func TestBadNames(t *testing.T) {
	h := &Hierarchies{v2: t.TempDir()}
	for _, name := range []string{"", ".", "..", ".host", "a/b", "cgroup.procs", strings.Repeat("x", 256)} {
		if _, err := h.Create("home", name, 0); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Create(%q): %v", name, err)
		}
		if _, err := h.Create(name, "id", 0); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Create in home %q: %v", name, err)
		}
	}
}

// The instance's root may make groups below its own and move itself there; it
// may not touch the group above, nor what we do not hand over.
func TestOwner(t *testing.T) {
	const owner = 654321
	g := newGroup(t, owner)
	as := func(script string) error {
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = g.Root()
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner, Gid: owner}}
		return cmd.Run()
	}
	for script, allowed := range map[string]bool{
		"mkdir init.scope": true,
		": >cgroup.subtree_control && : >cgroup.procs && : >cgroup.threads": true,
		"mkdir ../other":         false,
		"echo 1 >cgroup.freeze":  false,
		"echo 1 >../cgroup.kill": false,
	} {
		if err := as(script); (err == nil) != allowed {
			t.Errorf("%s as the instance's root: %v", script, err)
		}
	}
}

func TestLeaf(t *testing.T) {
	g := newGroup(t, 4711)
	leaf := func() (*Entry, error) { return g.LeafEntry("exec-1") }
	const script = "while read l; do case $l in 0::*) echo $l; esac; done </proc/self/cgroup; read stop"
	var pids []int
	for range 2 {
		s := enter(t, leaf, script)
		if got := s.line(t); !strings.HasSuffix(got, "/web/vps/root/exec-1") {
			t.Errorf("v2 group is %s", got)
		}
		pids = append(pids, s.Process.Pid)
	}
	info, err := os.Stat(filepath.Join(g.Root(), "exec-1", "cgroup.procs"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 4711 {
		t.Errorf("leaf's owner: %v, %v", info, err)
	}
	procs, err := g.Procs()
	if slices.Sort(pids); err != nil || !slices.Equal(procs, pids) {
		t.Errorf("Procs() = %v, %v, want %v", procs, err, pids)
	}
}

func TestFreeze(t *testing.T) {
	g := newGroup(t, 0)
	s := start(t, g, "while read x; do echo $x; done")
	echo := func(text string) string {
		fmt.Fprintln(s.in, text)
		return s.line(t)
	}
	if got := echo("one"); got != "one" {
		t.Fatal(got)
	}
	if err := g.Freeze(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); !frozen || err != nil {
		t.Errorf("Frozen() = %v, %v after Freeze", frozen, err)
	}
	answer := make(chan string)
	go func() { answer <- echo("two") }()
	select {
	case a := <-answer:
		t.Fatalf("a frozen shell answered %q", a)
	case <-time.After(50 * time.Millisecond):
	}
	if err := g.Thaw(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if a := <-answer; a != "two" {
		t.Errorf("the thawed shell answered %q", a)
	}
	if frozen, err := g.Frozen(); frozen || err != nil {
		t.Errorf("Frozen() = %v, %v after Thaw", frozen, err)
	}
}

// A freeze that does not end in time is taken back.
func TestFreezeInVain(t *testing.T) {
	g := newGroup(t, 0)
	s := start(t, g, "echo ready; read x; echo done; read stop")
	s.line(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("client went away")
	cancel(reason)
	err := g.Freeze(ctx)
	if err == nil {
		t.Skip("the kernel froze the shell before it was asked to wait")
	}
	if !errors.Is(err, reason) {
		t.Errorf("Freeze: %v, want %v", err, reason)
	}
	fmt.Fprintln(s.in)
	if got := s.line(t); got != "done" {
		t.Errorf("shell answered %q", got)
	}
}

func TestKill(t *testing.T) {
	g := newGroup(t, 0)
	s := start(t, g, "sleep 1000 & sleep 1000 & echo ready; wait")
	s.line(t)
	if empty, err := g.Empty(); empty || err != nil {
		t.Errorf("Empty() = %v, %v while running", empty, err)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.WaitEmpty(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitEmpty while running: %v", err)
	}
	if err := g.Remove(short); !errors.Is(err, unix.EBUSY) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Remove while running: %v", err)
	}
	if err := g.Freeze(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitEmpty(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if procs, err := g.Procs(); len(procs) != 0 || err != nil {
		t.Errorf("Procs() = %v, %v after Kill", procs, err)
	}
}

func TestRemoveGuestGroups(t *testing.T) {
	g := newGroup(t, 0)
	deep := filepath.Join(g.Root(), strings.Repeat("long-name-of-a-nested-group/", 20))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(g.Root(), "with\nnewline"), 0o755); err == nil {
		t.Error("kernel allows newlines in names: test that walk copes")
	}
	for range 2 {
		if err := g.Remove(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, base := range g.h.bases() {
		if _, err := os.Stat(filepath.Join(base, g.path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", filepath.Join(base, g.path), err)
		}
	}
	if procs, err := g.Procs(); len(procs) != 0 || err != nil {
		t.Errorf("Procs() = %v, %v after Remove", procs, err)
	}
}

// What is in the keeper's group goes on while the instance is frozen and killed.
func TestKeeper(t *testing.T) {
	h, home := newHome(t)
	g, err := h.Create(home, "web", 0)
	if err != nil {
		t.Fatal(err)
	}
	start(t, g, "read x")
	s := enter(t, func() (*Entry, error) {
		dir, err := g.Keeper()
		return &Entry{Unified: dir}, err
	}, "while read x; do echo $x; done")
	if err := g.Freeze(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitEmpty(deadline(t)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(s.in, "alive")
	if got := s.line(t); got != "alive" {
		t.Errorf("keeper answered %q", got)
	}
	if err := g.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if ids, err := h.List(home); len(ids) != 0 || err != nil {
		t.Errorf("List() = %v, %v", ids, err)
	}
}

// A daemon has groups of its own as long as it wants them.
func TestJoin(t *testing.T) {
	h, home := newHome(t)
	if err := h.Join(home); err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(own), "/vps-"+home+"/.host\n"); n != len(h.bases()) {
		t.Errorf("in %d of %d groups:\n%s", n, len(h.bases()), own)
	}
	if err := h.Leave(); err != nil {
		t.Fatal(err)
	}
}
