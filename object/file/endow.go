package file

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/remote"
)

// Endow gives a stub that is not born of the maker all descriptors of that, at the same numbers. It has the maker's up to
// SocketFD already, and no others.
func (r *Files) Endow(ctx context.Context, to *object.Maker) error {
	fds, err := Numbers(r.pid)
	if err != nil {
		return err
	}
	fds = slices.DeleteFunc(fds, func(fd int) bool { return fd <= r.m.SocketFD })
	slices.Sort(fds)
	if len(fds) == 0 {
		return nil
	}
	err = to.Run(ctx, func(b *remote.Batch) {
		b.Call("raise RLIMIT_NOFILE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, b.Words(r.allowed, r.allowed), 0)
	})
	if err != nil {
		return err
	}
	const most = 200 // per message: SCM_MAX_FD is 253
	for part := range slices.Chunk(fds, most) {
		if err := r.endow(ctx, to, part, fds[len(fds)-1]+1); err != nil {
			return err
		}
	}
	return nil
}

// endow gives descriptors, by way of free numbers from top on: what is received may lie where another is to be.
func (r *Files) endow(ctx context.Context, to *object.Maker, fds []int, top int) error {
	var copies []*os.File
	defer func() {
		for _, f := range copies {
			f.Close()
		}
	}()
	ours := make([]int, len(fds))
	for i, fd := range fds {
		f, err := r.m.Take(fd)
		if err != nil {
			return err
		}
		copies = append(copies, f)
		ours[i] = int(f.Fd())
	}
	if err := unix.Sendmsg(int(to.Socket.Fd()), []byte{0}, unix.UnixRights(ours...), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send descriptors: %w", err)
	}
	var numbers func() []int
	if err := to.Run(ctx, func(b *remote.Batch) { numbers = b.ReceiveAll("receive descriptors", to.SocketFD, len(fds)) }); err != nil {
		return err
	}
	got := numbers()
	if len(got) != len(fds) {
		return fmt.Errorf("received %d of %d descriptors", len(got), len(fds))
	}
	s := to.Page.Script(ctx, to.PidFD)
	for i, fd := range got {
		s.Call("dup3", unix.SYS_DUP3, fd, top+i, 0)
		s.Call("close", unix.SYS_CLOSE, fd)
	}
	for i, fd := range fds {
		s.Call("dup3", unix.SYS_DUP3, top+i, fd, 0)
		s.Call("close", unix.SYS_CLOSE, top+i)
	}
	return s.Run()
}
