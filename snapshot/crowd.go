package snapshot

import (
	"slices"

	"vps/object"
)

// crowd is the processes of an instance, in the order of their pids inside, as they were when they were looked at.
type crowd []object.Proc

// look opens the processes of an instance, which may run: they come and go meanwhile. Refusals tell which cannot be opened. The
// caller closes the crowd.
func (src *Source) look() (c crowd, refusals []error, err error) {
	pids, err := src.Group.Procs()
	if err != nil {
		return nil, nil, err
	}
	level, err := object.ReadLevel(src.Init)
	if err != nil {
		return nil, nil, err
	}
	for _, pid := range pids {
		p, err := object.OpenProc(pid, level)
		switch {
		case object.Vanished(err):
		case err != nil:
			refusals = append(refusals, err)
		default:
			c = append(c, p)
		}
	}
	slices.SortFunc(c, func(a, b object.Proc) int { return a.PID - b.PID })
	return c, refusals, nil
}

func (c crowd) close() {
	for _, p := range c {
		p.Close()
	}
}
