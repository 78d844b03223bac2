package registry

import (
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/cell/reaper"
	"vps/config"
)

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

// Reasons of an [ExitStatus].
const (
	ReasonExit     = "exit"
	ReasonSignal   = "signal"
	ReasonReboot   = "reboot"
	ReasonPoweroff = "poweroff"
	ReasonStop     = "stop"
	ReasonAbort    = "abort"
	ReasonSaved    = "saved"  // its memory is in a file, since the host went down
	ReasonFailed   = "failed" // its init could not be run
	ReasonLost     = "lost"   // nobody saw how it ended
)

// ExitStatus is how an instance's init ended.
type ExitStatus struct {
	Code   int       `json:"code"`             // exit status; 128 + signal if a signal ended it
	Signal string    `json:"signal,omitempty"` // "SIGKILL"
	Reason string    `json:"reason"`           // one of the reasons
	Time   time.Time `json:"time"`
}

// Ended interprets how an init ended, or the error by which that is not known: reboot(2) in a pid namespace ends it with SIGHUP to be
// started again, and with SIGINT for halt and power-off (pid_namespaces(7)).
func Ended(e cell.Exit, err error) ExitStatus {
	s := ExitStatus{Code: e.ExitCode(), Reason: ReasonExit, Time: time.Now()}
	switch {
	case err != nil:
		s.Code, s.Reason = 255, ReasonLost
	case e.Code == reaper.Killed && unix.Signal(e.Status) == unix.SIGHUP:
		s.Code, s.Reason = 0, ReasonReboot
	case e.Code == reaper.Killed && unix.Signal(e.Status) == unix.SIGINT:
		s.Code, s.Reason = 0, ReasonPoweroff
	case e.Code != reaper.Exited:
		s.Reason, s.Signal = ReasonSignal, config.SignalName(unix.Signal(e.Status))
	}
	return s
}
