// Package task has what belongs to a task: a process (limits, signal actions, timers, umask) or one of its threads
// (credentials, signal mask, scheduling, filters, an interrupted system call).
//
// It is dumped from /proc and by ptrace while the task is stopped. What only the task can tell is asked in one batch that
// it runs: each Ask function adds its questions and returns what fills the answers into the record. It is restored by
// the task's own batch: each Restore function adds its calls; their order is that of the restore (what takes a
// privilege comes before the privilege is gone).
package task

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// DumpProcess returns the record of a process as far as its status and /proc tell: identity, state, umask, limits. The
// caller adds the inner pid of its parent, and what refers to other records.
func DumpProcess(s *object.Status) (*dump.Process, error) {
	pid, pgid, sid := s.Inside()
	p := &dump.Process{Pid: uint32(pid), Pgid: uint32(pgid), Sid: uint32(sid), Umask: s.Umask}
	switch s.State {
	case 'Z':
		stat, err := object.ReadStat(s.PID)
		if err != nil {
			return nil, err
		}
		p.State, p.WaitStatus = dump.Process_ZOMBIE, stat.ExitCode
		return p, nil
	case 'T':
		p.State = dump.Process_STOPPED
	}
	personality, err := object.ReadInt(s.PID, "personality", 16)
	if err != nil {
		return nil, err
	}
	adj, err := object.ReadInt(s.PID, "oom_score_adj", 10)
	if err != nil {
		return nil, err
	}
	p.Personality, p.OomScoreAdj = uint32(personality), int32(adj)
	p.Rlimits, err = ReadRlimits(s.PID)
	return p, err
}

// AskProcess asks a process, by any of its threads, for what only it can tell of itself.
func AskProcess(b *remote.Batch) func(p *dump.Process) error {
	at, subreaper := object.Space[int32](b)
	b.Call("get subreaper", unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, at, 0, 0, 0)
	itimers := AskItimers(b)
	entry := b.Space(8)
	ldt := b.Try("read descriptor table", unix.SYS_MODIFY_LDT, 0, entry, 8)
	return func(p *dump.Process) error {
		if err := b.Err(); err != nil {
			return err
		}
		if n, err := b.Value(ldt); err == nil && n > 0 {
			return &object.Refusal{PID: int(p.GetPid()), FD: -1, Object: "a local descriptor table (modify_ldt)"}
		}
		p.ChildSubreaper = subreaper() != 0
		return itimers(p)
	}
}

// RestoreProcess gives a stub the umask, the execution domain and the role of a reaper. It comes after all deaths of
// the [birth.Plan], which depend on who reaps, and after the mappings, which the execution domain would change.
func RestoreProcess(b *remote.Batch, p *dump.Process) {
	b.Call("set umask", unix.SYS_UMASK, p.GetUmask())
	b.Call("set personality", unix.SYS_PERSONALITY, p.GetPersonality())
	if p.GetChildSubreaper() {
		b.Call("become a subreaper", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
}

// RestorePersonality gives a further thread of a stub the execution domain of its process.
func RestorePersonality(b *remote.Batch, p *dump.Process) {
	if p.GetPersonality() != 0 {
		b.Call("set personality", unix.SYS_PERSONALITY, p.GetPersonality())
	}
}

// RestoreOOMScore sets a stub's oom_score_adj (proc_pid_oom_score_adj(5)) from outside, by its pid here. It is an error to
// ask for less than the stub has by birth: that is a privilege.
func RestoreOOMScore(pid int, p *dump.Process) error {
	own, err := object.ReadInt(pid, "oom_score_adj", 10)
	if err != nil {
		return err
	}
	adj := int64(p.GetOomScoreAdj())
	switch {
	case adj == own:
		return nil
	case adj < own:
		return fmt.Errorf("pid %d: oom_score_adj %d is less than the %d that is allowed", p.GetPid(), adj, own)
	}
	path := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	return os.WriteFile(path, strconv.AppendInt(nil, adj, 10), 0)
}
