package pager_test

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/memory"
	"vps/pager"
)

//go:embed testdata/guest.py
var guestProgram string

const pageSize = 4096

// guest is a program that runs lines of Python on request: see testdata/guest.py.
type guest struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Scanner
	proc object.Proc

	children []object.Proc
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	g := &guest{t: t, cmd: exec.Command("python3", "-c", guestProgram)}
	g.cmd.Dir = t.TempDir()
	g.cmd.Stderr = os.Stderr
	in, err := g.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.in, g.out = in, bufio.NewScanner(out)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.proc.Close()
		g.cmd.Process.Kill()
		g.cmd.Wait()
	})
	g.answer()
	level, err := object.ReadLevel(g.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if g.proc, err = object.OpenProc(g.cmd.Process.Pid, level); err != nil {
		t.Fatal(err)
	}
	return g
}

// do runs a line in the guest.
func (g *guest) do(line string) string {
	g.t.Helper()
	fmt.Fprintln(g.in, line)
	return g.answer()
}

func (g *guest) answer() string {
	g.t.Helper()
	if !g.out.Scan() {
		g.t.Fatal("the guest has ended")
	}
	text, ok := strings.CutPrefix(g.out.Text(), "ok")
	if !ok {
		g.t.Fatalf("guest: %s", g.out.Text())
	}
	return text
}

// space is the address space of a process.
func space(t *testing.T, p object.Proc, id uint64) *pager.Space {
	t.Helper()
	as, err := memory.ReadAddressSpace(p)
	if err != nil {
		t.Fatal(err)
	}
	s := as.Space(id)
	s.Threads = 1
	return s
}

// spaces are those of the children, and of the guest, which has id 1.
func (g *guest) spaces() []*pager.Space {
	g.t.Helper()
	var list []*pager.Space
	for i, p := range g.children {
		list = append(list, space(g.t, p, uint64(i+2)))
	}
	return append(list, space(g.t, g.proc, 1))
}

// stop stops the guest and its children, as far as this test goes: with SIGSTOP.
func (g *guest) stop() {
	g.t.Helper()
	for _, p := range append(g.children, g.proc) {
		unix.Kill(p.Host, unix.SIGSTOP)
		for end := time.Now().Add(5 * time.Second); ; {
			s, err := object.ReadStatus(p.Host)
			if err != nil || time.Now().After(end) {
				g.t.Fatal("the guest does not stop", err)
			}
			if s.State == 'T' {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// fork lets the guest have children, of which each runs a line, and then does nothing.
func (g *guest) fork(n int, line string) {
	g.t.Helper()
	for pid := range strings.FieldsSeq(g.do(fmt.Sprintf("print_children(%d, %q)", n, line))) {
		pid, err := strconv.Atoi(pid)
		if err != nil {
			g.t.Fatal(err)
		}
		level, err := object.ReadLevel(pid)
		if err != nil {
			g.t.Fatal(err)
		}
		p, err := object.OpenProc(pid, level)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { unix.Kill(p.Host, unix.SIGKILL); p.Close() })
		g.children = append(g.children, p)
	}
}

// copied takes a snapshot in rounds, with a line that the guest runs before each, and one before it is stopped. It returns
// how much each round has copied.
func (g *guest) copied(lines ...string) (s *dump.Snapshot, rounds []uint64) {
	g.t.Helper()
	path := filepath.Join(g.t.TempDir(), "x.vps")
	w, err := dump.Create(path, &dump.Header{Arch: "x86_64", PageSize: pageSize}, dump.Plain)
	if err != nil {
		g.t.Fatal(err)
	}
	defer w.Abort()
	c := pager.NewCopy(w.Writer)
	defer c.Close()
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "churn"):
			fmt.Fprintln(g.in, line) // it does not end
		case strings.HasPrefix(line, "fork"):
			g.fork(1, "pass")
		case line != "":
			g.do(line)
		}
		if i == len(lines)-1 {
			break
		}
		n, _, err := c.Round(context.Background(), g.spaces())
		if err != nil {
			g.t.Fatal(err)
		}
		rounds = append(rounds, n)
	}
	g.stop()
	spaces := g.spaces()
	for _, s := range spaces {
		if err := w.Put(s.ID, &dump.Mm{Id: s.ID}); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := c.Reserve(64 << 20); err != nil {
		g.t.Fatal(err)
	}
	for _, s := range spaces {
		if _, err := c.Look(context.Background(), s); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := c.Freeze(context.Background(), nil); err != nil {
		g.t.Fatal(err)
	}
	if err := c.Finish(context.Background()); err != nil {
		g.t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		g.t.Fatal(err)
	}
	f, err := dump.OpenFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { f.Close() })
	return f.Snapshot, rounds
}

// check compares a snapshot with the memory of the guest and its children, which are stopped.
func (g *guest) check(snapshot *dump.Snapshot) {
	g.t.Helper()
	for i, p := range append([]object.Proc{g.proc}, g.children...) {
		checkProcess(g.t, snapshot, p, uint64(i+1))
	}
}

// checkProcess expects those pages that are the process's own, as they are, and no others.
func checkProcess(t *testing.T, snapshot *dump.Snapshot, p object.Proc, id uint64) {
	t.Helper()
	key := dump.Key{Type: dump.Type_TYPE_MM, ID: id}
	stored := make(map[uint64]bool)
	for _, e := range snapshot.Extents(key) {
		for at := e.Start; at < e.End; at += pageSize {
			stored[at] = true
		}
	}
	scanner, err := pager.NewScanner(p.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer scanner.Close()
	var own []dump.Range
	for _, m := range space(t, p, id).Mappings {
		if own, err = scanner.Private(own, m.Start, m.End); err != nil {
			t.Fatal(err)
		}
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.Host))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	wrong := 0
	for _, r := range own {
		for at := r.Start; at < r.End; at += pageSize {
			want, got := make([]byte, pageSize), make([]byte, pageSize)
			if _, err := mem.ReadAt(want, int64(at)); err != nil {
				t.Fatalf("%#x: %v", at, err)
			}
			if !stored[at] {
				wrong++
				t.Errorf("%#x is not in the snapshot", at)
			} else if err := snapshot.ReadPages(key, at, got); err != nil {
				t.Fatal(err)
			} else if !bytes.Equal(got, want) {
				wrong++
				t.Errorf("%#x is not as it was: %q, want %q", at, got[:8], want[:8])
			}
			delete(stored, at)
			if wrong > 5 {
				t.FailNow()
			}
		}
	}
	for at := range stored {
		want, got := make([]byte, pageSize), make([]byte, pageSize)
		_, err := mem.ReadAt(want, int64(at))
		if err == nil {
			err = snapshot.ReadPages(key, at, got)
		}
		if err != nil || !overFile(space(t, p, id), at) || !bytes.Equal(got, want) {
			t.Errorf("%#x is in the snapshot, and %d more, but not the process's own: %v", at, len(stored)-1, err)
			return
		}
	}
}

// overFile tells whether an address is in a private mapping of a file. Who maps one over memory in the very moment in which that
// begins to be tracked may find pages of the file kept as pages of its own.
func overFile(s *pager.Space, at uint64) bool {
	for _, m := range s.Mappings {
		if at >= m.Start && at < m.End {
			return !m.Anonymous
		}
	}
	return false
}

func TestCopyInRounds(t *testing.T) {
	const fill = "a = area(32*M); fill(a, 32*M, 1)"
	tests := []struct {
		name  string
		lines []string // one before each round and one before the freeze
	}{
		{"nothing more", []string{fill, "pass"}},
		{"writes", []string{fill, "fill(a, M, 2)", "fill(a + M//2, M, 3)", "fill(a + 3*M, M, 4)"}},
		{"zeros", []string{fill, "zero(a, M)", "zero(a + M, M)"}},
		{"discarded", []string{fill, "madvise(a, M, DONTNEED)", "madvise(a + 2*M, M, DONTNEED); read(a + 2*M, M); write(a + 2*M, b'new')"}},
		{"discarded, then written", []string{fill, "madvise(a, M, DONTNEED)", "fill(a, M//2, 5)"}},
		{"free to go", []string{fill, "madvise(a, 2*M, FREE); fill(a, M, 3)", "madvise(a + 4*M, M, FREE)"}},
		{"paged out", []string{fill, "madvise(a, M, PAGEOUT)", "read(a, M//2); write(a + M//4, b'new'); madvise(a + 8*M, M, PAGEOUT)"}},
		{"unmapped", []string{fill, "munmap(a, M)", "munmap(a + 4*M, M)"}},
		{"mapped again", []string{fill, "munmap(a, 2*M); map(a, 2*M)", "fill(a, M, 2)"}},
		{"mapped again between rounds", []string{fill, "munmap(a, 2*M); map(a, 2*M); fill(a, M, 2)", "munmap(a, M); map(a, M); write(a, b'new')"}},
		{"replaced by a file", []string{fill, "mapfile(a, 2*M)", "write(a, b'own')"}},
		{"replaced by a file, late", []string{fill, "pass", "mapfile(a, 2*M); write(a, b'own')"}},
		{"a file's page taken back", []string{"a = area(32*M); fill(a, 32*M, 1); mapfile(a, 2*M); fill(a, M, 4)", "pass", "madvise(a, M, DONTNEED); read(a, M)"}},
		{"replaced by shared memory", []string{fill, "share(a, 2*M)", "fill(a, M, 2)"}},
		{"moved", []string{fill, "b = move(a + 4*M, 4*M)", "fill(b + M, M, 2)"}},
		{"moved late", []string{fill, "fill(a, M, 2)", "b = move(a + 4*M, 4*M)"}},
		{"moved over another", []string{fill, "b = area(8*M); fill(b, 8*M, 9)", "moveto(a, 4*M, b)"}},
		{"moved and mapped again", []string{fill, "b = move(a, 4*M); map(a, 4*M)", "write(a, b'new')"}},
		{"moved back", []string{fill, "b = move(a, 4*M); fill(b, M, 2)", "moveto(b, 4*M, a)"}},
		{"moved, the old place kept", []string{fill, "b = keep(a + 4*M, 4*M)", "write(a + 5*M, b'new')"}},
		{"grown", []string{fill, "b = grow(a, 32*M, 40*M); fill(b + 32*M, 8*M, 2)", "write(b, b'new')"}},
		{"shrunk", []string{fill, "grow(a, 32*M, 16*M)", "pass"}},
		{"new", []string{fill, "b = area(4*M); fill(b, 4*M, 2)", "c = area(4*M); fill(c, 4*M, 2); fill(b, M, 3)"}},
		{"heap", []string{fill + "; h = sbrk(8*M); fill(h, 8*M, 1)", "sbrk(4*M); fill(h + 8*M, 4*M, 2)", "sbrk(-6*M); sbrk(2*M)"}},
		{"protected", []string{fill, "mprotect(a, M, 0); mprotect(a + M, M, 1)", "mprotect(a + 2*M, M, 0)"}},
		{"protected from the first", []string{fill + "; mprotect(a, M, 0)", "mprotect(a, M, 3); fill(a, M//2, 3); mprotect(a, M, 0)", "pass"}},
		{"guarded", []string{fill, "guard(a, M)", "guard(a + 2*M, M); unguard(a, M//2); write(a, b'new')"}},
		{"huge", []string{"a = area(32*M); madvise(a, 32*M, HUGEPAGE); fill(a, 32*M, 1)", "write(a + 5*M, b'new')", "madvise(a + 8*M, 4*M, DONTNEED); write(a + 9*M, b'new')"}},
		{"to be merged", []string{fill + "; madvise(a, 32*M, MERGEABLE)", "write(a, b'new')", "write(a + M, b'new')"}},
		{"children", []string{fill, "child(); write(a, b'new')", "child(); write(a + M, b'new'); read(a, 32*M)"}},
		{"children that write", []string{fill, "child('write(a, b\"child\")')", "child('fill(a, M, 7)')"}},
		{"kernel writes", []string{fill, "receive(a + M, 100000)", "receive(a + 2*M, 100000); vmwrite(a + 3*M, 50000)"}},
		{"locked", []string{fill, "mlock(a, M)", "munlock(a, M); write(a, b'new')"}},
		{"no longer its program", []string{fill, "again()", "a = area(16*M); fill(a, 16*M, 8)"}},
		{"another program, late", []string{fill, "pass", "again()"}},
		{"other programs", []string{fill, "again()", fill, "write(a, b'new')", "again()"}},
		{"its own userfaultfd", []string{fill, "b = area(8*M); fill(b, 8*M, 1); track(b, 8*M)", "write(b, b'new'); write(a, b'new')"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			s, rounds := g.copied(test.lines...)
			if rounds[0] < 16<<20 {
				t.Errorf("the first round copied %d bytes", rounds[0])
			}
			g.check(s)
		})
	}
}

// TestCopyOfChurn copies memory that changes in every way all the time.
func TestCopyOfChurn(t *testing.T) {
	for seed := range 3 {
		g := newGuest(t)
		s, _ := g.copied("a = area(16*M); fill(a, 16*M, 1)", fmt.Sprintf("churn(a, 16*M, %d)", seed), "", "", "")
		g.check(s)
	}
}

// TestChildrenShare expects that what processes share is stored once, whether it is copied while they run or when they are frozen.
func TestChildrenShare(t *testing.T) {
	const fill = "a = area(32*M); fill(a, 32*M, 1)"
	tests := []struct {
		name  string
		lines []string
	}{
		{"frozen", []string{"pass"}},
		{"rounds", []string{"pass", "pass", "pass"}},
		{"the parent writes", []string{"fill(a, M, 2)", "fill(a + 2*M, M, 2)", "fill(a + M//2, M, 3)"}},
		{"the parent forgets", []string{"pass", "munmap(a, 16*M)", "madvise(a + 16*M, 16*M, DONTNEED)"}},
		{"the parent ends its program", []string{"pass", "again()"}},
		{"a child is born after a write", []string{"pass", "fill(a, M, 2)", "fill(a, M, 3)", "fork", "pass"}},
		{"children all the time", []string{"fill(a, M, 2)", "fork", "fill(a + M//2, M, 3)", "fork", "fill(a + M, M, 4)"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			g.do(fill)
			g.fork(4, "pass")
			g.fork(4, "write(a + 5*M + os.getpid()%100*8192, b'child')")
			s, _ := g.copied(test.lines...)
			g.check(s)
			stored := 0
			for _, f := range s.Frames() {
				stored += f.Count * pageSize
			}
			if stored > 128<<20 {
				t.Errorf("%d MiB are stored", stored>>20) // nine times 40 MiB if nothing is shared
			}
		})
	}
}

// TestRoundsShrink expects that a round copies what was written to, not more.
func TestRoundsShrink(t *testing.T) {
	g := newGuest(t)
	_, rounds := g.copied("a = area(32*M); fill(a, 32*M, 1)", "fill(a, 2*M, 2)", "write(a, b'new')", "pass")
	if rounds[1] < 2<<20 || rounds[1] > 4<<20 || rounds[2] > 1<<20 {
		t.Error("rounds copied", rounds)
	}
}

// TestNothingStays looks for what a copy that is abandoned leaves in the process.
func TestNothingStays(t *testing.T) {
	g := newGuest(t)
	g.do("a = area(32*M); fill(a, 32*M, 1)")
	before := g.do("print_state()")
	w, err := dump.NewWriter(io.Discard, &dump.Header{Arch: "x86_64", PageSize: pageSize}, dump.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	c := pager.NewCopy(w)
	n, stopped, err := c.Round(t.Context(), []*pager.Space{space(t, g.proc, 1)})
	if err != nil || n < 32<<20 || stopped == 0 {
		t.Fatal(n, stopped, err)
	}
	tracked := false
	for _, m := range space(t, g.proc, 1).Mappings {
		tracked = tracked || m.Tracked
	}
	c.Close()
	for _, m := range space(t, g.proc, 1).Mappings {
		if m.Tracked {
			t.Errorf("%v is still tracked", m.Range)
		}
	}
	if after := g.do("print_state()"); after != before || !tracked {
		t.Errorf("tracked: %v\nbefore: %s\nafter:  %s", tracked, before, after)
	}
}
