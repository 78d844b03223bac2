// Package tcp has TCP sockets. Those with a connection are read and rebuilt by TCP_REPAIR (tcp(7)): nothing is sent for that.
//
// A connection between two sockets of the instance goes on moving while it is read. It is read until both records fit together.
package tcp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/object/socket"
)

// States of a socket, include/net/tcp_states.h.
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynReceived = 3
	stateFinWait1    = 4
	stateFinWait2    = 5
	stateTimeWait    = 6
	stateClose       = 7
	stateCloseWait   = 8
	stateLastAck     = 9
	stateListen      = 10
	stateClosing     = 11

	stateNewSynReceived = 12
)

// dumper dumps the TCP sockets of an instance: all at the end, some at a time.
type dumper struct {
	*file.Descriptors
	ns    *socket.Namespace
	conns []*conn
	diags map[uint64]socket.Diag // nil: not read yet

	orphans map[way]socket.Diag
}

// conn is a TCP socket of which a descriptor has been found.
type conn struct {
	at     file.Handle
	link   string
	record *dump.Socket

	waiting uint32 // of a listener: connections that nobody has accepted
}

// NewDumper makes the TCP sockets' part of a dump.
func NewDumper(files *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: files, ns: socket.NewNamespace(files.Init())}
}

// restorable tells whether a socket is one of TCP.
func restorable(s *dump.Socket) bool {
	return (s.GetFamily() == unix.AF_INET || s.GetFamily() == unix.AF_INET6) && s.GetType() == unix.SOCK_STREAM &&
		(s.GetProtocol() == unix.IPPROTO_TCP || s.GetProtocol() == unix.IPPROTO_MPTCP)
}

// Claims claims TCP sockets, and those of MPTCP that have no connection.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if !socket.IsSocket(l) {
		return false, nil
	}
	s, err := socket.Kind(l.FD)
	if err != nil {
		return false, fmt.Errorf("%s: %w", l.Link, err)
	}
	if !restorable(s) {
		return false, nil
	}
	if err := d.ns.Refuse(l, s); err != nil {
		return true, err
	}
	if d.Sink() != nil { // all are looked at together
		return true, nil
	}
	if err := d.survey(); err != nil {
		return true, err
	}
	if diag, ok := d.diags[l.Stat.Ino]; ok && diag.MD5 {
		return true, refuseMD5(l.At)
	}
	return true, refuse(l.At, l.FD, s)
}

func refuseMD5(at file.Handle) error { return at.Refusal("TCP socket with MD5 keys", "") }

// refuse finds what cannot be kept of a socket.
func refuse(at file.Handle, fd int, s *dump.Socket) error {
	info, err := readInfo(fd)
	if err != nil {
		return err
	}
	if s.GetProtocol() == unix.IPPROTO_MPTCP && info.state != stateClose && info.state != stateListen {
		return at.Refusal("MPTCP connection", "")
	}
	var name [16]byte // of what lies above TCP
	if n, err := linux.Getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, name[:]); err == nil && n > 0 && s.GetProtocol() == unix.IPPROTO_TCP {
		return at.Refusal("TCP socket with "+unix.ByteSliceToString(name[:n]), "")
	}
	var keys [128]byte
	if _, err := linux.Getsockopt(fd, unix.IPPROTO_TCP, linux.TCP_AO_INFO, keys[:]); err == nil {
		return at.Refusal("TCP socket with TCP-AO keys", "")
	}
	if info.state == stateSynReceived {
		return busy(at, "TCP socket", "a handshake that is not complete")
	}
	return nil
}

func busy(at file.Handle, what, why string) error {
	return fmt.Errorf("%w: %w", object.ErrBusy, at.Refusal(what, why))
}

// Dump notes a socket.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	s, err := socket.Describe(d.Descriptors, d.ns, f, l)
	if err != nil {
		return err
	}
	d.conns = append(d.conns, &conn{at: f.At, link: l.Link, record: s})
	return nil
}

// survey reads what the kernel tells of all TCP sockets.
func (d *dumper) survey() error {
	if d.diags != nil {
		return nil
	}
	d.diags, d.orphans = make(map[uint64]socket.Diag), make(map[way]socket.Diag)
	return d.ns.Do(func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			list, err := socket.ReadDiag(family, unix.IPPROTO_TCP, true)
			if err != nil {
				return fmt.Errorf("list TCP sockets: %w", err)
			}
			for _, diag := range list {
				if diag.Ino != 0 {
					d.diags[uint64(diag.Ino)] = diag
				} else if isOrphan(&diag) {
					d.orphans[way{endpoint(diag.Local()), endpoint(diag.Peer())}] = diag
				}
			}
		}
		return nil
	})
}

// Finish reads and writes the sockets.
func (d *dumper) Finish() error {
	if len(d.conns) == 0 {
		return nil
	}
	var g errgroup.Group
	g.Go(d.survey)
	g.Go(func() error { return inParallel(d.conns, d.look) })
	if err := g.Wait(); err != nil {
		return err
	}
	for _, c := range d.conns {
		if err := d.addDiag(c); err != nil {
			return err
		}
	}
	if err := d.settle(); err != nil {
		return err
	}
	if err := d.refuseWaiting(); err != nil {
		return err
	}
	for _, c := range d.conns {
		if size(c.record.GetTcp()) > maxQueues {
			return c.at.Refusal("TCP socket", fmt.Sprintf("more than %d MiB in its queues", maxQueues>>20))
		}
		if err := d.Sink().Put(c.record.GetId(), c.record); err != nil {
			return err
		}
	}
	return nil
}

// maxQueues is what fits into a record.
const maxQueues = 15 << 20

func size(t *dump.Tcp) int { return len(t.GetSent()) + len(t.GetUnsent()) + len(t.GetReceived()) }

// look reads a socket on a copy of its descriptor.
func (d *dumper) look(c *conn) error {
	fd, err := c.at.Copy()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := refuse(c.at, fd, c.record); err != nil {
		return err
	}
	if err := d.ns.Fill(fd, c.record); err != nil {
		return c.named(err)
	}
	return c.named(c.read(fd))
}

// addDiag adds what only sock_diag(7) tells.
func (d *dumper) addDiag(c *conn) error {
	diag, ok := d.diags[c.record.GetId()]
	if !ok {
		return nil
	}
	if diag.MD5 {
		return refuseMD5(c.at)
	}
	if c.record.GetTcp().GetState() == dump.Tcp_SYN_SENT {
		c.record.Peer = diag.Peer()
	}
	return nil
}

func (c *conn) named(err error) error {
	if err == nil || errors.Is(err, object.ErrUnsupported) {
		return err
	}
	return fmt.Errorf("%s: %w", c.link, err)
}

// inParallel does something with each of a list, on all processors.
func inParallel[T any](list []T, do func(T) error) error {
	if len(list) == 0 {
		return nil
	}
	var g errgroup.Group
	share := (len(list)-1)/runtime.GOMAXPROCS(0) + 1
	for part := range slices.Chunk(list, share) {
		g.Go(func() error {
			for _, e := range part {
				if err := do(e); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
