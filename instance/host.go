// Package instance keeps the instances of a host: their tree under vps0, their states, their life from creation to
// removal, and the registry on disk from which a new daemon takes them over.
package instance

import (
	"errors"
	"log/slog"
	"time"

	"vps/config"
	"vps/dump/convert"
	"vps/ifvps"
	"vps/ifvps/plane"
	"vps/instance/home"
	"vps/instance/image"
	"vps/instance/inside"
	"vps/instance/registry"
	"vps/instance/session"
	"vps/instance/view"
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
	ErrOlder    = registry.ErrOlder
	ErrLocked   = home.ErrLocked
)

// Options of a host.
type Options struct {
	Home string // VPS_HOME: DIR/etc, DIR/state and DIR/run; "" for /etc/vps, /var/lib/vps and /run/vps
	Log  *slog.Logger

	// Daemon moves the calling process into control groups of the host's own, which no instance's limits and nobody
	// else's touch. What it starts later, the keepers, is then there too.
	Daemon bool
}

// State is where an instance is in its life, and ExitStatus how its init ended.
type (
	State      = registry.State
	ExitStatus = registry.ExitStatus
)

// States of an instance.
const (
	Creating     = registry.Creating
	Created      = registry.Created
	Running      = registry.Running
	Suspended    = registry.Suspended
	Snapshotting = registry.Snapshotting
	Restoring    = registry.Restoring
	Dying        = registry.Dying
	Dead         = registry.Dead
)

// Info describes an instance, and Arguments what it may do.
type (
	Info      = view.Info
	Arguments = view.Arguments
	Resource  = view.Resource
)

// Interface is one of an instance's at the layer-3 switch with its counters, and Traffic one direction of it.
type (
	Interface = ifvps.Counters
	Traffic   = plane.Traffic
)

// A command to run in an instance, one that runs, how one could not be run, and somebody at a console.
type (
	ExecSpec       = session.Spec
	Session        = session.Session
	ExecError      = session.ExecError
	ConsoleSession = session.Console
)

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

// What is told of a snapshot or restore: how far it is, what it cost, what stands in its way.
type (
	Progress       = image.Progress
	SnapshotReport = image.Report
	Phase          = image.Phase
	Round          = image.Round
	CheckReport    = image.CheckReport
	Blocker        = image.Blocker
)

// SnapshotOptions say what becomes of the instance. Without any it is left in the state in which it was found.
type SnapshotOptions struct {
	Stop    bool   // it is ended
	Suspend bool   // it is left suspended
	Copy    string // when memory is copied: a name of [snapshot.ParseWay]
}

// RestoreOptions say how a snapshot is restored.
type RestoreOptions struct {
	Resume bool           // run it; else it is suspended
	Force  bool           // skip the checks that are safe to skip
	Lazy   bool           // do not wait for memory: it comes when it is needed, and in the background
	Wait   bool           // with Lazy: return when all memory is there
	Config *config.Config // nil: the instance's own file, else the copy in the snapshot with default rights

	Unplug    bool              // without the interfaces that the host gives: what depended on them is closed as by its peers
	Readdress convert.Addresses // other addresses in the place of the instance's own, in the configuration too
}

// LogOptions say which part of the console's history is wanted.
type LogOptions struct {
	Follow bool  // go on with what comes until the instance is gone or the reader is closed
	Tail   int64 // bytes from the end; 0 for all that is kept
}
