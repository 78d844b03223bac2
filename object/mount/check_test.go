package mount_test

import (
	"strings"
	"testing"

	"vps/dump"
	"vps/object"
	"vps/object/mount"
)

func TestCheck(t *testing.T) {
	own := func(change func(m *dump.Mount)) *dump.Mount {
		m := &dump.Mount{Id: 2, Parent: 1, Target: "/a/b", Fstype: "tmpfs"}
		change(m)
		return m
	}
	for want, m := range map[string]*dump.Mount{
		"":                              own(func(m *dump.Mount) {}),
		"is not valid":                  own(func(m *dump.Mount) { m.Target = "/a/../b" }),
		"not supported":                 own(func(m *dump.Mount) { m.Fstype = "ext4" }),
		"root \"../b\"":                 own(func(m *dump.Mount) { m.Base, m.Root = 1, "../b" }),
		"no mount 9, its parent":        own(func(m *dump.Mount) { m.Parent = 9 }),
		"mounted in itself":             own(func(m *dump.Mount) { m.Parent = 2 }),
		"does not lie in":               own(func(m *dump.Mount) { m.Target = "/c" }),
		"no mount 2 of a whole":         own(func(m *dump.Mount) { m.Base = 2 }),
		"peer group 3 is a slave of gr": own(func(m *dump.Mount) { m.Group, m.Master = 3, 3 }),
		"option":                        own(func(m *dump.Mount) { m.SuperOptions = []string{"size=1,mode=0"} }),
	} {
		set := &object.Set{Mounts: map[uint64]*dump.Mount{1: {Id: 1, Target: "/a", Standard: true}, 2: m}}
		err := mount.Check(set)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v: %v, want %q", m, err, want)
		}
	}
}
