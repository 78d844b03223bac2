package instance

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"vps/dump"
	"vps/instance/registry"
)

// A snapshot is restored only if the instance, whose files are not in it, has not run on.
func TestOlderSnapshot(t *testing.T) {
	h := newHost(t)
	h.start("web", initLine("sleep 1000"))
	restore := func(snapshot []byte, opt RestoreOptions, older string) {
		t.Helper()
		if state := h.state("web"); state == Suspended {
			if err := h.Abort(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
		} else if err := h.Stop(t.Context(), "web", 0); err != nil {
			t.Fatal(err)
		}
		err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), opt, nil)
		switch {
		case older == "" && err != nil:
			t.Fatal(err)
		case older != "" && (!errors.Is(err, ErrOlder) || !strings.Contains(err.Error(), older) || !strings.Contains(err.Error(), "--force")):
			t.Fatalf("error %v, want %s", err, older)
		case older != "" && h.state("web") != Dead:
			t.Fatalf("it is %s", h.state("web"))
		}
	}
	running := h.snapshotted("web", SnapshotOptions{}) // and goes on
	restore(running, RestoreOptions{}, "web ran ")

	if err := h.Start(t.Context(), "web", nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	suspended := h.snapshotted("web", SnapshotOptions{})
	restore(suspended, RestoreOptions{}, "") // as often as one likes
	restore(suspended, RestoreOptions{}, "")
	h.Host.Close() // another daemon knows it too
	h.open()
	if err := h.Resume(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	restore(suspended, RestoreOptions{}, "web ran 1s since this snapshot of ")
	restore(suspended, RestoreOptions{Resume: true, Force: true}, "")
	stopped := h.snapshotted("web", SnapshotOptions{Stop: true})
	restore(suspended, RestoreOptions{}, "web ran ")
	restore(stopped, RestoreOptions{}, "")
	if err := h.Abort(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	h.start("web", initLine("sleep 1000"))
	restore(stopped, RestoreOptions{}, "web was created anew since this snapshot of ")
}

func TestAgeAcrossKill(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	snapshot := h.snapshotted("web", SnapshotOptions{})
	if err := h.Resume(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	before := h.recordedAge("web")
	h.killed("snapshot@20000 web -")
	h.open()
	h.ticks()
	if after := h.recordedAge("web"); after.Runs != before.Runs+1 || after.Since.IsZero() {
		t.Errorf("%+v, then %+v", before, after)
	}
	if err := h.Stop(t.Context(), "web", 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{}, nil); !errors.Is(err, ErrOlder) {
		t.Errorf("%v", err)
	}
}

func (h *testHost) recordedAge(id string) registry.Age {
	h.t.Helper()
	i := newInstance(h.Host, id)
	if err := i.load(); err != nil {
		h.t.Fatal(err)
	}
	return i.rec.Age
}

func TestBootID(t *testing.T) {
	h := newHost(t)
	bootID := func() string { return h.shell("web", "cat /proc/sys/kernel/random/boot_id") }
	h.start("web", initLine("sleep 1000"))
	before := bootID()
	snapshot := h.snapshotted("web", SnapshotOptions{Stop: true})
	s, err := dump.Open(bytes.NewReader(snapshot), int64(len(snapshot)))
	if err != nil {
		t.Fatal(err)
	}
	info, err := dump.Get[*dump.Instance](s, 1)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := registry.UUIDFrom(info.GetBootId()); err != nil || id.String() != before {
		t.Errorf("the snapshot has boot id %s, %v, not %s", id, err, before)
	}
	if err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{Resume: true}, nil); err != nil {
		t.Fatal(err)
	}
	if after := bootID(); after != before {
		t.Errorf("boot id %q, restored %q", before, after)
	}
	if err := h.Restart(t.Context(), "web", 0); err != nil {
		t.Fatal(err)
	}
	if after := bootID(); after == before || len(after) != len(before) {
		t.Errorf("boot id %q, after a restart %q", before, after)
	}
}
