package object

import (
	"fmt"
	"slices"

	"vps/linux"
)

// sharedKinds are what two processes may share by clone(2), besides descriptors of one open file.
var sharedKinds = []struct {
	kind int
	name string
}{
	{linux.KCMP_VM, "memory (CLONE_VM)"},
	{linux.KCMP_FILES, "a descriptor table (CLONE_FILES)"},
	{linux.KCMP_FS, "directories and umask (CLONE_FS)"},
	{linux.KCMP_SIGHAND, "signal actions (CLONE_SIGHAND)"},
}

// ProbeShared refuses processes that share what a restore would give to each by itself.
func ProbeShared(procs []Proc) []error {
	var refusals []error
	for _, kind := range sharedKinds {
		var sorted []Proc // by kcmp's order
		for _, p := range procs {
			place, err := Search(len(sorted), func(i int) (int, error) {
				return linux.Kcmp(sorted[i].Host, p.Host, kind.kind, 0, 0)
			})
			switch {
			case Vanished(err):
			case err != nil:
				refusals = append(refusals, fmt.Errorf("pid %d (%s): compare with others: %w", p.PID, p.Comm, err))
			case place >= 0:
				refusals = append(refusals, &Refusal{PID: p.PID, Comm: p.Comm, FD: -1,
					Object: fmt.Sprintf("sharing %s with pid %d", kind.name, sorted[place].PID)})
			default:
				sorted = slices.Insert(sorted, -place-1, p)
			}
		}
	}
	return refusals
}
