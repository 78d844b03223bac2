package tcp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/socket"
)

// stampSlack is by how much a timestamp is set ahead: peers drop segments whose timestamps lag behind (RFC 7323, section 5), and the old
// socket may have sent some after its own was read.
const stampSlack = 20 * time.Millisecond

// knock connects a socket to a listener of the instance, where it waits to be accepted.
func knock(c *rebuilt) error {
	if err := socket.Apply(c.fd, c.record, socket.Early); err != nil {
		return err
	}
	if err := socket.Bind(c.fd, c.record); err != nil {
		return err
	}
	if err := unix.Connect(c.fd, socket.Sockaddr(c.record.GetPeer())); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect to %s, which listens: %w", endpoint(c.record.GetPeer()), err)
	}
	return socket.PutBack(c.fd, c.record)
}

// connect makes a connection in repair mode: nothing is sent, and segments of the peer find it from then on. One that has no way to its
// peer any more becomes a dead one.
func (r *restorer) connect(c *rebuilt) error {
	t := c.record.GetTcp()
	if err := socket.Apply(c.fd, c.record, socket.Early); err != nil {
		return err
	}
	if !r.isLocal(socket.IP(c.record.GetLocal())) {
		c.state = dump.Tcp_DEAD
		return nil
	}
	if err := r.releaseDevice(c); err != nil {
		return err
	}
	if err := enter(c.fd, t.GetSendSeq()-uint32(len(t.GetSent())+len(t.GetUnsent())), t.GetReceiveSeq()-uint32(len(t.GetReceived()))); err != nil {
		return err
	}
	if err := unix.Bind(c.fd, socket.Sockaddr(c.record.GetLocal())); err != nil {
		return fmt.Errorf("bind to %s: %w", endpoint(c.record.GetLocal()), err)
	}
	// What it offered as its own is where the size of its segments begins.
	if err := setMSS(c.fd, int(min(t.GetMss(), maxOffer))); err != nil {
		return err
	}
	if err := unix.Connect(c.fd, socket.Sockaddr(c.record.GetPeer())); socket.Unreachable(err) {
		c.state = dump.Tcp_DEAD
		return nil
	} else if err != nil {
		return fmt.Errorf("connect %s to %s: %w", endpoint(c.record.GetLocal()), endpoint(c.record.GetPeer()), err)
	}
	if r.isLocal(socket.IP(c.record.GetPeer())) && !r.ends[wayOf(c.record).back()] {
		if err := socket.Attach(c.fd, withoutReset); err != nil {
			return err
		}
		c.guarded = true
	}
	return r.negotiated(c)
}

// withoutReset is a filter that lets a socket hear no RST: the instance itself sends one if it is the peer, but the peer's socket is gone.
// That one would have been silent for a while.
var withoutReset = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // flags
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flagRst, Jt: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	{Code: unix.BPF_RET | unix.BPF_K},
}

// Bounds of TCP_MAXSEG: TCP_MIN_MSS of include/net/tcp.h, MAX_TCP_WINDOW.
const (
	minOffer = 88
	maxOffer = 32767
)

func setMSS(fd, size int) error {
	if size < minOffer && size != 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, size); err != nil {
		return fmt.Errorf("set TCP_MAXSEG to %d: %w", size, err)
	}
	return nil
}

func (r *restorer) isLocal(ip netip.Addr) bool { return r.local[ip] || ip.IsLoopback() }

// releaseDevice lets a socket hear for a while what comes over the loopback interface, if it is to hear something from us.
func (r *restorer) releaseDevice(c *rebuilt) error {
	t := c.record.GetTcp()
	if t.GetUrgent() == 0 && !finReceived(t.GetState()) && c.state != dump.Tcp_DEAD {
		return nil
	}
	return socket.ReleaseDevice(c.fd)
}

// enter begins repair mode, with the sequence numbers of the first byte to be sent and received.
func enter(fd int, send, receive uint32) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
		return fmt.Errorf("TCP_REPAIR: %w", err)
	}
	for _, q := range []struct {
		queue int
		seq   uint32
	}{{linux.TCP_SEND_QUEUE, send}, {linux.TCP_RECV_QUEUE, receive}} {
		if err := selectQueue(fd, q.queue); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(q.seq)); err != nil {
			return fmt.Errorf("TCP_QUEUE_SEQ: %w", err)
		}
	}
	return nil
}

// negotiated sets what the two ends agreed on when the connection began.
func (r *restorer) negotiated(c *rebuilt) error {
	t := c.record.GetTcp()
	options := []linux.TCPRepairOpt{{Code: linux.TCPOPT_MSS, Val: t.GetMss()}}
	if t.GetWindowScaling() {
		options = append(options, linux.TCPRepairOpt{Code: linux.TCPOPT_WINDOW, Val: t.GetSendScale() | t.GetReceiveScale()<<16})
	}
	if t.GetSack() {
		options = append(options, linux.TCPRepairOpt{Code: linux.TCPOPT_SACK_PERM})
	}
	if t.GetTimestamps() {
		options = append(options, linux.TCPRepairOpt{Code: linux.TCPOPT_TIMESTAMP})
	}
	value := unsafe.Slice((*byte)(unsafe.Pointer(&options[0])), len(options)*int(unsafe.Sizeof(options[0])))
	if err := linux.Setsockopt(c.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, value); err != nil {
		return fmt.Errorf("TCP_REPAIR_OPTIONS: %w", err)
	}
	if err := setMSS(c.fd, 0); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(stamp(t.GetTimestamp(), r.passed+stampSlack))); err != nil {
		return fmt.Errorf("TCP_TIMESTAMP: %w", err)
	}
	return nil
}

// stamp is a timestamp after some time. Odd ones count microseconds, and stay odd.
func stamp(then uint32, passed time.Duration) uint32 {
	if then&1 == 0 {
		return then + uint32(passed.Milliseconds())&^1
	}
	return then + uint32(passed.Microseconds())&^1
}

// fill puts back what is in the queues, and the window.
func (r *restorer) fill(c *rebuilt) error {
	t := c.record.GetTcp()
	if err := r.fillReceived(c, t.GetReceived()); err != nil {
		return fmt.Errorf("receive queue: %w", err)
	}
	if err := makeRoom(c.fd, unix.SO_SNDBUF, len(t.GetSent())+len(t.GetUnsent())); err != nil {
		return err
	}
	if err := put(c.fd, linux.TCP_SEND_QUEUE, t.GetSent()); err != nil {
		return fmt.Errorf("send queue: %w", err)
	}
	w := t.GetWindow()
	window := linux.TCPRepairWindow{
		SndWl1: w.GetSendWl1(), SndWnd: w.GetSend(), MaxWindow: w.GetMax(), RcvWnd: w.GetReceive(), RcvWup: w.GetReceiveWup(),
	}
	if err := linux.Setsockopt(c.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, windowBytes(&window)); err != nil {
		return fmt.Errorf("TCP_REPAIR_WINDOW: %w", err)
	}
	return nil
}

// fillReceived fills the receive queue. An urgent byte comes as a segment of the peer.
func (r *restorer) fillReceived(c *rebuilt, data []byte) error {
	t := c.record.GetTcp()
	if err := makeRoom(c.fd, unix.SO_RCVBUF, len(data)); err != nil {
		return err
	}
	mark := int(t.GetUrgent()) - 1
	if mark < 0 {
		return put(c.fd, linux.TCP_RECV_QUEUE, data)
	}
	if err := put(c.fd, linux.TCP_RECV_QUEUE, data[:mark]); err != nil {
		return err
	}
	urgent := fromPeer(c.record, mark, flagUrg, data[mark:mark+1])
	urgent.urgent = 1
	before, err := sequence(c.fd, linux.TCP_RECV_QUEUE)
	if err != nil {
		return err
	}
	err = r.say(urgent, func() (bool, error) {
		now, err := sequence(c.fd, linux.TCP_RECV_QUEUE)
		return now != before, err
	})
	if err != nil {
		return fmt.Errorf("urgent byte: %w", err)
	}
	if t.GetUrgentRead() {
		if _, _, err := unix.Recvfrom(c.fd, make([]byte, 1), unix.MSG_OOB|unix.MSG_DONTWAIT); err != nil {
			return fmt.Errorf("read the urgent byte: %w", err)
		}
	}
	return put(c.fd, linux.TCP_RECV_QUEUE, data[mark+1:])
}

// normalQueue fits into the buffers of a new socket.
const normalQueue = 8 << 10

// makeRoom enlarges a buffer for what is put into it.
func makeRoom(fd, which, size int) error {
	if size <= normalQueue {
		return nil
	}
	return socket.SetBuffer(fd, which, min(2*size+1<<20, socket.MaxBuffer*2))
}

// piece is what the kernel takes at a time: it goes into one buffer.
const piece = 64 << 10

// put puts data into a queue of a socket in repair mode.
func put(fd, queue int, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := selectQueue(fd, queue); err != nil {
		return err
	}
	return send(fd, data)
}

func send(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.SendmsgN(fd, data[:min(len(data), piece)], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != nil {
			return fmt.Errorf("put %d bytes: %w", len(data), err)
		}
		data = data[n:]
	}
	return nil
}

// leave ends repair mode, and sends what has not been sent. Where something may be on its way, the probe of leaving makes the peer say how
// far it has come.
func leave(c *rebuilt) error {
	t := c.record.GetTcp()
	how := unix.TCP_REPAIR_OFF_NO_WP
	if len(t.GetSent()) > 0 || finSent(t.GetState()) {
		how = unix.TCP_REPAIR_OFF
	}
	if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, how); err != nil {
		return fmt.Errorf("leave TCP_REPAIR: %w", err)
	}
	if err := socket.Reuse(c.fd, c.record); err != nil {
		return err
	}
	if err := send(c.fd, t.GetUnsent()); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("send queue: %w", err)
	}
	return nil
}

// endReading lets a socket hear the FIN of its peer, twice: the second one it acknowledges at once, while an RST that answers is not
// heard, see withoutReset.
func (r *restorer) endReading(c *rebuilt) error {
	heard := func() (bool, error) {
		now, err := readInfo(c.fd)
		return now.state != stateEstablished && now.state != stateFinWait1 && now.state != stateFinWait2, err
	}
	if ok, err := heard(); ok || err != nil { // from one that is of the instance
		return err
	}
	fin := fromPeer(c.record, len(c.record.GetTcp().GetReceived()), flagFin, nil)
	if err := r.say(fin, heard); err != nil {
		return fmt.Errorf("FIN: %w", err)
	}
	before, err := readInfo(c.fd)
	if err != nil {
		return err
	}
	err = r.say(fin, func() (bool, error) {
		now, err := readInfo(c.fd)
		return now.segmentsOut != before.segmentsOut, err
	})
	if err != nil {
		return fmt.Errorf("acknowledge the FIN: %w", err)
	}
	return nil
}

// endWriting sends a FIN.
func endWriting(c *rebuilt) error {
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil && err != unix.ENOTCONN { // reset meanwhile
		return fmt.Errorf("shut writing down: %w", err)
	}
	return nil
}

// arrivalTime is how long a segment may be on its way over the loopback interface.
const arrivalTime = time.Second

// say sends a segment to a socket of the instance, and waits until it has been heard.
func (r *restorer) say(s segment, heard func() (bool, error)) error {
	if err := r.inject.Send(s.packet()); err != nil {
		return err
	}
	for end := time.Now().Add(arrivalTime); ; time.Sleep(50 * time.Microsecond) {
		if ok, err := heard(); ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("a segment from %s to %s: %w", endpoint(s.from), endpoint(s.to), unix.ETIMEDOUT)
		}
	}
}

// call lets a socket call its peer again, by the sequence number with which it did.
func (r *restorer) call(c *rebuilt) error {
	if err := socket.Apply(c.fd, c.record, socket.Early); err != nil {
		return err
	}
	if err := enter(c.fd, c.record.GetTcp().GetSendSeq()-1, 0); err != nil {
		return err
	}
	err := unix.Bind(c.fd, socket.Sockaddr(c.record.GetLocal()))
	lerr := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
	if err == nil && lerr == nil {
		err = unix.Connect(c.fd, socket.Sockaddr(c.record.GetPeer()))
	}
	switch {
	case lerr != nil:
		return fmt.Errorf("leave TCP_REPAIR: %w", lerr)
	case socket.Unreachable(err):
		return r.bury(c)
	case err != nil && err != unix.EINPROGRESS:
		return fmt.Errorf("connect %s to %s: %w", endpoint(c.record.GetLocal()), endpoint(c.record.GetPeer()), err)
	}
	return socket.Reuse(c.fd, c.record)
}

// bury makes a socket whose connection has been reset: it has one for a moment. Who is not told of the error by now never will be.
func (r *restorer) bury(c *rebuilt) error {
	t := c.record.GetTcp()
	if c.record.GetTcp().GetState() == dump.Tcp_DEAD {
		if err := socket.Apply(c.fd, c.record, socket.Early); err != nil {
			return err
		}
	}
	c.state = dump.Tcp_DEAD
	if err := r.releaseDevice(c); err != nil {
		return err
	}
	const sent = 1
	if err := enter(c.fd, sent, 1); err != nil {
		return err
	}
	here, err := r.grave(c)
	if err != nil {
		return err
	}
	peer, err := connectAnywhere(c, here)
	if err != nil {
		return err
	}
	if err := makeRoom(c.fd, unix.SO_RCVBUF, len(t.GetReceived())); err != nil {
		return err
	}
	if err := put(c.fd, linux.TCP_RECV_QUEUE, t.GetReceived()); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP); err != nil {
		return fmt.Errorf("leave TCP_REPAIR: %w", err)
	}
	reset := segment{from: peer, to: here, seq: 1 + uint32(len(t.GetReceived())), ack: sent, flags: flagRst | flagAck}
	err = r.say(reset, func() (bool, error) {
		now, err := readInfo(c.fd)
		return now.state == stateClose, err
	})
	if err != nil {
		return err
	}
	if t.GetState() == dump.Tcp_DEAD && !t.GetFailed() {
		if _, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return fmt.Errorf("SO_ERROR: %w", err)
		}
	}
	return socket.Reuse(c.fd, c.record)
}

// grave binds a dead socket where it was, if that is an address of the instance, and returns its address.
func (r *restorer) grave(c *rebuilt) (*dump.SocketAddress, error) {
	if here, err := socket.Local(c.fd); err != nil || here != nil {
		return here, err
	}
	here := c.record.GetLocal()
	if here == nil {
		here = &dump.SocketAddress{Address: make([]byte, 4)}
		if c.record.GetFamily() == unix.AF_INET6 {
			here.Address = make([]byte, 16)
		}
	}
	if !r.isLocal(socket.IP(here)) {
		here = loopback(here, here.GetPort())
	}
	if err := unix.Bind(c.fd, socket.Sockaddr(here)); err != nil {
		return nil, fmt.Errorf("bind to %s: %w", endpoint(here), err)
	}
	return socket.Local(c.fd)
}

// connectAnywhere connects a dead socket to its last peer, or to another one: few ask (SO_PEERNAME).
func connectAnywhere(c *rebuilt, here *dump.SocketAddress) (*dump.SocketAddress, error) {
	const discard = 9
	peers := []*dump.SocketAddress{loopback(here, discard)}
	if peer := c.record.GetPeer(); peer != nil {
		peers = []*dump.SocketAddress{peer, peers[0]}
	}
	var err error
	for _, peer := range peers {
		if err = unix.Connect(c.fd, socket.Sockaddr(peer)); err == nil {
			return peer, nil
		}
	}
	return nil, fmt.Errorf("connect %s to %s: %w", endpoint(here), endpoint(peers[len(peers)-1]), err)
}

// loopback is a port of the loopback interface, for who has an address of the same kind.
func loopback(like *dump.SocketAddress, port uint32) *dump.SocketAddress {
	ip := netip.IPv6Loopback()
	if socket.IP(like).Is4() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	a := &dump.SocketAddress{Address: ip.AsSlice(), Port: port}
	if len(like.GetAddress()) == 16 {
		b := ip.As16()
		a.Address = b[:]
	}
	return a
}
