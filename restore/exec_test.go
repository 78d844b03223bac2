package restore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"vps/cell"
	"vps/suspend"
)

// outsider is what an exec's process does in TestExecuted: it holds files, makes children, and ends when it is told to.
const outsider = `
cd /tmp/kind
exec 5>$0.held 6</etc/kept
sh -c 'while ! test -e GO; do sleep 0.02; done; exit 7' & child=$!
(sleep 1000 & echo $! >$0.orphan) # its parent is init now
pid=$$
: >$0.READY
while ! test -e GO; do sleep 0.02; done
wait $child
code=$?
read kept <&6
read _ _ _ ppid pgrp sid _ </proc/self/stat
read _ _ _ orphaned _ </proc/$(cat $0.orphan)/stat
echo child $code, kept $kept, number $(($$ == pid)), parent $ppid, group $((pgrp == pid)), session $((sid == pid)), orphan of $orphaned >&5`

// What exec has started is a child of the outside again: the keeper's, who reaps it.
func TestExecuted(t *testing.T) {
	s := newSite(t)
	if err := os.WriteFile(filepath.Join(s.root, "etc/kept"), []byte("here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.root, "tmp/kind"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.start("/bin/sh", "-c", "while :; do sleep 1; done")
	names := []string{"first", "second", "third"}
	for _, name := range names {
		_, _, err := s.cell.Exec(t.Context(), cell.ExecSpec{
			Args: []string{"/bin/sh", "-c", outsider, name}, Env: []string{"PATH=/bin"}, Rights: s.rights,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.read("tmp/kind/"+name+".READY", func(string) bool { return true })
	}
	for range 2 {
		s.again()
	}
	if n := s.outer(); n != 1+len(names) {
		t.Errorf("the keeper has %d children, want init and %d", n, len(names))
	}
	if err := os.WriteFile(filepath.Join(s.root, "tmp/kind/GO"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		const want = "child 7, kept here, number 1, parent 0, group 1, session 1, orphan of 1\n"
		if got := s.read("tmp/kind/"+name+".held", lines(1)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for end := time.Now().Add(10 * time.Second); s.outer() > 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the keeper has %d children, want only init", s.outer())
		}
	}
}

// outer counts the children of the keeper, with the zombies.
func (s *site) outer() int {
	s.t.Helper()
	children, err := suspend.Children(s.cell.Keeper.PID)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(children)
}
