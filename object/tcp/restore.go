package tcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/object/socket"
	"vps/remote"
)

// restorer makes the TCP sockets of a set: those without a connection first, then all connections, in repair mode. Only when all are there
// does the first one leave it: what a socket sends to another one of the instance finds it.
type restorer struct {
	socket.Births
	places map[uint64]int // by Socket record: the maker's descriptor
	conns  []*rebuilt
	local  map[netip.Addr]bool // addresses of the instance
	ends   map[way]bool        // of connections
	inject *socket.Injector
	passed time.Duration // since the snapshot
}

// rebuilt is a socket that is being restored.
type rebuilt struct {
	record *dump.Socket
	state  dump.Tcp_State // of the record, or DEAD where that cannot be, or waiting
	fd     int            // our copy

	guarded bool // it has a filter of ours
}

// NewRestorer makes the TCP sockets' part of a restore.
func NewRestorer(files *file.Files) file.Restorer {
	return &restorer{Births: socket.Births{Files: files}}
}

// Needs counts nothing: the sockets have files.
func (r *restorer) Needs() int { return 0 }

// Claims claims TCP sockets.
func (r *restorer) Claims(f *dump.File) bool {
	s := r.Set().Sockets[f.GetSocket()]
	return s != nil && restorable(s)
}

// Make makes the sockets.
func (r *restorer) Make(s *remote.Script) error {
	var err error
	if r.places, err = r.Sockets(restorable); err != nil || len(r.places) == 0 {
		return err
	}
	for _, id := range object.SortedIDs(r.places) {
		sock := r.Set().Sockets[id]
		s.About("socket %d", id)
		if err := check(sock, r.Bound()); err != nil {
			return fmt.Errorf("socket %d: %w", id, err)
		}
		r.Births.Make(s, sock, r.places[id])
	}
	r.Done(s)
	return nil
}

// check looks at everything in a record that is used later.
func check(s *dump.Socket, allowed uint64) error {
	t := s.GetTcp()
	if t == nil || len(s.GetQueue()) > 0 || len(s.GetMemberships()) > 0 {
		return errors.New("a TCP socket with what such have not")
	}
	if err := socket.Check(s, allowed); err != nil {
		return err
	}
	end := func(a *dump.SocketAddress) bool { return a.GetPort() != 0 && !socket.IP(a).IsUnspecified() }
	switch t.GetState() {
	case dump.Tcp_CLOSED, dump.Tcp_LISTEN:
	case dump.Tcp_DEAD:
		if s.GetProtocol() == unix.IPPROTO_MPTCP {
			return fmt.Errorf("state %s of MPTCP: %w", t.GetState(), object.ErrUnsupported)
		}
	case dump.Tcp_SYN_SENT, dump.Tcp_ESTABLISHED, dump.Tcp_FIN_WAIT, dump.Tcp_CLOSE_WAIT, dump.Tcp_LAST_ACK, dump.Tcp_CLOSING:
		if s.GetProtocol() == unix.IPPROTO_MPTCP {
			return fmt.Errorf("a connection of MPTCP: %w", object.ErrUnsupported)
		}
		if !end(s.GetLocal()) || !end(s.GetPeer()) || socket.IP(s.GetLocal()).Is4() != socket.IP(s.GetPeer()).Is4() {
			return fmt.Errorf("a connection from %v to %v", s.GetLocal(), s.GetPeer())
		}
	default:
		return fmt.Errorf("state %s: %w", t.GetState(), object.ErrUnsupported)
	}
	if t.GetWaiting() && (t.GetState() != dump.Tcp_ESTABLISHED || size(t) > 0) {
		return errors.New("waits to be accepted, but not as it can be made to")
	}
	if size(t) > maxQueues || int(t.GetUrgent()) > len(t.GetReceived()) || t.GetSendScale() > maxScale || t.GetReceiveScale() > maxScale {
		return errors.New("queues or scales that are not possible")
	}
	return nil
}

const maxScale = 14 // TCP_MAX_WSCALE of include/net/tcp.h

// Restore finds a socket's only open file made.
func (r *restorer) Restore(_ *remote.Script, f *dump.File, at int) error {
	if fd, ok := r.places[f.GetSocket()]; !ok || fd != at {
		return fmt.Errorf("there is no socket %d of its own", f.GetSocket())
	}
	return nil
}

// Sets of states.
type states uint

func of(list ...dump.Tcp_State) (set states) {
	for _, s := range list {
		set |= 1 << s
	}
	return set
}

var (
	plain     = of(dump.Tcp_CLOSED, dump.Tcp_LISTEN)
	connected = of(dump.Tcp_ESTABLISHED, dump.Tcp_FIN_WAIT, dump.Tcp_CLOSE_WAIT, dump.Tcp_LAST_ACK, dump.Tcp_CLOSING)
	all       = ^states(0)
)

// waiting is the state of a connection whose peer has not been accepted.
const waiting = dump.Tcp_State(16)

func (set states) has(s dump.Tcp_State) bool { return set&(1<<s) != 0 }

// Finish sets the sockets up, step by step.
func (r *restorer) Finish(ctx context.Context, _ *remote.Script) error {
	if len(r.places) == 0 {
		return nil
	}
	if err := r.prepare(); err != nil {
		return err
	}
	for _, step := range []struct {
		states states
		each   func([]*rebuilt, func(*rebuilt) error) error
		do     func(*rebuilt) error
	}{
		{all, oneByOne, r.take},
		{plain, oneByOne, bind}, // all before any listens, which would be in the way
		{of(dump.Tcp_LISTEN), oneByOne, listen},
		{plain, oneByOne, putBack},
		{of(waiting), oneByOne, knock},
		{connected, inParallel[*rebuilt], r.connect},
		{of(dump.Tcp_DEAD), oneByOne, r.bury}, // what could not be connected too
		{connected, inParallel[*rebuilt], r.fill},
		{connected, inParallel[*rebuilt], leave},
		{of(dump.Tcp_CLOSE_WAIT, dump.Tcp_LAST_ACK), inParallel[*rebuilt], r.endReading},
		{of(dump.Tcp_FIN_WAIT, dump.Tcp_LAST_ACK, dump.Tcp_CLOSING), inParallel[*rebuilt], endWriting},
		{of(dump.Tcp_CLOSING), inParallel[*rebuilt], r.endReading},
		{of(dump.Tcp_SYN_SENT), oneByOne, r.call},
		{all, inParallel[*rebuilt], finish},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		list := slices.DeleteFunc(slices.Clone(r.conns), func(c *rebuilt) bool { return !step.states.has(c.state) })
		err := step.each(list, func(c *rebuilt) error {
			if err := step.do(c); err != nil {
				return fmt.Errorf("socket %d: %w", c.record.GetId(), err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return r.Close()
}

func (r *restorer) prepare() (err error) {
	for _, id := range object.SortedIDs(r.places) {
		s := r.Set().Sockets[id]
		c := &rebuilt{record: s, state: s.GetTcp().GetState(), fd: -1}
		if s.GetTcp().GetWaiting() {
			c.state = waiting
		}
		r.conns = append(r.conns, c)
	}
	r.ends = make(map[way]bool)
	for _, c := range r.conns {
		if connected.has(c.state) {
			r.ends[wayOf(c.record)] = true
		}
	}
	ns := socket.NewNamespace(r.PID())
	if r.local, err = ns.Addresses(); err != nil {
		return err
	}
	if r.inject, err = socket.NewInjector(ns); err != nil {
		return err
	}
	if then := r.Set().Instance.GetClocks().GetRealtime(); then != 0 {
		r.passed = max(0, time.Since(time.Unix(0, then)))
	}
	return nil
}

func oneByOne(list []*rebuilt, do func(*rebuilt) error) error {
	for _, c := range list {
		if err := do(c); err != nil {
			return err
		}
	}
	return nil
}

// take duplicates a socket into our process.
func (r *restorer) take(c *rebuilt) (err error) {
	c.fd, err = r.Take(r.places[c.record.GetId()])
	return err
}

// bind gives a socket without a connection its address.
func bind(c *rebuilt) error {
	if err := socket.Apply(c.fd, c.record, socket.Early); err != nil || c.record.GetLocal() == nil {
		return err
	}
	return socket.Bind(c.fd, c.record)
}

func putBack(c *rebuilt) error { return socket.PutBack(c.fd, c.record) }

func listen(c *rebuilt) error {
	if err := unix.Listen(c.fd, int(min(c.record.GetTcp().GetBacklog(), maxBacklog))); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

const maxBacklog = 1 << 30 // the kernel bounds it by net.core.somaxconn

// finish gives a socket what would have been in the way.
func finish(c *rebuilt) error {
	if c.guarded {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
			return fmt.Errorf("SO_DETACH_FILTER: %w", err)
		}
	}
	if err := socket.Finish(c.fd, c.record); err != nil {
		return err
	}
	if c.record.GetTcp().GetDeaf() && c.state != dump.Tcp_DEAD {
		if err := unix.Shutdown(c.fd, unix.SHUT_RD); err != nil && err != unix.ENOTCONN {
			return fmt.Errorf("shut reading down: %w", err)
		}
	}
	return nil
}

// Close closes the copies.
func (r *restorer) Close() error {
	for _, c := range r.conns {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
	}
	if r.inject != nil {
		r.inject.Close()
	}
	r.conns, r.inject = nil, nil
	return nil
}
