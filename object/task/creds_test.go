package task

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/remote"
)

func TestCreds(t *testing.T) {
	const all = 1<<(unix.CAP_LAST_CAP+1) - 1
	for _, c := range []struct {
		name  string
		bound uint64
		nnp   bool
		creds *dump.Creds
	}{
		{"root with everything", all, false, &dump.Creds{Permitted: all, Effective: all, Bounding: all}},
		{"user", all, true, &dump.Creds{
			Uid: 1000, Euid: 1000, Suid: 1000, Fsuid: 1000, Gid: 1001, Egid: 1001, Sgid: 1001, Fsgid: 1001,
			Groups: []uint32{4, 27, 60000}, Bounding: all,
		}},
		{"all ids different", all, false, &dump.Creds{
			Uid: 1, Euid: 2, Suid: 3, Fsuid: 2, Gid: 5, Egid: 6, Sgid: 7, Fsgid: 5,
			Permitted: 1 << unix.CAP_NET_BIND_SERVICE, Bounding: all &^ (1 << unix.CAP_SYS_BOOT),
		}},
		{"ambient service", all, true, &dump.Creds{
			Uid: 33, Euid: 33, Suid: 33, Fsuid: 33, Gid: 33, Egid: 33, Sgid: 33, Fsgid: 33,
			Inheritable: 1 << unix.CAP_NET_BIND_SERVICE, Permitted: 1 << unix.CAP_NET_BIND_SERVICE,
			Effective: 1 << unix.CAP_NET_BIND_SERVICE, Ambient: 1 << unix.CAP_NET_BIND_SERVICE,
			Bounding: 1 << unix.CAP_NET_BIND_SERVICE, Securebits: secureNoSetuidFixup,
		}},
		{"inheritable outside of the bounding set", all, false, &dump.Creds{
			Inheritable: 1 << unix.CAP_CHOWN, Permitted: 1 << unix.CAP_KILL, Bounding: 1 << unix.CAP_KILL, Securebits: 0x2f,
		}},
		{"root without capabilities", all, false, &dump.Creds{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := objecttest.Spawn(t, objecttest.UserRange)
			s.Run(0, func(b *remote.Batch) { RestoreCreds(b, c.creds, c.nnp, c.bound) })
			got, st := dumpedCreds(s)
			objecttest.Same(t, c.creds, got)
			if st.NoNewPrivs != c.nnp {
				t.Errorf("no_new_privs %v, want %v", st.NoNewPrivs, c.nnp)
			}
		})
	}

	t.Run("bound", func(t *testing.T) {
		s := objecttest.Spawn(t, objecttest.UserRange)
		const bound = 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL
		s.Run(0, func(b *remote.Batch) {
			RestoreCreds(b, &dump.Creds{
				Permitted: ^uint64(0), Effective: ^uint64(0), Bounding: ^uint64(0), Inheritable: ^uint64(0), Ambient: ^uint64(0),
			}, false, bound)
		})
		got, _ := dumpedCreds(s)
		objecttest.Same(t, &dump.Creds{Permitted: bound, Effective: bound, Bounding: bound, Inheritable: bound, Ambient: bound}, got)
	})

	t.Run("unmapped", func(t *testing.T) {
		s := objecttest.Spawn(t, nil)
		_, err := DumpCreds(objecttest.Status(t, s.PID), object.IDMaps{UIDs: objecttest.UserRange, GIDs: objecttest.UserRange})
		if err == nil || !strings.Contains(err.Error(), "uid 0 of the host has no name inside") {
			t.Errorf("error %v", err)
		}
	})
}

func dumpedCreds(s *objecttest.Stub) (*dump.Creds, *object.Status) {
	s.T.Helper()
	m, err := object.ReadIDMaps(s.PID)
	if err != nil {
		s.T.Fatal(err)
	}
	st := objecttest.Status(s.T, s.PID)
	creds, err := DumpCreds(st, m)
	if err != nil {
		s.T.Fatal(err)
	}
	objecttest.Ask(s, 0, AskCreds, creds)
	return creds, st
}
