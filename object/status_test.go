package object

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/remote"
)

func TestStatusOfStrangeNames(t *testing.T) {
	s := spawnTestStub(t, nil)
	for _, name := range []string{"sh", ") R 1 2 3", "a\nState: Z", `back\slash\n`, "\t x ", ""} {
		s.run(0, func(b *remote.Batch) {
			b.Call("name", unix.SYS_PRCTL, unix.PR_SET_NAME, b.String(name), 0, 0, 0)
		})
		st := status(t, s.pid)
		if st.Name != name || st.PID != s.pid || !strings.ContainsRune("RS", rune(st.State)) {
			t.Errorf("status of %q: name %q, pid %d, state %c", name, st.Name, st.PID, st.State)
		}
		stat, err := ReadStat(s.pid)
		if err != nil || stat.Comm != name || stat.PID != s.pid || stat.PPID != os.Getpid() || stat.SID != s.pid {
			t.Errorf("stat of %q: %+v, %v", name, stat, err)
		}
	}
}

func TestStatusOfNamespaces(t *testing.T) {
	st, err := parseStatus([]byte("Name:\tx\nState:\tS (sleeping)\nPid:\t300\nNSpid:\t300\t7\t1\nNSpgid:\t300\t7\t1\nNSsid:\t0\t0\t0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, pgid, sid := st.Inside(); pid != 1 || pgid != 1 || sid != 0 {
		t.Errorf("inside: %d %d %d", pid, pgid, sid)
	}
	err = st.CheckLevel(2)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "pid 7 (x)") {
		t.Errorf("nested: %v", err)
	}
	if err := st.CheckLevel(3); err != nil {
		t.Errorf("own level: %v", err)
	}
}

func TestTasks(t *testing.T) {
	s := spawnTestStub(t, nil)
	tid := s.thread()
	got, err := remote.Tasks(s.pid)
	if err != nil || !reflect.DeepEqual(got, []int{s.pid, tid}) {
		t.Errorf("tasks %v, %v; want %d and %d", got, err, s.pid, tid)
	}
	groups, err := ReadCgroups(os.Getpid())
	if err != nil || len(groups) == 0 || !strings.HasPrefix(groups[0].Path, "/") {
		t.Errorf("cgroups %v, %v", groups, err)
	}
}
