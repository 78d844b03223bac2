package instance

import (
	"fmt"
	"time"

	"vps/dump"
)

// age is how far an instance has run: a snapshot of it with a lower one is older than the files on its disk.
type age struct {
	Runs  int           `json:"runs"`           // how often it has begun to run
	Ran   time.Duration `json:"ran_ns"`         // until Since
	Since time.Time     `json:"since,omitzero"` // it runs; zero: it stands
}

// enter notes a change of state.
func (a *age) enter(from, to State) {
	if !a.Since.IsZero() && to != Running {
		a.Ran += max(0, time.Since(a.Since))
		a.Since = time.Time{}
	}
	if to == Running && from != Running {
		a.Runs++
		a.Since = time.Now()
	}
}

// adopt makes it that of a snapshot from which the instance has been restored, if that is the higher one.
func (a *age) adopt(info *dump.Instance) {
	a.Runs = max(a.Runs, int(info.GetRuns()))
	a.Ran = max(a.Ran, time.Duration(info.GetRan()))
}

// checkAge refuses a snapshot that is older than the files of the instance: programs would go on with memory that no longer
// fits them, and a database would destroy its files without a word.
func (i *instance) checkAge(header *dump.Header, info *dump.Instance) error {
	id, err := uuidFrom(info.GetUuid())
	if err != nil {
		return err
	}
	const advice = "restore a newer one, or use --force if the files are those of the snapshot again"
	taken := time.Unix(0, header.GetCreated()).Format(time.DateTime)
	switch {
	case i.rec.Age.Runs == 0 || id == uuid{}:
		return nil // nothing is known of it here, or in the file
	case id != i.rec.UUID:
		return fmt.Errorf("%w: %s was created anew since this snapshot of %s, and has run; %s", ErrOlder, i.id, taken, advice)
	case i.rec.Age.Runs <= int(info.GetRuns()):
		return nil
	}
	ran := max(0, i.rec.Age.Ran-time.Duration(info.GetRan()))
	if ran > time.Second {
		ran = ran.Round(time.Second)
	}
	return fmt.Errorf("%w: %s ran %s since this snapshot of %s; %s", ErrOlder, i.id, ran.Round(time.Millisecond), taken, advice)
}
