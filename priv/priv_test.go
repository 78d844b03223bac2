package priv

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newSet(t *testing.T, allow, deny, nosys string, userns bool) *Set {
	t.Helper()
	s, err := New(strings.Fields(allow), strings.Fields(deny), strings.Fields(nosys), userns)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func has(s *Set, capability int) bool { return s.Capabilities()&(1<<capability) != 0 }

func TestDefaultCapabilities(t *testing.T) {
	isolated := newSet(t, "", "", "", true)
	shared := newSet(t, "", "", "", false)
	for _, test := range []struct {
		name             string
		capability       int
		isolated, shared bool
	}{
		{"CHOWN", unix.CAP_CHOWN, true, true},
		{"SYS_BOOT", unix.CAP_SYS_BOOT, true, true},
		{"SYS_ADMIN", unix.CAP_SYS_ADMIN, true, false},
		{"NET_ADMIN", unix.CAP_NET_ADMIN, true, false},
		{"DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH, true, false},
		{"SYS_RAWIO", unix.CAP_SYS_RAWIO, false, false},
		{"SYS_MODULE", unix.CAP_SYS_MODULE, false, false},
		{"SYS_TIME", unix.CAP_SYS_TIME, false, false},
		{"BPF", unix.CAP_BPF, false, false},
	} {
		if got := has(isolated, test.capability); got != test.isolated {
			t.Errorf("%s with a user namespace: %v", test.name, got)
		}
		if got := has(shared, test.capability); got != test.shared {
			t.Errorf("%s without a user namespace: %v", test.name, got)
		}
	}
	// Docker's default bounding set, and CAP_SYS_BOOT.
	if got := shared.Capabilities(); got != 0xa80425fb|1<<unix.CAP_SYS_BOOT {
		t.Errorf("set without a user namespace is %#x", got)
	}
	if err := shared.Check(isolated); err != nil {
		t.Errorf("defaults without a user namespace are more than those with one: %v", err)
	}
	if got, want := Host().Capabilities(), uint64(1)<<(unix.CAP_LAST_CAP+1)-1; got != want {
		t.Errorf("set of the host is %#x, want %#x", got, want)
	}
}

func TestChanges(t *testing.T) {
	for _, test := range []struct {
		allow, deny, nosys string
		capability         int
		want               bool
	}{
		{"CAP_SYS_TIME", "", "", unix.CAP_SYS_TIME, true},
		{"sys_time", "", "", unix.CAP_SYS_TIME, true},
		{"PRIV_KLD_LOAD", "", "", unix.CAP_SYS_MODULE, true},
		{"KLD_LOAD", "", "", unix.CAP_SYS_MODULE, true},
		{"", "PRIV_NET_ROUTE", "", unix.CAP_NET_ADMIN, false},
		{"", "", "AUDIT_SUBMIT", unix.CAP_AUDIT_WRITE, false},
		{"KEXEC", "", "", unix.CAP_SYS_BOOT, true},
		{"KEXEC", "SYS_BOOT", "", unix.CAP_SYS_BOOT, false},
		{"", "MOUNT", "", unix.CAP_SYS_ADMIN, true},
		{"NET_RAW NETINET_RAW", "", "", unix.CAP_NET_RAW, true},
	} {
		s := newSet(t, test.allow, test.deny, test.nosys, true)
		if got := has(s, test.capability); got != test.want {
			t.Errorf("allow %q, deny %q, nosys %q: capability %d is %v", test.allow, test.deny, test.nosys, test.capability, got)
		}
	}
	if !has(newSet(t, "VFS_MOUNT", "", "", false), unix.CAP_SYS_ADMIN) {
		t.Error("mounting allowed without the capability for it")
	}
}

func TestBadNames(t *testing.T) {
	for name, hint := range map[string]string{
		"CAP_NET_ADMINN": "CAP_NET_ADMIN",
		"PRIV_KLD_LOD":   "KLD_LOAD",
		"io-uring":       "IO_URING",
		"mont":           "MOUNT",
		"":               "",
		"xyzzyplugh":     "",
	} {
		_, err := New(nil, []string{name}, nil, true)
		if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if hint == "" && strings.Contains(err.Error(), "mean") || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, want a hint at %q", name, err, hint)
		}
	}
}

func TestConflict(t *testing.T) {
	_, err := New([]string{"KLD_LOAD"}, []string{"CAP_SYS_MODULE"}, nil, true)
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "KLD_LOAD") {
		t.Errorf("one privilege allowed and denied by two names: %v", err)
	}
	if _, err := New([]string{"MOUNT", "VFS_MOUNT"}, nil, nil, true); err != nil {
		t.Errorf("one privilege allowed by two names: %v", err)
	}
}

func TestCheck(t *testing.T) {
	parent := newSet(t, "", "", "", true)
	for _, test := range []struct {
		name   string
		child  *Set
		excess string
	}{
		{"the same", newSet(t, "", "", "", true), ""},
		{"less", newSet(t, "", "MOUNT", "NET_RAW", true), ""},
		{"absent in place of denied", newSet(t, "", "", "SWAP", true), ""},
		{"a capability more", newSet(t, "SYS_TIME", "", "", true), "CAP_SYS_TIME"},
		{"two more", newSet(t, "SWAP IO_URING", "", "", true), "IO_URING, SWAP"},
	} {
		err := test.child.Check(parent)
		if test.excess == "" && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.excess != "" && (!errors.Is(err, ErrExceedsParent) || !strings.Contains(err.Error(), test.excess)) {
			t.Errorf("%s: %v, want one about %s", test.name, err, test.excess)
		}
		if err := test.child.Check(Host()); err != nil {
			t.Errorf("%s beneath the host: %v", test.name, err)
		}
	}
}

func TestList(t *testing.T) {
	states := make(map[string]State)
	for _, e := range newSet(t, "SYS_TIME", "MOUNT", "SWAP", true).List() {
		if e.About == "" {
			t.Errorf("%s is not described", e.Name)
		}
		states[e.Name] = e.State
	}
	for name, want := range map[string]State{
		"CAP_CHOWN": Allow, "CAP_SYS_TIME": Allow, "CAP_SYS_MODULE": Deny, "MOUNT": Deny, "SWAP": Nosys, "IO_URING": Nosys,
	} {
		if states[name] != want {
			t.Errorf("%s is %v, want %v", name, states[name], want)
		}
	}
}

// The table names everything once: each capability of the kernel, each alias,
// each system call.
func TestTable(t *testing.T) {
	capabilities := make(map[int]bool)
	numbers := make(map[uint32]string)
	for _, p := range table {
		if p.isCapability() {
			capabilities[p.capability] = true
		} else if p.calls == nil {
			t.Errorf("%s does nothing", p.name)
		}
		for _, c := range p.calls {
			if other, ok := numbers[c.number]; ok {
				t.Errorf("call %d is in %s and %s", c.number, other, p.name)
			}
			numbers[c.number] = p.name
			if c.number > lastCall {
				t.Errorf("call %d of %s is above lastCall", c.number, p.name)
			}
		}
		for _, need := range p.needs {
			if i, err := lookup(need); err != nil || !table[i].isCapability() {
				t.Errorf("%s needs %s: %v", p.name, need, err)
			}
		}
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if !capabilities[c] {
			t.Errorf("capability %d is missing", c)
		}
	}
	total := 0
	for _, p := range table {
		total += 1 + len(p.aliases)
	}
	names := Names()
	if len(names) != total {
		t.Errorf("%d names, %d of them different", total, len(names))
	}
	for _, name := range names {
		if slices.Contains(names, "CAP_"+name) {
			t.Errorf("%s is a class and a capability", name)
		}
	}
}
