package registry

import (
	"errors"
	"fmt"
	"time"

	"vps/dump"
)

// Age is how far an instance has run: a snapshot of it with a lower one is older than the files on its disk.
type Age struct {
	Runs  int           `json:"runs"`           // how often it has begun to run
	Ran   time.Duration `json:"ran_ns"`         // until Since
	Since time.Time     `json:"since,omitzero"` // it runs; zero: it stands
}

// enter notes a change of state.
func (a *Age) enter(from, to State) {
	if !a.Since.IsZero() && to != Running {
		a.Ran += max(0, time.Since(a.Since))
		a.Since = time.Time{}
	}
	if to == Running && from != Running {
		a.Runs++
		a.Since = time.Now()
	}
}

// Adopt makes it that of a snapshot from which the instance has been restored, if that is the higher one.
func (a *Age) Adopt(info *dump.Instance) {
	a.Runs = max(a.Runs, int(info.GetRuns()))
	a.Ran = max(a.Ran, time.Duration(info.GetRan()))
}

// ErrOlder says that an instance has run since a snapshot of it was taken.
var ErrOlder = errors.New("the memory in the snapshot is older than the files on the disk")

// CheckAge refuses a snapshot that is older than the files of the instance: programs would go on with memory that no longer
// fits them, and a database would destroy its files without a word. The error says what to do about it.
func (r *Record) CheckAge(header *dump.Header, info *dump.Instance) error {
	id, err := UUIDFrom(info.GetUuid())
	if err != nil {
		return err
	}
	const advice = "restore a newer one, or use --force if the files are those of the snapshot again"
	taken := time.Unix(0, header.GetCreated()).Format(time.DateTime)
	switch {
	case r.Age.Runs == 0 || id == UUID{}:
		return nil // nothing is known of it here, or in the file
	case id != r.UUID:
		return fmt.Errorf("%w: %s was created anew since this snapshot of %s, and has run; %s", ErrOlder, r.ID, taken, advice)
	case r.Age.Runs <= int(info.GetRuns()):
		return nil
	}
	ran := max(0, r.Age.Ran-time.Duration(info.GetRan()))
	if ran > time.Second {
		ran = ran.Round(time.Second)
	}
	return fmt.Errorf("%w: %s ran %s since this snapshot of %s; %s", ErrOlder, r.ID, ran.Round(time.Millisecond), taken, advice)
}
