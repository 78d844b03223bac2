package dump

import (
	"path/filepath"
	"testing"
)

func TestNamesThatAreNotUTF8(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.vps")
	w, err := Create(path, testHeader(), Plain)
	if err != nil {
		t.Fatal(err)
	}
	thread := &Thread{Tid: 1, Comm: "\xc3cut"}
	mount := &Mount{Id: 1, Target: "/\xff", Options: []string{"ok", "\xfe"}}
	process := &Process{Pid: 1, Cwd: &FileRef{Path: "/a\x80b"}}
	if err := w.Put(1, thread); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(1, mount); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(1, process); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := Get[*Thread](f.Snapshot, 1); err != nil || got.GetComm() != thread.GetComm() {
		t.Errorf("comm %q, %v", got.GetComm(), err)
	}
	if got, err := Get[*Mount](f.Snapshot, 1); err != nil || got.GetTarget() != mount.GetTarget() || got.GetOptions()[1] != "\xfe" {
		t.Errorf("mount %v, %v", got, err)
	}
	if got, err := Get[*Process](f.Snapshot, 1); err != nil || got.GetCwd().GetPath() != "/a\x80b" {
		t.Errorf("process %v, %v", got, err)
	}
}
