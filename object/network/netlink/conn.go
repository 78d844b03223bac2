// Package netlink talks to the kernel by netlink sockets (netlink(7)) of a namespace, raw: what it says is kept whole.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket. It belongs to one goroutine.
type Conn struct {
	file *os.File
	seq  uint32
	no   string   // why nothing else may be done than
	may  []uint16 // these kinds of requests; "": everything may be
	buf  []byte
}

// maxDatagram is more than the kernel puts in a datagram: it makes those of a dump as large as the reader's buffer, at most 32 KiB.
const maxDatagram = 64 << 10

// Open opens a socket of a protocol (NETLINK_ROUTE) in the network namespace of the calling thread.
func Open(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("netlink socket of protocol %d: %w", protocol, err)
	}
	return New(os.NewFile(uintptr(fd), "netlink"))
}

// New talks by a socket that somebody else has opened: what may be asked by it is what both may. The Conn owns it, after an error
// too. It is bound here, if it is not.
func New(f *os.File) (*Conn, error) {
	c := &Conn{file: f, buf: make([]byte, maxDatagram)}
	for option, name := range map[int]string{unix.NETLINK_EXT_ACK: "NETLINK_EXT_ACK", unix.NETLINK_CAP_ACK: "NETLINK_CAP_ACK"} {
		if err := unix.SetsockoptInt(c.fd(), unix.SOL_NETLINK, option, 1); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := unix.Bind(c.fd(), &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil && !errors.Is(err, unix.EINVAL) {
		c.Close()
		return nil, fmt.Errorf("bind netlink socket: %w", err)
	}
	return c, nil
}

func (c *Conn) fd() int { return int(c.file.Fd()) }

// Close closes the socket.
func (c *Conn) Close() { c.file.Close() }

// Message is one of the kernel's.
type Message struct {
	Type uint16
	Body []byte // valid until the next is read
}

// Dump asks for all objects that a request stands for, and gives each message to f.
func (c *Conn) Dump(kind uint16, body []byte, f func(Message) error) error {
	c.seq++
	request := Pack(kind, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, c.seq, body)
	if err := unix.Sendto(c.fd(), request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink request: %w", err)
	}
	var first error
	err := c.receive(0, func(m Message) {
		if first == nil {
			first = f(m)
		}
	})
	if err != nil {
		return err
	}
	return first
}

// Do has the kernel do something. Its error is a [unix.Errno], with the kernel's own words if it has some.
func (c *Conn) Do(kind uint16, flags uint16, body []byte) error {
	return c.DoBy(func(message []byte) error {
		return unix.Sendto(c.fd(), message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}, kind, flags, body)
}

// DoBy is as Do, but somebody else sends the message by the socket: what it says is his word, ids of users are his.
func (c *Conn) DoBy(send func(message []byte) error, kind uint16, flags uint16, body []byte) error {
	if c.no != "" && !slices.Contains(c.may, kind) {
		return fmt.Errorf("%w: %s", unix.EPERM, c.no)
	}
	c.seq++
	if err := send(Pack(kind, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags, c.seq, body)); err != nil {
		return fmt.Errorf("netlink request: %w", err)
	}
	return c.receive(0, func(Message) {})
}

// Forbid lets the Conn do nothing, for a reason, but some kinds of requests.
func (c *Conn) Forbid(why string, but ...uint16) { c.no, c.may = why, but }

// Drain reads what the kernel has answered to messages that somebody else has sent by the socket, and returns the first error.
func (c *Conn) Drain() error {
	var first error
	for {
		err := c.receive(unix.MSG_DONTWAIT, func(Message) {})
		switch {
		case errors.Is(err, unix.EAGAIN):
			return first
		case err != nil && first == nil:
			first = err
		}
	}
}

// Grow makes room for a request of n bytes that somebody else sends by the socket, and for the errors that it may bring.
func (c *Conn) Grow(n int) error {
	for option, name := range map[int]string{unix.SO_SNDBUFFORCE: "SO_SNDBUFFORCE", unix.SO_RCVBUFFORCE: "SO_RCVBUFFORCE"} {
		if err := unix.SetsockoptInt(c.fd(), unix.SOL_SOCKET, option, n+maxDatagram); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Pack makes a message with its header (struct nlmsghdr).
func Pack(kind, flags uint16, seq uint32, body []byte) []byte {
	head := unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(body)), Type: kind, Flags: flags, Seq: seq}
	m := append((*[unix.SizeofNlMsghdr]byte)(unsafe.Pointer(&head))[:], body...)
	return append(m, make([]byte, -len(m)&3)...)
}

// receive reads up to the end of an answer.
func (c *Conn) receive(flags int, f func(Message)) error {
	for {
		n, _, err := unix.Recvfrom(c.fd(), c.buf, flags|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("netlink answer: %w", err)
		}
		if n > len(c.buf) {
			return fmt.Errorf("netlink answer of %d bytes", n)
		}
		for rest := c.buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
			if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(rest) {
				return fmt.Errorf("netlink message of %d bytes", h.Len)
			}
			body := rest[unix.SizeofNlMsghdr:h.Len]
			rest = rest[min(len(rest), int(h.Len+3)&^3):]
			switch h.Type {
			case unix.NLMSG_NOOP:
			case unix.NLMSG_DONE:
				return result(h.Flags, body)
			case unix.NLMSG_ERROR:
				return result(h.Flags, body)
			default:
				f(Message{h.Type, body})
			}
		}
	}
}

// result is what the end of an answer says: struct nlmsgerr, or an error number after a dump.
func result(flags uint16, body []byte) error {
	if len(body) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	if errno == 0 {
		return nil
	}
	const head = 4 + unix.SizeofNlMsghdr // the request's header comes too
	if flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > head {
		for a := range Attributes(body[head:]) {
			if a.Type == unix.NLMSGERR_ATTR_MSG {
				return fmt.Errorf("%w: %s", errno, unix.ByteSliceToString(a.Value))
			}
		}
	}
	return errno
}
