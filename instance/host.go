// Package instance keeps the instances of a host: their tree under vps0, their states, their life from creation to
// removal, and the registry on disk from which a new daemon takes them over.
package instance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"vps/config"
	"vps/instance/inside"
)

// Host0 is the name of the instance that is the host itself.
const Host0 = config.Host

// Classes of errors. An operation that does not fit an instance's state is a [*StateError].
var (
	ErrNotFound = errors.New("no such instance")
	ErrExists   = errors.New("the instance exists already")
	ErrBusy     = errors.New("another operation is under way")
	ErrState    = errors.New("not possible in this state")
	ErrInvalid  = errors.New("invalid")
	ErrOlder    = errors.New("the memory in the snapshot is older than the files on the disk")
	ErrLocked   = errors.New("another daemon has this home")
)

// Options of a host.
type Options struct {
	Home string // VPS_HOME: DIR/etc, DIR/state and DIR/run; "" for /etc/vps, /var/lib/vps and /run/vps
	Log  *slog.Logger

	// Daemon moves the calling process into control groups of the host's own, which no instance's limits and nobody
	// else's touch. What it starts later, the keepers, is then there too.
	Daemon bool
}

// State is where an instance is in its life.
type State string

// States of an instance.
const (
	Creating     State = "creating"
	Created      State = "created" // init is born, parked before execve
	Running      State = "running"
	Suspended    State = "suspended"
	Snapshotting State = "snapshotting"
	Restoring    State = "restoring"
	Dying        State = "dying"
	Dead         State = "dead" // no process is left; what it was and how it ended is kept
)

// ExitStatus is how an instance's init ended.
type ExitStatus struct {
	Code   int       `json:"code"`             // exit status; 128 + signal if a signal ended it
	Signal string    `json:"signal,omitempty"` // "SIGKILL"
	Reason string    `json:"reason"`           // "exit", "signal", "reboot", "poweroff", "stop", "abort", "saved", "failed", "lost"
	Time   time.Time `json:"time"`
}

// Info describes an instance.
type Info struct {
	ID          string      `json:"id"`
	State       State       `json:"state"`
	Operation   string      `json:"operation,omitempty"` // what is under way
	FSRoot      string      `json:"fsroot"`
	Hostname    string      `json:"hostname"`
	Init        string      `json:"init"`
	PID         int         `json:"pid,omitempty"` // init's, on the host
	FirstUID    int         `json:"first_uid"`     // the host's id of the instance's 0
	Created     time.Time   `json:"created,omitzero"`
	Started     time.Time   `json:"started,omitzero"`
	Processes   int         `json:"processes"`
	Threads     int         `json:"threads"`
	CPUNanos    uint64      `json:"cpu_ns"`
	MemoryBytes uint64      `json:"memory_bytes"`
	Runs        int         `json:"runs"`     // how often it was started
	Restores    int         `json:"restores"` // how often it was restored
	Restarts    int         `json:"restarts"` // by policy, in a row
	ExitStatus  *ExitStatus `json:"exit_status,omitempty"`
	Missing     uint64      `json:"missing_bytes,omitempty"` // of its memory, after a lazy restore
	Lost        string      `json:"lost,omitempty"`          // why memory of it cannot be read: who touches it gets SIGBUS
	Saved       string      `json:"saved,omitempty"`         // the file with its memory, since the host went down
}

// Resource is a line of [Arguments]' table.
type Resource struct {
	Name     string `json:"name"`
	Flag     string `json:"flag"` // C above the soft limit now, X hard limit hit, x soft limit hit, _ none, - not measured and not enforced
	Current  uint64 `json:"current"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
	SoftHits uint64 `json:"soft_hits"`
	HardHits uint64 `json:"hard_hits"`
}

// Arguments are what an instance may do.
type Arguments struct {
	Networks  []string   `json:"networks"`
	Allow     []string   `json:"allow"`
	Deny      []string   `json:"deny"`
	Nosys     []string   `json:"nosys"`
	Resources []Resource `json:"resources"`
}

// ProcessInfo is a process of an instance, as ps shows it.
type ProcessInfo = inside.Process

// Event is a change of an instance.
type Event struct {
	Time       time.Time   `json:"time"`
	ID         string      `json:"id"`
	State      State       `json:"state"` // after it
	What       string      `json:"what"`  // "create", "start", "exit", "stop", "suspend", ...
	ExitStatus *ExitStatus `json:"exit_status,omitempty"`
}

// ExecSpec is a command to run in an instance.
type ExecSpec struct {
	Args       []string `json:"args"`
	Env        []string `json:"env,omitempty"` // added to PATH, HOME and TERM
	Dir        string   `json:"dir,omitempty"` // "" for the user's home, else /
	User       string   `json:"user,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
	Rows, Cols uint16   `json:"-"`
	Stdin      bool     `json:"stdin,omitempty"`  // else /dev/null
	Detach     bool     `json:"detach,omitempty"` // stdin, stdout and stderr are /dev/null
}

// Progress tells how far a snapshot or restore is, or what a restore that is forced passes over.
type Progress struct {
	Phase   string `json:"phase"`
	Bytes   int64  `json:"bytes"`
	Total   int64  `json:"total"` // 0 if not known
	Warning string `json:"warning,omitempty"`
}

// SnapshotOptions say what becomes of the instance. Without any it is left in the state in which it was found.
type SnapshotOptions struct {
	Stop    bool // it is ended
	Suspend bool // it is left suspended
}

// SnapshotReport is what a snapshot cost.
type SnapshotReport struct {
	Bytes     int64         `json:"bytes"`
	Frozen    time.Duration `json:"frozen_ns"`
	Total     time.Duration `json:"total_ns"`
	Records   int           `json:"records"`
	Processes int           `json:"processes"`
	Threads   int           `json:"threads"`
	Phases    []Phase       `json:"phases,omitempty"` // of the frozen time
}

// Phase is a part of the time that an operation takes.
type Phase struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// RestoreOptions say how a snapshot is restored.
type RestoreOptions struct {
	Resume bool           // run it; else it is suspended
	Force  bool           // skip the checks that are safe to skip
	Lazy   bool           // do not wait for memory: it comes when it is needed, and in the background
	Wait   bool           // with Lazy: return when all memory is there
	Config *config.Config // nil: the instance's own file, else the copy in the snapshot with default rights
}

// Blocker is what stands in the way of a snapshot.
type Blocker struct {
	PID    int    `json:"pid,omitempty"`
	Comm   string `json:"comm,omitempty"`
	FD     int    `json:"fd"` // -1: not a descriptor
	Object string `json:"object"`
	Text   string `json:"text"`
}

// CheckReport tells whether an instance can be snapshotted now.
type CheckReport struct {
	OK       bool          `json:"ok"`
	Blockers []Blocker     `json:"blockers,omitempty"`
	Bytes    int64         `json:"bytes"`     // estimated size of the file
	Frozen   time.Duration `json:"frozen_ns"` // estimated
}

// LogOptions say which part of the console's history is wanted.
type LogOptions struct {
	Follow bool  // go on with what comes until the instance is gone or the reader is closed
	Tail   int64 // bytes from the end; 0 for all that is kept
}

// API is what a daemon offers of a host: the methods of [*Host].
type API interface {
	List() []Info
	Show(id string) (Info, error)
	Args(id string) (Arguments, error)
	Processes(id string) ([]ProcessInfo, error)
	Create(ctx context.Context, id string, cfg *config.Config) error
	Start(ctx context.Context, id string, cfg *config.Config) error
	Stop(ctx context.Context, id string, timeout time.Duration) error
	Restart(ctx context.Context, id string, timeout time.Duration) error
	Remove(ctx context.Context, id string) error
	Kill(ctx context.Context, id string, signal int) error
	Wait(ctx context.Context, id string) (ExitStatus, error)
	Events(ctx context.Context) <-chan Event
	Logs(ctx context.Context, id string, opt LogOptions) (io.ReadCloser, error)
	Exec(ctx context.Context, id string, spec ExecSpec) (*Session, error)
	Console(ctx context.Context, id string) (*ConsoleSession, error)
	Suspend(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Abort(ctx context.Context, id string) error
	Snapshot(ctx context.Context, id string, w io.Writer, opt SnapshotOptions, progress func(Progress)) (SnapshotReport, error)
	Restore(ctx context.Context, id string, r io.Reader, opt RestoreOptions, progress func(Progress)) error
	Check(ctx context.Context, id string) (CheckReport, error)
}
