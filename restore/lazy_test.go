package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vps/cell"
	"vps/dump"
	"vps/pager/lazy"
)

// fillLazily lets the restores of a site leave memory for later.
func (s *site) fillLazily(ctx context.Context, memories []lazy.Memory) error {
	warn := func(err error) { s.warned = append(s.warned, err.Error()) }
	file, err := os.Open(s.file.Name())
	if err != nil {
		return err
	}
	snapshot, err := dump.OpenFrom(file)
	if err != nil {
		return err
	}
	fill, err := s.cell.Fill(ctx, snapshot, memories, warn)
	if err != nil {
		return err
	}
	if s.spoil != nil {
		s.spoil()
	}
	s.fill = fill
	s.filled = make(chan error, 1)
	s.interrupted = 0
	go func() {
		for {
			ctx, cancel := context.Background(), context.CancelFunc(func() {})
			if s.interrupt > 0 {
				ctx, cancel = context.WithTimeout(ctx, s.interrupt)
			}
			err := fill.Run(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				s.filled <- err
				return
			}
			s.interrupted++
			time.Sleep(s.interrupt / 2)
			if fill, err = s.cell.Refill(context.Background(), fill.State, warn); err != nil {
				s.filled <- err
				return
			}
		}
	}()
	return nil
}

// awaitFilled waits until all memory is there, if some was left for later.
func (s *site) awaitFilled() {
	s.t.Helper()
	if s.filled == nil {
		s.t.Error("nothing was left for later")
		return
	}
	select {
	case err := <-s.filled:
		if err != nil {
			s.t.Error(err)
		}
	case <-time.After(20 * time.Second):
		missing, total := s.fill.Progress()
		s.t.Errorf("still %d of %d bytes are missing", missing, total)
	}
}

// goAtOnce lets the program go on as soon as it is resumed.
func (s *site) goAtOnce() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.root, "tmp/kind/GO"), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// lazily begins a program and restores it from a snapshot with most of its memory left for later; the program goes on at once. Between
// the snapshot and the restore something may be done to the file.
func (s *site) lazily(t *testing.T, name, arg string, spoil func(path string)) {
	t.Helper()
	s.begin(t, name, arg)
	path := s.snapshot()
	s.end()
	s.lazy = true
	t.Cleanup(func() { s.lazy = false })
	s.goAtOnce()
	s.spoil = func() { spoil(path) }
	s.restore(path)
}

// TestLazy restores programs that go on before their memory is there, and look at it. The file is gone by then.
func TestLazy(t *testing.T) {
	s := kindSite(t)
	for name, arg := range map[string]string{
		"heap": "", "threads": "", "family": "", "big": "", "forks": "268435456 3", "moves": "268435456", "signals": "", "waits": "",
	} {
		t.Run(name, func(t *testing.T) {
			s.lazily(t, name, arg, func(path string) {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			})
			s.verdict()
			s.awaitFilled()
			if len(s.warned) > 0 {
				t.Error(s.warned)
			}
			s.nothingHeld()
		})
	}
}

// nothingHeld checks that the keeper has let go of what it held for a filling.
func (s *site) nothingHeld() {
	s.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", s.cell.Keeper.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || strings.Contains(link, "userfaultfd") || strings.Contains(link, ".vps") || strings.Contains(link, cell.LogFile) {
			s.t.Errorf("the keeper has %s open: %s, %v", e.Name(), link, err)
		}
	}
}

// TestLazyInterrupted lets somebody else go on with the filling again and again, as daemons do.
func TestLazyInterrupted(t *testing.T) {
	s := kindSite(t)
	s.interrupt = 20 * time.Millisecond
	s.lazily(t, "moves", "268435456", func(string) {})
	s.verdict()
	s.awaitFilled()
	if s.interrupted < 3 {
		t.Errorf("interrupted %d times", s.interrupted)
	}
	s.nothingHeld()
}

// TestLazyLost spoils the file of a snapshot from which memory is missing yet.
func TestLazyLost(t *testing.T) {
	const size = 64 << 20
	s := kindSite(t)
	for name, test := range map[string]struct {
		spoil         func(f *os.File, at int64) error
		warn, verdict string
	}{
		"changed": {func(f *os.File, at int64) error { _, err := f.WriteAt([]byte("spoiled"), at); return err }, "checksum mismatch", "PASS\n"},
		// What the interpreter itself has behind is lost too.
		"truncated": {func(f *os.File, at int64) error { return f.Truncate(at) }, "EOF", "FAIL: exit 135\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s.lazily(t, "lost", strconv.Itoa(size), func(path string) {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := test.spoil(f, s.middle(path, size)); err != nil {
					t.Fatal(err)
				}
			})
			if text := s.read("tmp/kind/VERDICT", lines(1)); text != test.verdict {
				t.Error(text)
			}
			s.awaitFilled()
			if len(s.warned) == 0 || !strings.Contains(s.warned[0], test.warn) {
				t.Errorf("warned of %q", s.warned)
			}
		})
	}
}

// middle is where in a snapshot file the page lies that is in the middle of the program's area.
func (s *site) middle(path string, size uint64) int64 {
	s.t.Helper()
	f, err := dump.OpenFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	text, err := os.ReadFile(filepath.Join(s.root, "tmp/kind/AREA"))
	if err != nil {
		s.t.Fatal(err)
	}
	address, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, id := range f.IDs(dump.Type_TYPE_MM) {
		for _, e := range f.Extents(dump.Key{Type: dump.Type_TYPE_MM, ID: id}) {
			if at := address + size/2; e.Start <= at && at < e.End {
				position, _ := f.Position(e)
				return position
			}
		}
	}
	s.t.Fatal("the area is not in the snapshot")
	return 0
}
