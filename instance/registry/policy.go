package registry

import (
	"time"

	"vps/config"
)

// A start by the restart policy waits, each time twice as long; an instance that ran for restartCalm begins anew.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 30 * time.Second
	restartCalm  = time.Minute
)

// Again tells whether and when a policy wants an instance that has ended started again, and counts that.
func (r *Record) Again(status ExitStatus, policy config.Restart) (delay time.Duration, again bool) {
	switch status.Reason {
	case ReasonStop, ReasonAbort, ReasonSaved, ReasonFailed, ReasonLost:
		return 0, false
	}
	switch policy.Policy {
	case config.RestartAlways:
	case config.RestartOnFailure:
		if status.Reason == ReasonPoweroff || status.Code == 0 {
			return 0, false
		}
	default:
		return 0, false
	}
	if time.Since(r.Started) > restartCalm {
		r.Restarts = 0
	}
	if policy.Max > 0 && r.Restarts >= policy.Max {
		return 0, false
	}
	delay = min(restartFirst<<min(r.Restarts, 20), restartMost)
	r.Restarts++
	return delay, true
}
