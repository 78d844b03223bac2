package unixsock

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/linux"
)

const stateListen = 10 // TCP_LISTEN of include/net/tcp_states.h

// unixDiag is what sock_diag(7) tells of a Unix socket.
type unixDiag struct {
	ino            uint64 // 0: a connection that nobody has accepted yet
	state          uint8
	shutdown       uint8
	name           []byte
	fileIno        uint32 // of the socket file
	connected      bool
	peer           uint64 // 0: gone, or not accepted yet
	pending        []uint64
	received, sent uint32
}

// readUnixDiag lists the Unix sockets of the calling thread's network namespace.
func readUnixDiag() ([]*unixDiag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	defer unix.Close(fd)
	request := struct {
		unix.NlMsghdr
		linux.UnixDiagReq
	}{
		unix.NlMsghdr{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP},
		linux.UnixDiagReq{Family: unix.AF_UNIX, States: ^uint32(0), Show: linux.UDIAG_SHOW_NAME | linux.UDIAG_SHOW_VFS |
			linux.UDIAG_SHOW_PEER | linux.UDIAG_SHOW_ICONS | linux.UDIAG_SHOW_RQLEN},
	}
	request.Len = uint32(unsafe.Sizeof(request))
	data := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	if err := unix.Sendto(fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("sock_diag request: %w", err)
	}
	var list []*unixDiag
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("sock_diag answer: %w", err)
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
			if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(rest) {
				return nil, fmt.Errorf("sock_diag answer of %d bytes", h.Len)
			}
			body := rest[unix.SizeofNlMsghdr:h.Len]
			switch h.Type {
			case unix.NLMSG_DONE:
				return list, nil
			case unix.NLMSG_ERROR:
				return nil, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
			case unix.SOCK_DIAG_BY_FAMILY:
				list = append(list, parseUnixDiag(body))
			}
			rest = rest[min(len(rest), align4(int(h.Len))):]
		}
	}
}

func align4(n int) int { return (n + 3) &^ 3 }

func parseUnixDiag(body []byte) *unixDiag {
	m := (*linux.UnixDiagMsg)(unsafe.Pointer(&body[0]))
	u := &unixDiag{ino: uint64(m.Ino), state: m.State}
	attrs := body[unsafe.Sizeof(*m):]
	for len(attrs) >= 4 {
		length, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if length < 4 || length > len(attrs) {
			return u
		}
		value := attrs[4:length]
		word := func(i int) uint32 { return binary.NativeEndian.Uint32(value[4*i:]) }
		switch {
		case kind == linux.UNIX_DIAG_NAME:
			u.name = bytes.Clone(value)
			if len(value) > 0 && value[0] != 0 {
				u.name, _, _ = bytes.Cut(u.name, []byte{0})
			}
		case kind == linux.UNIX_DIAG_VFS && len(value) >= 8:
			u.fileIno = word(0)
		case kind == linux.UNIX_DIAG_PEER && len(value) >= 4:
			u.connected, u.peer = true, uint64(word(0))
		case kind == linux.UNIX_DIAG_ICONS:
			for i := range len(value) / 4 {
				u.pending = append(u.pending, uint64(word(i)))
			}
		case kind == linux.UNIX_DIAG_RQLEN && len(value) >= 8:
			u.received, u.sent = word(0), word(1)
		case kind == linux.UNIX_DIAG_SHUTDOWN && len(value) >= 1:
			u.shutdown = value[0]
		}
		attrs = attrs[min(len(attrs), align4(length)):]
	}
	return u
}

// received is what recvmsg(2) gave.
type received struct {
	size    int
	control []byte
	from    []byte // sun_path of the sender, nil for none
}

// recvmsg is recvmsg(2) for Unix sockets. Names may hold NULs, which no Go API for addresses lets through.
func recvmsg(fd int, buf, control []byte, flags int) (received, error) {
	var from unix.RawSockaddrUnix
	iov := unix.Iovec{Base: unsafe.SliceData(buf)}
	iov.SetLen(len(buf))
	h := unix.Msghdr{
		Name: (*byte)(unsafe.Pointer(&from)), Namelen: uint32(unsafe.Sizeof(from)), Iov: &iov, Control: unsafe.SliceData(control),
	}
	h.SetIovlen(1)
	h.SetControllen(len(control))
	for {
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), uintptr(flags))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return received{}, errno
		}
		got := received{size: int(n), control: control[:h.Controllen]}
		if h.Namelen > 2 {
			got.from = socketName(from, int(h.Namelen))
		}
		return got, nil
	}
}

// socketName is the name in an address of the given length: a path, or NUL and any bytes.
func socketName(a unix.RawSockaddrUnix, length int) []byte {
	name := make([]byte, length-2)
	for i := range name {
		name[i] = byte(a.Path[i])
	}
	if name[0] != 0 {
		name, _, _ = bytes.Cut(name, []byte{0})
	}
	return name
}
