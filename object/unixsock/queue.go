package unixsock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// postBox is memory that we share with the maker: the message that it is to send lies there.
type postBox struct {
	mem []byte
	at  uint64 // its address in the maker
	pid int    // of the maker, inside
}

// Finish sends what was in the sockets' queues, and then ends what had ended.
func (u *restorer) Finish(ctx context.Context, _ *remote.Script) error {
	ids := object.SortedIDs(u.Set().UnixSockets)
	largest, any := 0, false
	for _, id := range ids {
		for _, m := range u.Set().UnixSockets[id].GetQueue() {
			largest, any = max(largest, len(m.GetData())), true
		}
	}
	if any {
		box, err := u.openBox(ctx, largest)
		if err != nil {
			return err
		}
		defer unix.Munmap(box.mem)
		for _, id := range ids {
			u.s.About("queue of socket %d", id)
			if err := u.fill(u.Set().UnixSockets[id], box); err != nil {
				return file.Named(fmt.Sprintf("queue of socket %d", id), err)
			}
		}
		u.s.Call("unmap messages", unix.SYS_MUNMAP, box.at, len(box.mem))
	}
	for _, fd := range object.Sorted(u.temps) {
		u.s.Call("close", unix.SYS_CLOSE, fd)
	}
	for _, id := range ids {
		u.s.About("socket %d", id)
		if err := u.finishSocket(u.Set().UnixSockets[id]); err != nil {
			return file.Named(fmt.Sprintf("socket %d", id), err)
		}
	}
	return u.s.Run()
}

// openBox makes a post box in which the largest message fits.
func (u *restorer) openBox(ctx context.Context, largest int) (*postBox, error) {
	status, err := object.ReadStatus(u.PID())
	if err != nil {
		return nil, err
	}
	box := &postBox{}
	box.pid, _, _ = status.Inside()
	size := max(1, (largest+4095)/4096) * 4096
	fd, err := unix.MemfdCreate("vps-messages", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vps-messages")
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	if err := u.s.Run(); err != nil {
		return nil, err
	}
	theirs := u.Stage()
	if err := u.Maker().Give(ctx, f, theirs); err != nil {
		return nil, err
	}
	b := u.s.Room(512)
	mapped := b.Call("map messages", unix.SYS_MMAP, 0, size, unix.PROT_READ, unix.MAP_SHARED, theirs, 0)
	b.Call("close", unix.SYS_CLOSE, theirs)
	if err := u.s.Run(); err != nil {
		return nil, err
	}
	at, err := b.Value(mapped)
	if err != nil {
		return nil, err
	}
	box.at = uint64(at)
	if box.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map messages: %w", err)
	}
	return box, nil
}

// fill lets the maker send to a socket what is to lie in its queue.
func (u *restorer) fill(sock *dump.UnixSocket, box *postBox) error {
	size := 0
	for _, m := range sock.GetQueue() {
		size += len(m.GetData()) + 4096
	}
	for _, m := range sock.GetQueue() {
		fd, to, temporary, err := u.sender(sock, m)
		if err != nil {
			return err
		}
		if size > normalBuffer {
			if err := u.force(fd, unix.SO_SNDBUFFORCE, size); err != nil {
				return fmt.Errorf("make room for messages: %w", err)
			}
			u.enlarged[fd] = true
		}
		copy(box.mem, m.GetData())
		var at spot
		var name []byte
		if to != nil {
			at, name = u.target(to)
		}
		u.enter(at)
		b := u.s.Room(2048 + 4*len(m.GetFiles()))
		result := u.send(b, fd, name, box, m)
		if err := u.s.Run(); err != nil {
			return err
		}
		if n, err := b.Value(result); err != nil {
			return err
		} else if int(n) != len(m.GetData()) {
			return fmt.Errorf("send %d bytes: %w", len(m.GetData()), io.ErrShortWrite)
		}
		u.leave(at)
		if temporary {
			u.s.Call("close", unix.SYS_CLOSE, fd)
			delete(u.enlarged, fd)
		}
	}
	return nil
}

// normalBuffer is less than what can be sent with the default SO_SNDBUF (socket(7)).
const normalBuffer = 64 << 10

// sender finds or makes the socket that sends a message. to is nil if it is connected to sock.
func (u *restorer) sender(sock *dump.UnixSocket, m *dump.Message) (fd int, to *dump.UnixSocket, temporary bool, err error) {
	if sock.GetType() != unix.SOCK_DGRAM || u.paired(sock) {
		if fd, ok := u.sockets[sock.GetPeer()]; ok {
			return fd, nil, false, nil
		}
		if fd, ok := u.temps[sock.GetId()]; ok {
			return fd, nil, false, nil
		}
		return -1, nil, false, errors.New("a message, but not connected")
	}
	if len(sock.GetName()) == 0 {
		return -1, nil, false, fmt.Errorf("a message for a socket without a name: %w", object.ErrUnsupported)
	}
	if fd, ok := u.sockets[sock.GetPeer()]; ok && len(m.GetFrom()) == 0 && len(u.Set().UnixSockets[sock.GetPeer()].GetName()) == 0 {
		return fd, sock, false, nil
	}
	for id, other := range u.Set().UnixSockets {
		if len(m.GetFrom()) > 0 && other.GetType() == unix.SOCK_DGRAM && string(other.GetName()) == string(m.GetFrom()) {
			return u.sockets[id], sock, false, nil
		}
	}
	if u.spare == 0 {
		u.spare = u.Stage()
	}
	u.socket(unix.SOCK_DGRAM, u.spare)
	if len(m.GetFrom()) > 0 {
		u.bindAside(m.GetFrom(), u.spare, 0)
	}
	return u.spare, sock, true, nil
}

// send adds the sendmsg(2) of the message in the box.
func (u *restorer) send(b *remote.Batch, fd int, to []byte, box *postBox, m *dump.Message) remote.Result {
	var control []byte
	add := func(kind int, data []byte) { // struct cmsghdr
		control = binary.LittleEndian.AppendUint64(control, uint64(16+len(data)))
		control = binary.LittleEndian.AppendUint32(control, unix.SOL_SOCKET)
		control = binary.LittleEndian.AppendUint32(control, uint32(kind))
		control = append(control, data...)
		control = append(control, make([]byte, -len(data)&7)...)
	}
	if len(m.GetFiles()) > 0 {
		var fds []byte
		for _, id := range m.GetFiles() {
			fd, _ := u.FD(id) // it has been checked
			fds = binary.LittleEndian.AppendUint32(fds, uint32(fd))
		}
		add(unix.SCM_RIGHTS, fds)
	}
	if m.GetHasCreds() {
		var creds []byte // struct ucred; the sender's pid may not exist yet, or any more
		for _, v := range []uint32{uint32(box.pid), m.GetUid(), m.GetGid()} {
			creds = binary.LittleEndian.AppendUint32(creds, v)
		}
		add(unix.SCM_CREDENTIALS, creds)
	}
	var name, controlAt remote.Address
	nameLen := 0
	if len(to) > 0 {
		name, nameLen = sockaddr(b, to)
	}
	if len(control) > 0 {
		controlAt = b.Data(control)
	}
	iov := b.Words(box.at, uint64(len(m.GetData())))
	header := b.Words(uint64(name), uint64(nameLen), uint64(iov), 1, uint64(controlAt), uint64(len(control)), 0) // struct msghdr
	return b.Call("sendmsg", unix.SYS_SENDMSG, fd, header, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// finishSocket gives a socket its options and what must come after its messages.
func (u *restorer) finishSocket(sock *dump.UnixSocket) error {
	fd := u.sockets[sock.GetId()]
	other := u.Set().UnixSockets[sock.GetPeer()]
	if other != nil && sock.GetType() == unix.SOCK_DGRAM && !u.paired(sock) {
		if len(other.GetName()) == 0 {
			return fmt.Errorf("connected to socket %d, which has no name: %w", other.GetId(), object.ErrUnsupported)
		}
		u.connect(fd, other, sock)
	}
	if u.enlarged[fd] {
		fresh, err := unix.Socket(unix.AF_UNIX, int(sock.GetType())|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		size, err := unix.GetsockoptInt(fresh, unix.SOL_SOCKET, unix.SO_SNDBUF)
		unix.Close(fresh)
		if err != nil {
			return fmt.Errorf("SO_SNDBUF: %w", err)
		}
		if err := u.force(fd, unix.SO_SNDBUFFORCE, size/2); err != nil {
			return fmt.Errorf("set SO_SNDBUF: %w", err)
		}
	}
	for _, o := range sock.GetOptions() {
		if err := u.setOption(fd, o); err != nil {
			return err
		}
	}
	if how := sock.GetShutdown() & 3; how != 0 {
		u.s.Call("shutdown", unix.SYS_SHUTDOWN, fd, how-1)
	}
	return nil
}

// force sets the size of a socket's buffer from outside: to go beyond the limit for users takes CAP_NET_ADMIN over the host.
func (u *restorer) force(fd, option, size int) error {
	if err := u.s.Run(); err != nil {
		return err
	}
	ours, err := unix.PidfdGetfd(u.Maker().PidFD, fd, 0)
	if err != nil {
		return fmt.Errorf("take descriptor %d of the maker: %w", fd, err)
	}
	defer unix.Close(ours)
	return unix.SetsockoptInt(ours, unix.SOL_SOCKET, option, size)
}

func (u *restorer) setOption(fd int, o *dump.SockOpt) error {
	for _, known := range restorableOptions {
		if o.GetLevel() != unix.SOL_SOCKET || int(o.GetName()) != known.name || len(o.GetValue()) != known.size {
			continue
		}
		if known.halve {
			if err := u.force(fd, known.set, int(binary.LittleEndian.Uint32(o.GetValue()))/2); err != nil {
				return fmt.Errorf("set socket option %d: %w", known.name, err)
			}
			return nil
		}
		b := u.s.Room(512)
		b.Call(fmt.Sprintf("set socket option %d", known.name), unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, known.set, b.Data(o.GetValue()), known.size)
		return nil
	}
	return fmt.Errorf("option %d of level %d: %w", o.GetName(), o.GetLevel(), object.ErrUnsupported)
}
