package restore

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/birth"
	"vps/remote"
)

// bearOutside has those born, besides process 1, that have their parent outside: what exec sessions have left. They get the files that
// others are born with.
func (r *restorer) bearOutside(ctx context.Context, pages map[int]*remote.Page) error {
	if len(r.plan.Stages) == 0 {
		return nil
	}
	for _, step := range r.plan.Stages[0][0] {
		if step.Op != birth.Birth || step.PID == 1 {
			continue
		}
		if err := r.bearOne(ctx, step.PID, pages[step.PID]); err != nil {
			return fmt.Errorf("pid %d: %w", step.PID, err)
		}
	}
	return nil
}

func (r *restorer) bearOne(ctx context.Context, pid int, page *remote.Page) error {
	if r.Bear == nil {
		return fmt.Errorf("nobody can give birth to it outside")
	}
	pidfd, err := r.Bear(ctx, pid, page)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	return r.files.Endow(ctx, &object.Maker{Page: page, PidFD: pidfd, Socket: r.Socket, SocketFD: r.SocketFD})
}
