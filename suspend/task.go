package suspend

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"vps/remote"
)

// patience is how long an instance may take to stop.
const patience = 10 * time.Second

// StuckError says that a task does not stop: an uninterruptible sleep, which no freezer and no tracer ends.
type StuckError struct {
	Task   string // by its pid in the instance, and its name
	State  string // as proc_pid_status(5) has it: "D (disk sleep)"
	Where  string // the kernel function in which it sleeps; "" if that cannot be seen
	Within time.Duration
}

func (e *StuckError) Error() string {
	state := e.State
	if strings.HasPrefix(state, "D") {
		state = "uninterruptible sleep"
	}
	if e.Where != "" {
		state += " in " + e.Where
	}
	return fmt.Sprintf("%s: does not stop within %v (%s)", e.Task, e.Within, state)
}

func stuck(tid int, within time.Duration) error {
	status := readStatus(tid)
	return &StuckError{Task: status.name(tid), State: status["State"], Where: waitChannel(tid), Within: within.Round(10 * time.Millisecond)}
}

// sleeper returns a task that is in an uninterruptible sleep, and not just for a moment; 0: there is none. What a freeze that was
// given up has stirred may not sleep again yet.
func sleeper(g Group) int {
	before := sleepers(g)
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		now := sleepers(g)
		for tid, where := range now {
			if at, slept := before[tid]; slept && at == where {
				return tid
			}
		}
		before = now
	}
	return 0
}

// sleepers returns the tasks in an uninterruptible sleep, and where in the kernel.
func sleepers(g Group) map[int]string {
	all := make(map[int]string)
	pids, _ := g.Procs() // what has ended meanwhile is not what is looked for
	for _, pid := range pids {
		tids, _ := remote.Tasks(pid)
		for _, tid := range tids {
			if strings.HasPrefix(readStatus(tid)["State"], "D") {
				all[tid] = waitChannel(tid)
			}
		}
	}
	return all
}

// waitChannel returns the kernel function in which a task sleeps, proc_pid_wchan(5).
func waitChannel(tid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/wchan")
	if err != nil || string(text) == "0" {
		return ""
	}
	return string(text)
}

// taskName names a task by what its instance calls it: "pid 12 (nginx)", and its own id if it is not the process's first.
func taskName(tid int) string { return readStatus(tid).name(tid) }

// status is the lines of /proc/TID/status; none if the task has ended.
type status map[string]string

func readStatus(tid int) status {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	s := make(status)
	for line := range bytes.Lines(text) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok {
			s[string(key)] = string(bytes.TrimSpace(value))
		}
	}
	return s
}

func (s status) name(tid int) string {
	pid, task := inside(s["NStgid"]), inside(s["NSpid"])
	if pid == "" {
		return fmt.Sprintf("task %d (of the host's)", tid)
	}
	text := "pid " + pid
	if comm := s["Name"]; comm != "" {
		text += " (" + comm + ")"
	}
	if task != pid {
		text += " task " + task
	}
	return text
}

// inside returns the id that the instance knows a task by, out of those from our pid namespace inwards.
func inside(ids string) string {
	fields := strings.Fields(ids)
	if len(fields) == 0 {
		return ""
	}
	return fields[min(1, len(fields)-1)]
}
