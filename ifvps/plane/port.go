package plane

import "sync/atomic"

// What a gate is closed for.
const (
	GateIn  = 1 << iota // what goes to the instance
	GateOut             // what comes from it
)

// InUse tells whether there is such a port.
func (p *Port) InUse() bool { return atomic.LoadUint32(&p.instance) != 0 }

// Claim takes a free entry in the table of ports: of an instance whose first port is given, or a new one's if that is 0. One at a
// time may do so.
func (t *Tables) Claim(first uint32) (n uint32, ok bool) {
	for n := uint32(1); n < MaxPorts; n++ {
		p := t.Port(n)
		if p.InUse() {
			continue
		}
		if first == 0 {
			first = n
		}
		*p = Port{}
		atomic.StoreUint32(&p.instance, first)
		return n, true
	}
	return 0, false
}

// Link is the ifindex of the host's end.
func (p *Port) Link() int { return int(atomic.LoadUint32(&p.ifindex)) }

// SetLink says which link is the host's end.
func (p *Port) SetLink(ifindex int) { atomic.StoreUint32(&p.ifindex, uint32(ifindex)) }

// Gate says for what the gate is closed; 0: it is open.
func (p *Port) Gate() uint32 { return atomic.LoadUint32(&p.gate) }

// SetGate closes or opens the gate.
func (p *Port) SetGate(closed uint32) { atomic.StoreUint32(&p.gate, closed) }

// Keep says which tap keeps packets, and how many bytes of them; 0, 0: none.
func (p *Port) Keep(tap int, bytes int64) {
	atomic.StoreUint32(&p.hold, uint32(tap))
	atomic.StoreInt64(&p.room, bytes)
}

// Room is how many bytes may still be kept.
func (p *Port) Room() int64 { return atomic.LoadInt64(&p.room) }

// Kept tells whether the programs have sent a frame to the port's tap, and notes that it is there no more.
func (p *Port) Kept(frame []byte) bool {
	if len(frame) < len(keptIn) {
		return false
	}
	if to := [6]byte(frame); to != keptIn && to != keptOut {
		return false
	}
	atomic.AddInt64(&p.room, int64(len(frame)+keptOverhead))
	return true
}

// Lose counts a packet that was kept, but could not be put back.
func (p *Port) Lose() { atomic.AddUint64(&p.lost, 1) }

// Limit says how many bits per second go in and out; 0: as many as there are.
func (p *Port) Limit(in, out uint64) {
	p.in.limit(in)
	p.out.limit(out)
}

func (t *traffic) limit(rate uint64) {
	cost := uint64(0)
	if rate > 0 {
		cost = 8e9 * costUnit / rate
	}
	atomic.StoreUint64(&t.cost, cost)
}

// Traffic is one direction of an interface, as the instance sees it.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Limited uint64 `json:"limited"` // packets dropped for the limit of the bandwidth
}

// Counters are those of an interface.
type Counters struct {
	In      Traffic `json:"in"`
	Out     Traffic `json:"out"`
	Spoofed uint64  `json:"spoofed"` // packets dropped for a source that is not the instance's
	Foreign uint64  `json:"foreign"` // packets dropped that are neither IPv4 nor IPv6 to one destination
	Flooded uint64  `json:"flooded"` // packets dropped to neighbours of the host's that it does not know, beyond how many it looks for
	Lost    uint64  `json:"lost"`    // packets that could not be kept while the gate was closed
}

// Counters returns what has been counted.
func (p *Port) Counters() Counters {
	return Counters{
		In: p.in.read(), Out: p.out.read(), Spoofed: atomic.LoadUint64(&p.spoofed), Foreign: atomic.LoadUint64(&p.foreign),
		Flooded: atomic.LoadUint64(&p.flooded), Lost: atomic.LoadUint64(&p.lost),
	}
}

func (t *traffic) read() Traffic {
	return Traffic{Packets: atomic.LoadUint64(&t.packets), Bytes: atomic.LoadUint64(&t.bytes), Limited: atomic.LoadUint64(&t.limited)}
}
