package task

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/remote"
)

func TestProcess(t *testing.T) {
	s := objecttest.Spawn(t, objecttest.UserRange)
	want, err := DumpProcess(objecttest.Status(t, s.PID))
	if err != nil {
		t.Fatal(err)
	}
	want.Umask, want.Personality, want.ChildSubreaper, want.OomScoreAdj = 0o137, 0x40000, true, 300
	want.Rlimits[unix.RLIMIT_NOFILE] = &dump.Rlimit{Soft: 100, Hard: 200}
	want.Rlimits[unix.RLIMIT_STACK].Soft = 1 << 20
	want.Itimers = []*dump.Itimer{{}, {Interval: 5e9, Value: 3600e9}, {Value: 7200e9}}
	hard, err := HardLimits()
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckRlimits(want, hard); err != nil {
		t.Fatal(err)
	}
	s.Run(0, func(b *remote.Batch) {
		RestoreProcess(b, want)
		RestoreItimers(b, want)
		RestoreRlimits(b, want, hard)
	})
	if err := RestoreOOMScore(s.PID, want); err != nil {
		t.Fatal(err)
	}
	got, err := DumpProcess(objecttest.Status(t, s.PID))
	if err != nil {
		t.Fatal(err)
	}
	objecttest.Ask(s, 0, AskProcess, got)
	for i, v := range got.Itimers { // CPU time passes slowly
		objecttest.Near(t, "interval timer", want.Itimers[i].GetValue(), v.GetValue(), 100*time.Millisecond)
		v.Value = want.Itimers[i].GetValue()
	}
	objecttest.Same(t, want, got)

	want.OomScoreAdj = -300
	if err := RestoreOOMScore(s.PID, want); err == nil || !strings.Contains(err.Error(), "is less than") {
		t.Errorf("lower oom_score_adj: %v", err)
	}
}

func TestRlimitsAbove(t *testing.T) {
	s := objecttest.Spawn(t, objecttest.UserRange)
	hard, err := HardLimits()
	if err != nil {
		t.Fatal(err)
	}
	hard[unix.RLIMIT_NOFILE], hard[unix.RLIMIT_MEMLOCK] = 1000, 4096
	p := &dump.Process{Pid: 9, Rlimits: make([]*dump.Rlimit, len(hard))}
	for i := range p.Rlimits {
		p.Rlimits[i] = &dump.Rlimit{}
	}
	p.Rlimits[unix.RLIMIT_NOFILE] = &dump.Rlimit{Soft: 1024, Hard: 4096}
	p.Rlimits[unix.RLIMIT_MEMLOCK] = &dump.Rlimit{Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY}
	err = CheckRlimits(p, hard)
	want := "pid 9: this host cannot give RLIMIT_NOFILE 4096 (here at most 1000), RLIMIT_MEMLOCK unlimited (here at most 4096) without CAP_SYS_RESOURCE"
	if err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	s.Run(0, func(b *remote.Batch) { RestoreRlimits(b, p, hard) })
	got, err := ReadRlimits(s.PID)
	if err != nil {
		t.Fatal(err)
	}
	objecttest.Same(t, &dump.Rlimit{Soft: 1000, Hard: 1000}, got[unix.RLIMIT_NOFILE])
	objecttest.Same(t, &dump.Rlimit{Soft: 4096, Hard: 4096}, got[unix.RLIMIT_MEMLOCK])
}

func TestZombie(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("sh", "-c", "kill -9 $$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	p, err := DumpProcess(objecttest.Status(t, cmd.Process.Pid))
	if err != nil || p.State != dump.Process_ZOMBIE || syscall.WaitStatus(p.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("zombie: %v, %v", p, err)
	}
}
