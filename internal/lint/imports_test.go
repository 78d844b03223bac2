package lint

import (
	"reflect"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// layers gives each room of the house its floor: a package imports packages of lower floors only, and of its
// own room. Rooms are the top folders.
var layers = map[string]int{
	"cmd": 8,

	"api":  7,
	"vpsd": 7,

	"instance": 6,

	"snapshot": 5,
	"restore":  5,
	"migrate":  5,
	"debug":    5,

	"cell": 4,

	"object":  3,
	"suspend": 3,
	"account": 3,
	"priv":    3,
	"devfs":   3,
	"console": 3,
	"config":  3,
	"ifvps":   3,
	"vpsfs":   3,

	"pager": 2,

	"kmem":   1,
	"remote": 1,

	"dump":  0,
	"linux": 0,
}

// sideways lists the imports within a floor that are there for a reason.
var sideways = map[[2]string]string{}

func room(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func TestImportsPointDown(t *testing.T) {
	for _, f := range source(t) {
		from := room(f.dir())
		if f.isTest() || from == "internal" {
			continue
		}
		floor, ok := layers[from]
		if !ok {
			t.Errorf("%s: folder %q has no floor: give it one in this test", f.name, from)
			continue
		}
		for _, path := range f.imports() {
			path, ours := strings.CutPrefix(path, module+"/")
			to := room(path)
			switch {
			case !ours || to == from:
			case to == "internal":
				t.Errorf("%s imports %s, which is for tests and tools only", f.name, path)
			case layers[to] > floor:
				t.Errorf("%s imports %s, which is above it", f.name, path)
			case layers[to] == floor && sideways[[2]string{from, to}] == "":
				t.Errorf("%s imports %s, which is beside it", f.name, path)
			}
		}
	}
}

func TestNoCgo(t *testing.T) {
	for _, f := range source(t) {
		for _, path := range f.imports() {
			if path == "C" {
				t.Errorf("%s uses cgo", f.name)
			}
		}
	}
}

// TestNetlinkByHandle: the functions of package netlink that are methods of its Handle too work in the
// namespace in which the first of them happened to run.
func TestNetlinkByHandle(t *testing.T) {
	const path = "github.com/vishvananda/netlink"
	handle := reflect.TypeFor[*netlink.Handle]()
	for _, f := range source(t) {
		for _, use := range f.uses(path) {
			if _, isMethod := handle.MethodByName(use.Sel.Name); isMethod {
				t.Errorf("%s:%d: netlink.%s works in whatever namespace was first: call it on a Handle", f.name, f.line(use), use.Sel.Name)
			}
		}
	}
}

// TestRegistersStayInTheirRooms: who reads or sets a task's registers knows the architecture.
func TestRegistersStayInTheirRooms(t *testing.T) {
	allowed := map[string]bool{"linux": true, "remote": true}
	for _, f := range source(t) {
		if allowed[room(f.dir())] || f.isTest() {
			continue
		}
		for _, use := range f.uses("golang.org/x/sys/unix") {
			if strings.HasPrefix(use.Sel.Name, "Ptrace") {
				t.Errorf("%s:%d: unix.%s: ptrace belongs to remote", f.name, f.line(use), use.Sel.Name)
			}
		}
	}
}
