package tcp

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/socket"
)

// openQueues takes the connections that nobody has accepted out of the accept queues, for as long as they are read. What cannot be put
// back stays where it is: [dumper.refuseWaiting] finds it.
func (d *dumper) openQueues() error {
	for _, c := range slices.Clone(d.conns) {
		if c.waiting == 0 || c.record.GetProtocol() != unix.IPPROTO_TCP || socket.BoundToDevice(c.record) {
			continue
		}
		if d.usher == nil {
			var err error
			if d.usher, err = newUsher(d.ns); err != nil {
				d.usher = nil
				return nil
			}
			if err := d.usher.begin(); err != nil {
				return err
			}
		}
		list, err := d.openQueue(c)
		d.conns = append(d.conns, list...)
		if err != nil {
			return c.named(err)
		}
	}
	return nil
}

func (d *dumper) openQueue(c *conn) ([]*conn, error) {
	listener, err := c.at.Copy()
	if err != nil {
		return nil, err
	}
	defer unix.Close(listener)
	fds, err := acceptAll(listener)
	var list []*conn
	for _, fd := range fds {
		w := &conn{at: c.at, link: c.link, listener: c, fd: fd, record: &dump.Socket{Uid: c.record.GetUid(), Gid: c.record.GetGid()}}
		list = append(list, w)
		err = errors.Join(err, w.identify(), d.look(w))
	}
	c.waiting = 0
	return list, err
}

// identify says which socket it is.
func (c *conn) identify() error {
	var st unix.Stat_t
	if err := unix.Fstat(c.fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	s, err := socket.Kind(c.fd)
	if err != nil {
		return err
	}
	c.record.Id, c.record.Family, c.record.Type, c.record.Protocol = st.Ino, s.GetFamily(), s.GetType(), s.GetProtocol()
	return nil
}

// closeQueues puts back what [dumper.openQueues] took, in its order, and notes it at the listeners. A connection that is dead by now is not.
func (d *dumper) closeQueues() error {
	var errs []error
	var rest []*conn
	for _, c := range d.conns {
		if c.listener == nil {
			rest = append(rest, c)
			continue
		}
		errs = append(errs, hush(c.fd), unix.Close(c.fd))
		if !connected.has(c.record.GetTcp().GetState()) {
			continue
		}
		err := d.putBack(c)
		if err == nil {
			err = checkWaiting(c.record)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: a connection from %s: %w", c.link, endpoint(c.record.GetPeer()), err))
		}
		t := c.listener.record.GetTcp()
		t.AcceptQueue = append(t.GetAcceptQueue(), c.record.GetId())
		rest = append(rest, c)
	}
	d.conns = rest
	if d.usher != nil {
		d.usher.close()
		d.usher = nil
	}
	return errors.Join(errs...)
}

func (d *dumper) putBack(c *conn) error {
	listener, err := c.at.Copy()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	return d.usher.put(listener, c.record, 0)
}

// checkWaiting refuses a connection that nobody can have before it is accepted.
func checkWaiting(s *dump.Socket) error {
	t := s.GetTcp()
	switch {
	case t.GetState() != dump.Tcp_ESTABLISHED && t.GetState() != dump.Tcp_CLOSE_WAIT:
		return fmt.Errorf("state %s before it is accepted", t.GetState())
	case s.GetProtocol() != unix.IPPROTO_TCP:
		return fmt.Errorf("protocol %d before it is accepted", s.GetProtocol())
	case len(t.GetSent())+len(t.GetUnsent()) > 0, t.GetUrgent() != 0, t.GetDeaf(), t.GetWaiting():
		return errors.New("more than data before it is accepted")
	}
	return nil
}

// seat puts those who waited back into the accept queue of a listener, which is complete: they inherit its options. Who cannot be
// reached any more has gone.
func (r *restorer) seat(c *rebuilt) error {
	if err := finish(c); err != nil || len(c.record.GetTcp().GetAcceptQueue()) == 0 {
		return err
	}
	if r.usher == nil {
		var err error
		if r.usher, err = newUsher(r.ns); err != nil {
			return fmt.Errorf("connections that wait to be accepted: %w", err)
		}
	}
	if err := socket.ReleaseDevice(c.fd); err != nil {
		return err
	}
	for _, id := range c.record.GetTcp().GetAcceptQueue() {
		s := r.Set().Sockets[id]
		if ok, err := r.reachable(s); err != nil {
			return err
		} else if !ok {
			continue
		}
		if err := r.usher.put(c.fd, s, r.passed); err != nil {
			return fmt.Errorf("who waits to be accepted, from %s: %w", endpoint(s.GetPeer()), err)
		}
	}
	return socket.BackToDevice(c.fd, c.record)
}

// reachable tells whether there is a way from one end of a connection to the other.
func (r *restorer) reachable(s *dump.Socket) (ok bool, err error) {
	if !r.isLocal(socket.IP(s.GetLocal())) {
		return false, nil
	}
	err = r.ns.Do(func() error {
		fd, err := unix.Socket(int(s.GetFamily()), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		defer unix.Close(fd)
		err = unix.Connect(fd, socket.Sockaddr(s.GetPeer()))
		if ok = err == nil; ok || socket.Unreachable(err) {
			return nil
		}
		return fmt.Errorf("look for a way to %s: %w", endpoint(s.GetPeer()), err)
	})
	return ok, err
}

// checkQueue looks at who waits at a listener, and refuses who waits at another one too.
func (r *restorer) checkQueue(s *dump.Socket) error {
	for _, id := range s.GetTcp().GetAcceptQueue() {
		w := r.Set().Sockets[id]
		switch {
		case s.GetTcp().GetState() != dump.Tcp_LISTEN:
			return errors.New("an accept queue, but it does not listen")
		case w == nil:
			return fmt.Errorf("there is no socket %d to be accepted", id)
		case r.places[id] != 0 || r.seated[id]:
			return fmt.Errorf("socket %d waits to be accepted, and is elsewhere too", id)
		}
		r.seated[id] = true
		if err := errors.Join(join(w.GetTcp(), r.Set().TCPQueues), check(w, r.Bound()), checkWaiting(w)); err != nil {
			return fmt.Errorf("socket %d to be accepted: %w", id, err)
		}
	}
	return nil
}
