package restore_test

import (
	"embed"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vps/dump"
	"vps/internal/testimage"
	"vps/snapshot"
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
		if _, refused := refusals[name]; name != "kind" && !refused {
			names = append(names, name)
		}
	}
	return names
}

// refusals are programs that hold something of which no snapshot can be taken, and what the error says.
var refusals = map[string][]string{}

// kindSite is a site whose image has Python and the programs.
func kindSite(t testing.TB) *site {
	t.Helper()
	opts := []testimage.Option{testimage.Python()}
	files, err := fs.Glob(programs, "testdata/*.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := programs.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, testimage.File("/kind/"+filepath.Base(f), string(text), 0o644))
	}
	return newSite(t, opts...)
}

// begin starts an instance that runs a program, and waits until that is ready. The instance ends with the test.
func (s *site) begin(t testing.TB, name string) {
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
	s.start("/bin/sh", "-c", "python3 -B /kind/"+name+".py 2>/tmp/kind/LOG || echo FAIL: exit $? >/tmp/kind/VERDICT; while :; do sleep 1; done")
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
	_, err = snapshot.Take(s.t.Context(), s.source(), w, false)
	return err
}

func TestKinds(t *testing.T) {
	s := kindSite(t)
	for _, name := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("left alone", func(t *testing.T) {
				s.begin(t, name)
				s.verdict()
			})
			t.Run("goes on", func(t *testing.T) {
				s.begin(t, name)
				for range 2 {
					if err := s.pass(); err != nil {
						t.Fatal(err)
					}
				}
				s.verdict()
			})
			t.Run("restored", func(t *testing.T) {
				s.begin(t, name)
				s.again()
				s.verdict()
			})
			t.Run("restored twice", func(t *testing.T) {
				s.begin(t, name)
				s.again()
				s.again()
				s.verdict()
			})
		})
	}
}
