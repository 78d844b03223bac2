package devfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func device(mode fs.FileMode, major, minor uint32) *fstest.MapFile {
	return &fstest.MapFile{Mode: mode | fs.ModeDevice, Sys: &syscall.Stat_t{Rdev: unix.Mkdev(major, minor)}}
}

// host is a /dev with what must not be seen next to what may be.
var host = fstest.MapFS{
	"null":          device(0o666|fs.ModeCharDevice, 1, 3),
	"zero":          device(0o666|fs.ModeCharDevice, 1, 5),
	"mem":           device(0o640|fs.ModeCharDevice, 1, 1),
	"tty":           device(0o666|fs.ModeCharDevice, 5, 0),
	"console":       device(0o600|fs.ModeCharDevice, 5, 1),
	"ptmx":          device(0o666|fs.ModeCharDevice, 5, 2),
	"pts/0":         device(0o620|fs.ModeCharDevice, 136, 0),
	"shm/secret":    device(0o600, 9, 9),
	"net/tun":       device(0o600|fs.ModeCharDevice, 10, 200),
	"sda":           device(0o660, 8, 0),
	"sda1":          device(0o660, 8, 1),
	"disk/by-id/x":  {Mode: fs.ModeSymlink, Data: []byte("../../sda1")},
	"core":          {Mode: fs.ModeSymlink, Data: []byte("/proc/kcore")},
	"out":           {Mode: fs.ModeSymlink, Data: []byte("../etc/passwd")},
	"log":           {Mode: fs.ModeSocket},
	"nosuchdriver/": {Mode: fs.ModeDir},
}

func nodes(t *testing.T, r *Ruleset) map[string]Node {
	t.Helper()
	list, err := r.Nodes(host)
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]Node)
	for _, n := range list {
		if _, ok := byName[n.Name]; ok {
			t.Errorf("%s is there twice", n.Name)
		}
		byName[n.Name] = n
	}
	return byName
}

func parse(t *testing.T, text, name string) *Ruleset {
	t.Helper()
	r, err := Parse(strings.NewReader(text), "devfs.rules", name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var wantDefault = map[string]Node{
	"null":    {Name: "null", Type: Char, Mode: 0o666, Major: 1, Minor: 3, BindFrom: "null"},
	"zero":    {Name: "zero", Type: Char, Mode: 0o666, Major: 1, Minor: 5, BindFrom: "zero"},
	"tty":     {Name: "tty", Type: Char, Mode: 0o666, Major: 5, Minor: 0, BindFrom: "tty"},
	"console": {Name: "console", Type: Console},
	"pts":     {Name: "pts", Type: Pts},
	"ptmx":    {Name: "ptmx", Type: Symlink, Link: "pts/ptmx"},
	"fd":      {Name: "fd", Type: Symlink, Link: "/proc/self/fd"},
	"stdin":   {Name: "stdin", Type: Symlink, Link: "/proc/self/fd/0"},
	"stdout":  {Name: "stdout", Type: Symlink, Link: "/proc/self/fd/1"},
	"stderr":  {Name: "stderr", Type: Symlink, Link: "/proc/self/fd/2"},
}

func TestDefault(t *testing.T) {
	if diff := cmp.Diff(wantDefault, nodes(t, Default())); diff != "" {
		t.Error(diff)
	}
}

func TestRules(t *testing.T) {
	const text = `
# Rulesets of the test.
[disks]
add include late      # before it is defined
add path 'sd*' unhide ro
add path sda hide
add path disk/by-id/* unhide

[late]
add include default
add path zero hide
add path net/tun unhide mode 0666

[everything]
add unhide
add path */* unhide
add path mem hide

[nothing]
add include everything
add hide
add path */* hide

[null]
add path null unhide mode 0666 ro
`
	for _, test := range []struct {
		set     string
		changes map[string]*Node // to wantDefault; nil: not there
	}{
		{"late", map[string]*Node{
			"zero":    nil,
			"net/tun": {Name: "net/tun", Type: Char, Mode: 0o666, Major: 10, Minor: 200},
		}},
		{"disks", map[string]*Node{
			"zero":         nil,
			"net/tun":      {Name: "net/tun", Type: Char, Mode: 0o666, Major: 10, Minor: 200},
			"sda1":         {Name: "sda1", Type: Block, Mode: 0o660, Major: 8, Minor: 1, ReadOnly: true, BindFrom: "sda1"},
			"disk/by-id/x": {Name: "disk/by-id/x", Type: Symlink, Link: "../../sda1"},
		}},
		{"everything", map[string]*Node{
			"sda":     {Name: "sda", Type: Block, Mode: 0o660, Major: 8, BindFrom: "sda"},
			"sda1":    {Name: "sda1", Type: Block, Mode: 0o660, Major: 8, Minor: 1, BindFrom: "sda1"},
			"net/tun": {Name: "net/tun", Type: Char, Mode: 0o600, Major: 10, Minor: 200, BindFrom: "net/tun"},
		}},
		{"null", map[string]*Node{
			"null": {Name: "null", Type: Char, Mode: 0o666, Major: 1, Minor: 3, ReadOnly: true, BindFrom: "null"},
			"zero": nil, "tty": nil, "console": nil, "pts": nil, "ptmx": nil, "fd": nil, "stdin": nil, "stdout": nil, "stderr": nil,
		}},
	} {
		t.Run(test.set, func(t *testing.T) {
			want := make(map[string]Node)
			for name, n := range wantDefault {
				want[name] = n
			}
			for name, n := range test.changes {
				delete(want, name)
				if n != nil {
					want[name] = *n
				}
			}
			if diff := cmp.Diff(want, nodes(t, parse(t, text, test.set))); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := nodes(t, parse(t, text, "nothing")); len(got) != 0 {
		t.Errorf("everything is hidden, but there is %v", got)
	}
}

func TestBadRules(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no set", "add path null unhide", "devfs.rules:1: rule before the first [name]"},
		{"unknown word", "[x]\ndel path null", `devfs.rules:2: unknown word "del"; a rule begins with add`},
		{"unknown action", "[x]\n\nadd path null show", `devfs.rules:3: unknown action "show"; there are hide, unhide, mode, ro, rw`},
		{"no action", "[x]\nadd path null", "devfs.rules:2: rule without an action"},
		{"nothing", "[x]\nadd", "devfs.rules:2: rule without an action"},
		{"both", "[x]\nadd path null hide unhide", "devfs.rules:2: a rule cannot hide and unhide"},
		{"no pattern", "[x]\nadd path", "devfs.rules:2: path wants a pattern"},
		{"bad pattern", "[x]\nadd path [a unhide", "devfs.rules:2: malformed pattern [a"},
		{"absolute", "[x]\nadd path /dev/null unhide", "devfs.rules:2: pattern /dev/null is not of a name below /dev"},
		{"upwards", "[x]\nadd path '../etc' unhide", "devfs.rules:2: pattern '../etc' is not of a name below /dev"},
		{"no mode", "[x]\nadd path null mode", "devfs.rules:2: mode wants an octal number"},
		{"bad mode", "[x]\nadd path null mode 4755", `devfs.rules:2: mode "4755" is not an octal number up to 777`},
		{"twice", "[x]\n[x]", `devfs.rules:2: ruleset "x" is defined twice`},
		{"bad name", "[x", "devfs.rules:1: malformed name of a ruleset: [x"},
		{"include without name", "[x]\nadd include", "devfs.rules:2: include wants one name"},
		{"include of nothing", "[x]\nadd include y", `devfs.rules:2: include: no such ruleset: "y"`},
		{"circle", "[x]\nadd include y\n[y]\nadd include x", "devfs.rules:4: ruleset includes itself: x > y > x"},
		{"other set", "[y]\nadd hide", `devfs.rules: no such ruleset: "x" (there is: y, default)`},
		{"growth", "[x]" + strings.Repeat("\nadd include y", 200) + "\n[y]" + strings.Repeat("\nadd hide", 100), "devfs.rules:102: more than 10000 rules"},
	} {
		if _, err := Parse(strings.NewReader(test.text), "devfs.rules", "x"); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "devfs.rules")
	if r, err := Load(file, DefaultName); err != nil || r.Name != DefaultName {
		t.Errorf("default ruleset without a file: %v", err)
	}
	if _, err := Load(file, "web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("named ruleset without a file: %v", err)
	}
	if err := os.WriteFile(file, []byte("[default]\nadd path null unhide\n[web]\nadd include default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, "wbe"); !errors.Is(err, ErrNoRuleset) {
		t.Errorf("unknown ruleset: %v", err)
	}
	r, err := Load(file, "web")
	if err != nil {
		t.Fatal(err)
	}
	if got := nodes(t, r); len(got) != 1 || got["null"].Name != "null" {
		t.Errorf("file's own default ruleset is not used: %v", got)
	}
}

func TestDeviceRules(t *testing.T) {
	got := DeviceRules([]Node{
		{Name: "null", Type: Char, Major: 1, Minor: 3},
		{Name: "null2", Type: Char, Major: 1, Minor: 3},
		{Name: "sda1", Type: Block, Major: 8, Minor: 1, ReadOnly: true},
		{Name: "fd", Type: Symlink},
		{Name: "console", Type: Console},
	})
	if diff := cmp.Diff([]string{"b 8:1 rm", "c 1:3 rwm"}, got); diff != "" {
		t.Error(diff)
	}
	ptys := DeviceRules([]Node{{Name: "pts", Type: Pts}})
	if len(ptys) != 9 || ptys[0] != "c 136:* rwm" || ptys[8] != "c 5:2 rwm" {
		t.Errorf("rules for ptys: %q", ptys)
	}
}

// The real /dev has what every instance needs.
func TestHost(t *testing.T) {
	list, err := Default().Nodes(os.DirFS("/dev"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]Node)
	for _, n := range list {
		found[n.Name] = n
	}
	want := Node{Name: "null", Type: Char, Mode: 0o666, Major: 1, Minor: 3, BindFrom: "null"}
	if got := found["null"]; got != want {
		t.Errorf("null is %+v, want %+v", got, want)
	}
	for _, name := range []string{"zero", "full", "random", "urandom", "tty"} {
		if n := found[name]; n.Type != Char || n.BindFrom != name {
			t.Errorf("%s is %+v", name, n)
		}
	}
}
