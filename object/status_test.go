package object_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/internal/objecttest"
	"vps/object"
	"vps/remote"
)

func TestStatusOfStrangeNames(t *testing.T) {
	s := objecttest.Spawn(t, nil)
	for _, name := range []string{"sh", ") R 1 2 3", "a\nState: Z", `back\slash\n`, "\t x ", ""} {
		s.Run(0, func(b *remote.Batch) {
			b.Call("name", unix.SYS_PRCTL, unix.PR_SET_NAME, b.String(name), 0, 0, 0)
		})
		st := objecttest.Status(t, s.PID)
		if st.Name != name || st.PID != s.PID || !strings.ContainsRune("RS", rune(st.State)) {
			t.Errorf("status of %q: name %q, pid %d, state %c", name, st.Name, st.PID, st.State)
		}
		stat, err := object.ReadStat(s.PID)
		if err != nil || stat.Comm != name || stat.PID != s.PID || stat.PPID != os.Getpid() || stat.SID != s.PID {
			t.Errorf("stat of %q: %+v, %v", name, stat, err)
		}
	}
}

func TestTasks(t *testing.T) {
	s := objecttest.Spawn(t, nil)
	tid := s.Thread()
	got, err := remote.Tasks(s.PID)
	if err != nil || !reflect.DeepEqual(got, []int{s.PID, tid}) {
		t.Errorf("tasks %v, %v; want %d and %d", got, err, s.PID, tid)
	}
	groups, err := object.ReadCgroups(os.Getpid())
	if err != nil || len(groups) == 0 || !strings.HasPrefix(groups[0].Path, "/") {
		t.Errorf("cgroups %v, %v", groups, err)
	}
}
