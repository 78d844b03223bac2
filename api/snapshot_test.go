package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"vps/api/apitest"
	"vps/instance"
)

func ignore(instance.Progress) {}

func TestSnapshotAndRestore(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	f, err := os.Create(filepath.Join(t.TempDir(), "web.vps"))
	must(t, err)
	defer f.Close()
	var last instance.Progress
	report, err := c.Snapshot(t.Context(), "web", f, instance.SnapshotOptions{Suspend: true}, func(p instance.Progress) { last = p })
	must(t, err)
	if info, err := f.Stat(); err != nil || info.Size() != apitest.SnapshotSize || !reflect.DeepEqual(report, apitest.Report()) {
		t.Errorf("file of %d bytes, report %+v", info.Size(), report)
	}
	if last.Total != apitest.SnapshotSize {
		t.Errorf("progress %+v", last)
	}
	if i, _ := c.Show(t.Context(), "web"); i.State != instance.Suspended {
		t.Errorf("state %s after it, want suspended", i.State)
	}
	_, err = f.Seek(0, io.SeekStart)
	must(t, err)
	must(t, c.Restore(t.Context(), "copy", f, instance.RestoreOptions{Resume: true}, ignore))
	if i, err := c.Show(t.Context(), "copy"); err != nil || i.State != instance.Running {
		t.Errorf("restored: %+v, %v", i, err)
	}
}

func TestSnapshotThroughAPipe(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	r, w, err := os.Pipe()
	must(t, err)
	read := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		read <- b
	}()
	_, err = c.Snapshot(t.Context(), "web", w, instance.SnapshotOptions{}, ignore)
	must(t, err)
	w.Close()
	b := <-read
	if len(b) != apitest.SnapshotSize {
		t.Fatalf("%d bytes", len(b))
	}
	r, w, err = os.Pipe()
	must(t, err)
	go func() {
		io.Copy(w, bytes.NewReader(b))
		w.Close()
	}()
	must(t, c.Restore(t.Context(), "copy", r, instance.RestoreOptions{}, ignore))
}

// TestAbandonedSnapshot: nobody reads the pipe, and then the client goes.
func TestAbandonedSnapshot(t *testing.T) {
	host := apitest.New("web")
	c, _ := serve(t, host)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	events := host.Events(t.Context())
	_, err = c.Snapshot(ctx, "web", w, instance.SnapshotOptions{Stop: true}, func(instance.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("snapshot: %v", err)
	}
	for _, want := range []instance.State{instance.Snapshotting, instance.Running} {
		if e := <-events; e.State != want {
			t.Errorf("%+v, want state %s", e, want)
		}
	}
}
