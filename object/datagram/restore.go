package datagram

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/object/socket"
	"vps/remote"
)

// restorer makes the sockets of a set: all are bound before any is connected or hears anything.
type restorer struct {
	socket.Births
	ns     *socket.Namespace
	places map[uint64]int // by Socket record: the maker's descriptor
	copies map[uint64]int // and ours
}

// NewRestorer makes these sockets' part of a restore.
func NewRestorer(files *file.Files) file.Restorer {
	return &restorer{Births: socket.Births{Files: files}, copies: make(map[uint64]int)}
}

// Needs counts nothing: the sockets have files.
func (r *restorer) Needs() int { return 0 }

// Claims claims datagram, raw, netlink and packet sockets.
func (r *restorer) Claims(f *dump.File) bool {
	s := r.Set().Sockets[f.GetSocket()]
	return s != nil && restorable(s)
}

// Make makes the sockets. Those that anybody may make hear nothing before they are bound.
func (r *restorer) Make(s *remote.Script) error {
	var err error
	if r.places, err = r.Sockets(restorable); err != nil {
		return err
	}
	for _, id := range object.SortedIDs(r.places) {
		sock := r.Set().Sockets[id]
		s.About("socket %d", id)
		if err := r.check(sock); err != nil {
			return fmt.Errorf("socket %d: %w", id, err)
		}
		made := sock
		if sock.GetFamily() == unix.AF_PACKET {
			made = born(sock)
		}
		r.Births.Make(s, made, r.places[id])
	}
	r.Done(s)
	return nil
}

// check looks at everything in a record that is used later.
func (r *restorer) check(s *dump.Socket) error {
	if err := socket.Check(s, r.Bound()); err != nil {
		return err
	}
	switch s.GetFamily() {
	case unix.AF_NETLINK:
		return checkNetlink(s)
	case unix.AF_PACKET:
		return checkPacket(s)
	}
	if err := checkMemberships(s); err != nil {
		return err
	}
	return checkQueue(s)
}

// Restore finds a socket's only open file made.
func (r *restorer) Restore(_ *remote.Script, f *dump.File, at int) error {
	if fd, ok := r.places[f.GetSocket()]; !ok || fd != at {
		return fmt.Errorf("there is no socket %d of its own", f.GetSocket())
	}
	return nil
}

// Finish sets the sockets up, step by step.
func (r *restorer) Finish(ctx context.Context, s *remote.Script) error {
	if len(r.places) == 0 {
		return nil
	}
	r.ns = socket.NewNamespace(r.PID())
	for id, at := range r.places {
		fd, err := r.Take(at)
		if err != nil {
			return err
		}
		r.copies[id] = fd
	}
	if err := r.deliver(); err != nil {
		return err
	}
	for _, step := range []func(int, *dump.Socket) error{bind, setUp, finish} {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, id := range object.SortedIDs(r.copies) {
			if err := step(r.copies[id], r.Set().Sockets[id]); err != nil {
				return fmt.Errorf("socket %d: %w", id, err)
			}
		}
	}
	for _, id := range object.SortedIDs(r.places) { // last: they hear of what we do to the network
		if sock := r.Set().Sockets[id]; sock.GetFamily() == unix.AF_NETLINK {
			s.About("socket %d", id)
			r.bindNetlink(s, sock, r.places[id])
		}
	}
	return s.Run()
}

// deliver fills the queues, before any socket is bound.
func (r *restorer) deliver() error {
	var post *postman
	for _, id := range object.SortedIDs(r.copies) {
		s := r.Set().Sockets[id]
		if len(s.GetQueue()) == 0 {
			continue
		}
		if post == nil {
			var err error
			if post, err = newPostman(r.ns); err != nil {
				return err
			}
			defer post.close()
		}
		if err := post.fill(r.copies[id], s); err != nil {
			return fmt.Errorf("queue of socket %d: %w", id, err)
		}
	}
	return nil
}

// bind gives a socket its address. Another one may have it too, whatever its options say by now.
func bind(fd int, s *dump.Socket) error {
	if err := socket.Apply(fd, s, socket.Early); err != nil {
		return err
	}
	if s.GetLocal() == nil {
		return nil
	}
	return socket.Bind(fd, s)
}

// setUp connects a socket, and gives it what comes with that.
func setUp(fd int, s *dump.Socket) error {
	if s.GetLocal() != nil {
		if err := socket.PutBack(fd, s); err != nil {
			return err
		}
	}
	for _, m := range s.GetMemberships() {
		if err := join(fd, m); err != nil {
			return err
		}
	}
	if s.GetPeer() != nil {
		// Without a way to the peer it stays unconnected: what it sends fails either way.
		err := unix.Connect(fd, socket.Sockaddr(s.GetPeer()))
		if err != nil && !socket.Unreachable(err) {
			return fmt.Errorf("connect to %s port %d: %w", socket.IP(s.GetPeer()), s.GetPeer().GetPort(), err)
		}
	}
	if s.GetFamily() == unix.AF_PACKET {
		if err := setUpPacket(fd, s); err != nil {
			return err
		}
	}
	return nil
}

// finish gives a socket what would have been in the way.
func finish(fd int, s *dump.Socket) error {
	if how := s.GetShutdown() & 3; how != 0 {
		// One that is not connected says so, and is shut down all the same (net/ipv4/af_inet.c, inet_shutdown).
		if err := unix.Shutdown(fd, int(how-1)); err != nil && err != unix.ENOTCONN {
			return fmt.Errorf("shutdown: %w", err)
		}
	}
	return socket.Finish(fd, s)
}

// Close closes the copies.
func (r *restorer) Close() error {
	for _, fd := range r.copies {
		unix.Close(fd)
	}
	clear(r.copies)
	return nil
}
