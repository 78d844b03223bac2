package tcp

import (
	"net/netip"
	"slices"
	"time"

	"vps/dump"
	"vps/object/socket"
)

// way is a connection as one of its ends sees it.
type way struct{ local, peer netip.AddrPort }

func endpoint(a *dump.SocketAddress) netip.AddrPort {
	return netip.AddrPortFrom(socket.IP(a), uint16(a.GetPort()))
}

func wayOf(s *dump.Socket) way { return way{endpoint(s.GetLocal()), endpoint(s.GetPeer())} }

func (w way) back() way { return way{w.peer, w.local} }

// How long the two ends of a connection may contradict each other.
const (
	settleRounds = 100
	settlePause  = time.Millisecond
)

// settle makes the two ends of each connection within the instance fit together. What one has sent may have arrived at the other
// after that was read, and been acknowledged before the first was: then it is in neither record.
func (d *dumper) settle() error {
	ends := make(map[way]*conn)
	for _, c := range d.conns {
		if c.record.GetPeer() != nil {
			ends[wayOf(c.record)] = c
		}
	}
	again := d.conns
	for range settleRounds {
		var behind []*conn
		add := func(c *conn) {
			if !slices.Contains(behind, c) {
				behind = append(behind, c)
			}
		}
		for _, c := range again {
			peer := ends[wayOf(c.record).back()]
			switch {
			case c.record.GetPeer() == nil:
			case peer == nil:
				if err := d.lookForPeer(c); err != nil {
					return err
				}
			default:
				if !fit(c.record.GetTcp(), peer.record.GetTcp()) {
					add(peer)
				}
				if !fit(peer.record.GetTcp(), c.record.GetTcp()) {
					add(c)
				}
			}
		}
		if len(behind) == 0 {
			return nil
		}
		time.Sleep(settlePause)
		if err := inParallel(behind, d.look); err != nil {
			return err
		}
		again = behind
	}
	return busy(again[0].at, "TCP connection", "its two ends do not come to rest")
}

// fit makes the record of a sender fit to that of the receiver: what has been received counts as sent. It fails if the receiver lacks what
// the sender has no more.
func fit(sender, receiver *dump.Tcp) bool {
	acknowledged := sender.GetSendSeq() - uint32(len(sender.GetSent())+len(sender.GetUnsent()))
	arrived := int32(receiver.GetReceiveSeq() - acknowledged)
	if arrived < 0 {
		return false
	}
	queue := append(sender.GetSent(), sender.GetUnsent()...)
	if n := int(arrived); n > len(sender.GetSent()) && n <= len(queue) {
		sender.Sent, sender.Unsent = queue[:n], queue[n:]
	}
	return true
}

// lookForPeer looks for the other end of a connection, to which no descriptor leads: it may be elsewhere; it may wait to be accepted; or it has
// been closed, and must not hold anything that has not been delivered.
func (d *dumper) lookForPeer(c *conn) error {
	peer, ok := d.orphans[wayOf(c.record).back()]
	const fin = 1 // counts as a byte
	switch {
	case !ok:
	case peer.State == stateEstablished:
		t := c.record.GetTcp()
		t.Waiting = t.GetState() == dump.Tcp_ESTABLISHED && size(t) == 0 && peer.RQueue == 0 && peer.WQueue == 0
	case peer.WQueue > fin:
		return busy(c.at, "TCP connection", "its other end is closed, and has not delivered all that it sent")
	}
	return nil
}

// isOrphan tells whether no descriptor leads to a connection.
func isOrphan(d *socket.Diag) bool {
	return d.Ino == 0 && d.State != stateTimeWait && d.State != stateSynReceived && d.State != stateNewSynReceived
}

// refuseWaiting refuses a listener at which others wait than sockets of the instance that have sent nothing.
func (d *dumper) refuseWaiting() error {
	found := make(map[netip.AddrPort]uint32)
	for _, c := range d.conns {
		if c.record.GetTcp().GetWaiting() {
			peer := endpoint(c.record.GetPeer())
			found[peer]++
			found[netip.AddrPortFrom(netip.IPv6Unspecified(), peer.Port())]++
			if peer.Addr().Is4() {
				found[netip.AddrPortFrom(netip.IPv4Unspecified(), peer.Port())]++
			}
		}
	}
	for _, c := range d.conns {
		if c.waiting > found[endpoint(c.record.GetLocal())] {
			return busy(c.at, "listening TCP socket", "connections that nobody has accepted yet")
		}
	}
	return nil
}
