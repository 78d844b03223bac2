package restore_test

import (
	"embed"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vps/dump"
	"vps/internal/testimage"
	"vps/object"
	"vps/priv"
	"vps/snapshot"
	"vps/suspend"
)

// programs hold state of one kind each and check it themselves: see testdata/kind.py.
//
//go:embed testdata
var programs embed.FS

// kinds lists the programs of which a snapshot can be taken.
func kinds(t testing.TB) []string {
	t.Helper()
	files, err := fs.Glob(programs, "testdata/*.py")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".py")
		switch name {
		case "kind", "refused", "lost", "outside", "wire", "peer": // of tests of their own
		default:
			names = append(names, name)
		}
	}
	return names
}

// refusals are what testdata/refused.py can hold, and what the error says of it.
var refusals = map[string]string{
	"md5":             "fd 3: TCP socket with MD5 keys is not supported",
	"mptcp":           "MPTCP connection is not supported",
	"corked":          "fd 3: UDP socket: a corked datagram",
	"unread":          "fd 3: netlink socket: messages of the kernel that nobody has read yet",
	"watch":           "fd 3: inotify: watches /tmp/kind/watched (deleted)",
	"descriptor":      "fd 3: file /proc/2/fdinfo/0: of a descriptor",
	"reading":         "fd 3: directory /dev/shm: in the middle of being read",
	"key":             "key \"a secret\" of type user is not supported",
	"mounted":         "mount /tmp/kind/mount (overlay) is not supported",
	"traced":          "being traced is not supported",
	"uts namespace":   "its own uts namespace is not supported",
	"mount namespace": "its own mnt namespace is not supported",
	"net namespace":   "its own net namespace is not supported",
	"hugetlb":         "of huge pages (hugetlbfs) is not supported",
	"vfork":           "vfork: it waits for a child that has not executed a program yet",
}

// programTexts are the texts of the programs in testdata by their file names.
func programTexts(t testing.TB) map[string]string {
	t.Helper()
	files, err := fs.Glob(programs, "testdata/*.py")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string, len(files))
	for _, f := range files {
		text, err := programs.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(f)] = string(text)
	}
	return texts
}

// kindSite is a site whose image has Python and the programs.
func kindSite(t testing.TB) *site {
	t.Helper()
	opts := []testimage.Option{testimage.Python(), testimage.Network()}
	for name, text := range programTexts(t) {
		opts = append(opts, testimage.File("/kind/"+name, text, 0o644))
	}
	return newSite(t, opts...)
}

// begin starts an instance that runs a program, and waits until that is ready. The instance ends with the test.
func (s *site) begin(t testing.TB, name, arg string) {
	t.Helper()
	s.t = t
	dir := filepath.Join(s.root, "tmp/kind")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.report()
		}
		s.end()
	})
	const run = `python3 -B /kind/$0.py "$1" 2>/tmp/kind/LOG || echo FAIL: exit $? >/tmp/kind/VERDICT; while :; do sleep 1; done`
	s.start("/bin/sh", "-c", run, name, arg)
	s.read("tmp/kind/READY", lines(1))
}

// report tells what a program left behind.
func (s *site) report() {
	for _, name := range []string{"PROBLEMS", "LOG"} {
		if text, err := os.ReadFile(filepath.Join(s.root, "tmp/kind", name)); err == nil && len(text) > 0 {
			s.t.Logf("%s:\n%s", name, text)
		}
	}
}

// verdict lets the program go on, and reads what it found.
func (s *site) verdict() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.root, "tmp/kind/GO"), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
	if text := s.read("tmp/kind/VERDICT", lines(1)); text != "PASS\n" {
		s.t.Error(text)
	}
}

// pass takes a snapshot of the running instance and lets it go on.
func (s *site) pass() error {
	s.t.Helper()
	header, err := snapshot.Header("web")
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := dump.NewWriter(io.Discard, header, dump.Plain)
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Abort()
	_, err = snapshot.Take(s.t.Context(), s.source(), w, false)
	return err
}

func TestKinds(t *testing.T) {
	s := kindSite(t)
	for _, name := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("left alone", func(t *testing.T) {
				s.begin(t, name, "")
				s.verdict()
			})
			t.Run("goes on", func(t *testing.T) {
				s.begin(t, name, "")
				for range 2 {
					if err := s.pass(); err != nil {
						t.Fatal(err)
					}
				}
				s.verdict()
			})
			t.Run("restored", func(t *testing.T) {
				s.begin(t, name, "")
				s.again()
				s.verdict()
			})
			t.Run("restored twice", func(t *testing.T) {
				s.begin(t, name, "")
				s.again()
				s.again()
				s.verdict()
			})
		})
	}
}

func TestKindsRefused(t *testing.T) {
	s := kindSite(t)
	for name, want := range refusals {
		t.Run(name, func(t *testing.T) {
			s.begin(t, "refused", name)
			refused := errors.Join(snapshot.Probe(s.source())...)
			if !errors.Is(refused, object.ErrUnsupported) || !strings.Contains(refused.Error(), want) {
				t.Errorf("probe: %v, want ...%s", refused, want)
			}
			if err := s.pass(); !errors.Is(err, object.ErrUnsupported) {
				t.Errorf("snapshot: %v", err)
			}
			s.verdict()
		})
	}
}

// What an instance cannot have without further privileges is refused where it has them.
func TestPrivilegedKindsRefused(t *testing.T) {
	s := kindSite(t)
	set, err := priv.New([]string{"IO_URING", "USERFAULTFD", "SECRETMEM", "PERF"}, nil, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if s.rights.Filter, err = set.Filter(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"io_uring":      "fd 3: io_uring is not supported",
		"userfaultfd":   "fd 3: userfaultfd is not supported",
		"perf":          "fd 3: perf_event is not supported",
		"secret memory": "fd 3: secret memory is not supported",
		"secret":        "of secret memory is not supported",
	} {
		t.Run(name, func(t *testing.T) {
			s.begin(t, "refused", name)
			if err := errors.Join(snapshot.Probe(s.source())...); !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), want) {
				t.Errorf("probe: %v, want ...%s", err, want)
			}
			s.verdict()
		})
	}
}

// What only a tracer is told is refused when the instance is held, which goes on then.
func TestKindRefusedLate(t *testing.T) {
	s := kindSite(t)
	s.begin(t, "refused", "dispatched")
	if err := s.pass(); !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), "system call user dispatch is not supported") {
		t.Errorf("snapshot: %v", err)
	}
	s.verdict()
}

// What keeps an instance from being dumped for a moment only is waited for.
func TestBusy(t *testing.T) {
	s := kindSite(t)
	for name, want := range map[string]string{
		"full":   "ptmx: its output is full",
		"events": "fd 3: inotify: events wait to be read",
		"aio":    "asynchronous I/O: requests wait for files to be ready",
	} {
		t.Run(name, func(t *testing.T) {
			s.begin(t, "refused", name)
			if err := s.pass(); !errors.Is(err, object.ErrBusy) || !strings.Contains(err.Error(), want) {
				t.Errorf("snapshot: %v", err)
			}
			done := make(chan error)
			go func() { done <- s.pass() }()
			select {
			case err := <-done:
				t.Errorf("snapshot meanwhile: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			s.verdict()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// What passes between a snapshot and its restore did not pass for the instance.
func TestKindsLater(t *testing.T) {
	s := kindSite(t)
	for _, name := range []string{"clocks", "sleep", "timerfd", "timers"} {
		t.Run(name, func(t *testing.T) {
			s.begin(t, name, "")
			path := s.snapshot()
			s.end()
			time.Sleep(2 * time.Second)
			s.restore(path)
			s.verdict()
		})
	}
}

func TestKindsSuspended(t *testing.T) {
	s := kindSite(t)
	for _, name := range []string{"pipes", "sleep", "threads", "tree", "waits"} {
		t.Run(name, func(t *testing.T) {
			s.begin(t, name, "")
			if err := suspend.Suspend(t.Context(), s.group, nil); err != nil {
				t.Fatal(err)
			}
			if err := s.pass(); err != nil {
				t.Fatal(err)
			}
			if frozen, err := s.group.Frozen(); err != nil || !frozen {
				t.Errorf("suspended before the snapshot, now frozen=%v, %v", frozen, err)
			}
			s.again()
			s.verdict()
		})
	}
}
