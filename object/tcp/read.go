package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/file"
	"vps/object/socket"
)

// info is what is needed of struct tcp_info, include/uapi/linux/tcp.h.
type info struct {
	state, options          uint8
	sendScale, receiveScale uint8
	unacked                 uint32 // of a listener: connections that wait to be accepted
	sacked                  uint32 // of a listener: its backlog
	segmentsOut             uint32
}

func readInfo(fd int) (info, error) {
	t, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return info{}, fmt.Errorf("TCP_INFO: %w", err)
	}
	scales := (*[8]byte)(unsafe.Pointer(t))[6] // two fields of four bits
	return info{
		state: t.State, options: t.Options, sendScale: scales & 15, receiveScale: scales >> 4,
		unacked: t.Unacked, sacked: t.Sacked, segmentsOut: t.Segs_out,
	}, nil
}

// rebuildable are the states of a connection that can be rebuilt.
var rebuildable = map[uint8]dump.Tcp_State{
	stateEstablished: dump.Tcp_ESTABLISHED, stateFinWait1: dump.Tcp_FIN_WAIT, stateFinWait2: dump.Tcp_FIN_WAIT,
	stateCloseWait: dump.Tcp_CLOSE_WAIT, stateLastAck: dump.Tcp_LAST_ACK, stateClosing: dump.Tcp_CLOSING,
}

// read fills in what a socket has of its own.
func (c *conn) read(fd int) error {
	info, err := readInfo(fd)
	if err != nil {
		return err
	}
	t := &dump.Tcp{}
	c.record.Tcp = t
	if c.record.Local, err = socket.Local(fd); err != nil {
		return err
	}
	state, rebuilt := rebuildable[info.state]
	switch {
	case info.state == stateListen:
		t.State, t.Backlog, c.waiting = dump.Tcp_LISTEN, info.sacked, info.unacked
		return readMSS(fd, c.record)
	case info.state == stateClose || info.state == stateTimeWait:
		return readClosed(fd, c.record)
	case info.state == stateSynSent:
		t.State = dump.Tcp_SYN_SENT
		return inRepair(fd, c.record, func() (err error) {
			t.SendSeq, err = sequence(fd, linux.TCP_SEND_QUEUE)
			return err
		})
	case !rebuilt:
		return fmt.Errorf("state %d is not known", info.state)
	}
	t.State = state
	if c.record.Peer, err = socket.Peer(fd); err != nil {
		return err
	}
	t.Deaf = (t.State == dump.Tcp_ESTABLISHED || t.State == dump.Tcp_FIN_WAIT) && file.Poll(fd, unix.POLLRDHUP)&unix.POLLRDHUP != 0
	t.Sack, t.Timestamps = info.options&linux.TCPI_OPT_SACK != 0, info.options&linux.TCPI_OPT_TIMESTAMPS != 0
	t.WindowScaling = info.options&linux.TCPI_OPT_WSCALE != 0
	t.SendScale, t.ReceiveScale = uint32(info.sendScale), uint32(info.receiveScale)
	return inRepair(fd, c.record, func() error { return readConnection(fd, t) })
}

// readClosed reads a socket that has no connection: never had one, or has lost it.
func readClosed(fd int, s *dump.Socket) (err error) {
	t := s.Tcp
	events := file.Poll(fd, unix.POLLRDHUP)
	if events&unix.POLLRDHUP == 0 {
		return readMSS(fd, s)
	}
	if s.Peer, err = socket.LastPeer(fd, s.GetFamily()); err != nil {
		return err
	}
	t.State, t.Failed = dump.Tcp_DEAD, events&unix.POLLERR != 0
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return fmt.Errorf("SIOCINQ: %w", err)
	}
	if n > 0 && n < maxQueues {
		t.Received, err = peek(fd, n)
	}
	return err
}

// readMSS notes the maximum segment size that a socket is to offer, if that has been set.
func readMSS(fd int, s *dump.Socket) error {
	value := make([]byte, 4)
	if _, err := linux.Getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, value); err != nil {
		if s.GetProtocol() == unix.IPPROTO_MPTCP {
			return nil // does not have it
		}
		return fmt.Errorf("TCP_MAXSEG: %w", err)
	}
	const usual = 536 // TCP_MSS_DEFAULT of include/net/tcp.h
	if v := binary.NativeEndian.Uint32(value); v != usual && v != 0 {
		s.Options = append(s.Options, &dump.SockOpt{Level: unix.IPPROTO_TCP, Name: unix.TCP_MAXSEG, Value: value})
	}
	return nil
}

// inRepair does something with a socket in repair mode. Leaving it sends nothing, and forgets SO_REUSEADDR.
func inRepair(fd int, s *dump.Socket, do func() error) (err error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
		return fmt.Errorf("TCP_REPAIR: %w", err)
	}
	defer func() {
		lerr := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
		if lerr == nil {
			lerr = socket.Reuse(fd, s)
		}
		if lerr != nil {
			err = errors.Join(err, fmt.Errorf("leave TCP_REPAIR: %w", lerr))
		}
	}()
	return do()
}

func selectQueue(fd, queue int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return fmt.Errorf("TCP_REPAIR_QUEUE: %w", err)
	}
	return nil
}

// sequence selects a queue, and returns the sequence number behind it.
func sequence(fd, queue int) (uint32, error) {
	if err := selectQueue(fd, queue); err != nil {
		return 0, err
	}
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	if err != nil {
		return 0, fmt.Errorf("TCP_QUEUE_SEQ: %w", err)
	}
	return uint32(v), nil
}

// finSent and finReceived tell whether a FIN counts in the kernel's sequence numbers.
func finSent(s dump.Tcp_State) bool {
	return s == dump.Tcp_FIN_WAIT || s == dump.Tcp_LAST_ACK || s == dump.Tcp_CLOSING
}

func finReceived(s dump.Tcp_State) bool {
	return s == dump.Tcp_CLOSE_WAIT || s == dump.Tcp_LAST_ACK || s == dump.Tcp_CLOSING
}

// readConnection reads a connection in repair mode.
func readConnection(fd int, t *dump.Tcp) error {
	if err := readReceived(fd, t); err != nil {
		return fmt.Errorf("receive queue: %w", err)
	}
	if err := readSent(fd, t); err != nil {
		return fmt.Errorf("send queue: %w", err)
	}
	mss, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	if err != nil {
		return fmt.Errorf("TCP_MAXSEG: %w", err)
	}
	t.Mss = uint32(mss)
	stamp, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
	if err != nil {
		return fmt.Errorf("TCP_TIMESTAMP: %w", err)
	}
	t.Timestamp = uint32(stamp)
	var w linux.TCPRepairWindow
	if _, err := linux.Getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, windowBytes(&w)); err != nil {
		return fmt.Errorf("TCP_REPAIR_WINDOW: %w", err)
	}
	if int32(w.RcvWup-t.ReceiveSeq) > 0 { // it counts a FIN
		w.RcvWup = t.ReceiveSeq
	}
	t.Window = &dump.TcpWindow{SendWl1: w.SndWl1, Send: w.SndWnd, Max: w.MaxWindow, Receive: w.RcvWnd, ReceiveWup: w.RcvWup}
	return nil
}

func windowBytes(w *linux.TCPRepairWindow) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func readReceived(fd int, t *dump.Tcp) error {
	seq, err := sequence(fd, linux.TCP_RECV_QUEUE)
	if err != nil {
		return err
	}
	if finReceived(t.State) {
		seq--
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return fmt.Errorf("SIOCINQ: %w", err)
	}
	mark, err := unix.IoctlGetInt(fd, linux.SIOCATMARK)
	if err != nil {
		return fmt.Errorf("SIOCATMARK: %w", err)
	}
	t.ReceiveSeq, t.Received, t.Urgent = seq, nil, 0
	if n > 0 || mark != 0 {
		return readWithMark(fd, t)
	}
	return nil
}

// readWithMark reads a receive queue in which there may be an urgent byte: each read ends at that, and but for SO_OOBINLINE the next
// one passes over it.
func readWithMark(fd int, t *dump.Tcp) (err error) {
	inline, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
	if err != nil {
		return fmt.Errorf("SO_OOBINLINE: %w", err)
	}
	offset, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil {
		return fmt.Errorf("SO_PEEK_OFF: %w", err)
	}
	put := func(inline, offset int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, inline),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, offset))
	}
	defer func() { err = errors.Join(err, put(inline, offset)) }()
	if err := put(1, 0); err != nil {
		return fmt.Errorf("read it piece by piece: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ) // inline: of the whole queue
	if err != nil {
		return fmt.Errorf("SIOCINQ: %w", err)
	}
	if n > maxQueues {
		return fmt.Errorf("%d bytes in it", n)
	}
	atMark, err := unix.IoctlGetInt(fd, linux.SIOCATMARK)
	if err != nil {
		return fmt.Errorf("SIOCATMARK: %w", err)
	}
	if atMark != 0 {
		t.Urgent = 1
	}
	for len(t.Received) < n {
		data, err := peek(fd, n-len(t.Received))
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return fmt.Errorf("%d bytes of %d", len(t.Received), n)
		}
		if len(t.Received) > 0 && t.Urgent == 0 {
			t.Urgent = uint32(len(t.Received)) + 1
		}
		t.Received = append(t.Received, data...)
	}
	if len(t.Received) == 0 { // the mark is at a byte that has not come
		t.Urgent = 0
	}
	t.UrgentRead = t.Urgent != 0 && file.Poll(fd, unix.POLLPRI)&unix.POLLPRI == 0
	return nil
}

func readSent(fd int, t *dump.Tcp) error {
	seq, err := sequence(fd, linux.TCP_SEND_QUEUE)
	if err != nil {
		return err
	}
	queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return fmt.Errorf("SIOCOUTQ: %w", err)
	}
	unsent, err := unix.IoctlGetInt(fd, linux.SIOCOUTQNSD)
	if err != nil {
		return fmt.Errorf("SIOCOUTQNSD: %w", err)
	}
	if finSent(t.State) {
		seq--
		queued, unsent = max(0, queued-1), max(0, unsent-1)
	}
	t.SendSeq, t.Sent, t.Unsent = seq, nil, nil
	if queued == 0 {
		return nil
	}
	if queued > maxQueues {
		return fmt.Errorf("%d bytes in it", queued)
	}
	data, err := peek(fd, queued)
	if err != nil {
		return err
	}
	// What has been acknowledged meanwhile is not there any more.
	unsent = min(unsent, len(data))
	t.Sent, t.Unsent = data[:len(data)-unsent], data[len(data)-unsent:]
	return nil
}

// peek reads what is in a queue, at most n bytes.
func peek(fd, n int) ([]byte, error) {
	buf := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err == unix.EAGAIN {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("peek at %d bytes: %w", n, err)
	}
	return buf[:got], nil
}
