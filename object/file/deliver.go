package file

import (
	"context"

	"vps/remote"
)

// Stubs finds the stub of a process by its pid inside; nil: there is no such process.
type Stubs func(pid int) (page *remote.Page, pidfd int)

// Deliverer is a [Restorer] with something to do when all processes have been born, and before any has descriptors and memory
// of its own: what is to be done by a certain process.
type Deliverer interface {
	Born(ctx context.Context, stubs Stubs) error
}

// Deliver lets all kinds do what is to be done by certain processes. Each has the maker's descriptors still, and no
// other batch runs.
func (r *Files) Deliver(ctx context.Context, stubs Stubs) error {
	for _, kind := range r.kinds {
		if d, ok := kind.(Deliverer); ok {
			if err := d.Born(ctx, stubs); err != nil {
				return err
			}
		}
	}
	return nil
}
