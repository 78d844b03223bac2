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
	mem   []byte
	fd    int          // the maker's, and so its children's
	pid   int          // of the maker, inside
	views map[int]view // where processes have it mapped, by their pids
}

// view is a mapping of the box in a process.
type view struct {
	page  *remote.Page
	pidfd int
	at    uint64
}

// maker is the pid by which the maker's own view is found: its children that live for a moment have it too.
const maker = 1

// view returns where a process has the box mapped.
func (box *postBox) view(ctx context.Context, pid int, page *remote.Page, pidfd int) (uint64, error) {
	if v, ok := box.views[pid]; ok {
		return v.at, nil
	}
	b := page.Batch()
	mapped := b.Call("map messages", unix.SYS_MMAP, 0, len(box.mem), unix.PROT_READ, unix.MAP_SHARED, box.fd, 0)
	if err := b.Run(ctx, pidfd); err != nil {
		return 0, err
	}
	at, err := b.Value(mapped)
	if err != nil {
		return 0, err
	}
	box.views[pid] = view{page, pidfd, uint64(at)}
	return uint64(at), nil
}

// fold unmaps the box everywhere.
func (box *postBox) fold(ctx context.Context) error {
	for _, v := range box.views {
		b := v.page.Batch()
		b.Call("unmap messages", unix.SYS_MUNMAP, v.at, len(box.mem))
		if err := b.Run(ctx, v.pidfd); err != nil {
			return err
		}
	}
	return nil
}

// Born sends what was in the sockets' queues, and then ends what had ended. All processes have been born and have the
// maker's descriptors still, so that each sends what the kernel is to know it as the sender of.
func (u *restorer) Born(ctx context.Context, stubs file.Stubs) error {
	u.s, u.stubs = u.Maker().Page.Script(ctx, u.Maker().PidFD), stubs
	ids := object.SortedIDs(u.Set().UnixSockets)
	if u.box != nil {
		for _, id := range ids {
			u.s.About("queue of socket %d", id)
			if err := u.fillSocket(ctx, u.Set().UnixSockets[id]); err != nil {
				return file.Named(fmt.Sprintf("queue of socket %d", id), err)
			}
		}
		if err := u.s.Run(); err != nil {
			return err
		}
		if err := u.box.fold(ctx); err != nil {
			return err
		}
	}
	for _, fd := range append(object.Sorted(u.temps), u.gone...) {
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

// Finish makes ready for [restorer.Born].
func (u *restorer) Finish(ctx context.Context, _ *remote.Script) error { return u.openBox(ctx) }

// openBox makes a post box in which the largest message fits, if there is any.
func (u *restorer) openBox(ctx context.Context) error {
	largest, messages := 0, false
	count := func(queue []*dump.Message) {
		for _, m := range queue {
			largest, messages = max(largest, len(m.GetData())), true
		}
	}
	for _, sock := range u.Set().UnixSockets {
		count(sock.GetQueue())
		for _, c := range sock.GetWaiting() {
			count(c.GetQueue())
		}
	}
	if !messages {
		return nil
	}
	status, err := object.ReadStatus(u.PID())
	if err != nil {
		return err
	}
	box := &postBox{fd: u.Stage(), views: make(map[int]view)}
	box.pid, _, _ = status.Inside()
	size := max(1, (largest+4095)/4096) * 4096
	fd, err := unix.MemfdCreate("vps-messages", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vps-messages")
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	if err := u.s.Run(); err != nil {
		return err
	}
	if err := u.Maker().Give(ctx, f, box.fd); err != nil {
		return err
	}
	if box.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map messages: %w", err)
	}
	u.box = box
	return nil
}

// fillSocket has sent to a socket what is to lie in its queue, and to what waits at it.
func (u *restorer) fillSocket(ctx context.Context, sock *dump.UnixSocket) error {
	err := u.fill(ctx, sock.GetQueue(), func(m *dump.Message) (int, *dump.UnixSocket, bool, error) { return u.sender(sock, m) })
	for i, c := range sock.GetWaiting() {
		if err == nil {
			err = u.fill(ctx, c.GetQueue(), func(*dump.Message) (int, *dump.UnixSocket, bool, error) {
				return u.waiting[sock.GetId()][i], nil, false, nil
			})
		}
	}
	return err
}

// fill has the messages of a queue sent; sender finds for each the descriptor, as [restorer.sender] does.
func (u *restorer) fill(ctx context.Context, queue []*dump.Message, sender func(*dump.Message) (int, *dump.UnixSocket, bool, error)) error {
	size := 0
	for _, m := range queue {
		size += len(m.GetData()) + 4096
	}
	for _, m := range queue {
		fd, to, temporary, err := sender(m)
		if err != nil {
			return err
		}
		if size > normalBuffer {
			if err := u.force(fd, unix.SO_SNDBUFFORCE, size); err != nil {
				return fmt.Errorf("make room for messages: %w", err)
			}
			u.enlarged[fd] = true
		}
		copy(u.box.mem, m.GetData())
		var at spot
		var name []byte
		if to != nil {
			at, name = u.target(to)
		}
		if err := u.post(ctx, fd, at, name, m); err != nil {
			return err
		}
		if temporary {
			u.s.Call("close", unix.SYS_CLOSE, fd)
			delete(u.enlarged, fd)
		}
	}
	return nil
}

// post lets the sender of the message in the box send it, if it lives, or else one with its pid.
func (u *restorer) post(ctx context.Context, fd int, at spot, name []byte, m *dump.Message) error {
	who := object.Author{PID: maker}
	if m.GetHasCreds() {
		who.PID = u.Set().Known(m.GetPid())
	}
	page, pidfd := u.stubs(who.PID)
	living := page != nil && who.PID != maker && at == (spot{})
	pid := who.PID
	if !living {
		pid, page, pidfd = maker, u.Maker().Page, u.Maker().PidFD
		if err := u.s.Run(); err != nil {
			return err
		}
	}
	text, err := u.box.view(ctx, pid, page, pidfd)
	if err != nil {
		return err
	}
	var result remote.Result
	send := func(b *remote.Batch) { result = u.send(b, fd, name, text, m) }
	var b *remote.Batch
	if living {
		b = page.Batch()
		send(b)
		err = b.Run(ctx, pidfd)
	} else {
		u.enter(at)
		b = u.as(who, send)
		err = u.s.Run()
	}
	if err != nil {
		return err
	}
	n, err := b.Value(result)
	u.leave(at)
	if err == nil && int(n) != len(m.GetData()) {
		err = fmt.Errorf("send %d bytes: %w", len(m.GetData()), io.ErrShortWrite)
	}
	return err
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

// send adds the sendmsg(2) of the message in the box, which lies at text, by one with the pid of its sender.
func (u *restorer) send(b *remote.Batch, fd int, to []byte, text uint64, m *dump.Message) remote.Result {
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
		pid := u.box.pid
		if u.Maker().Child != nil {
			pid = u.Set().Known(m.GetPid())
		}
		var creds []byte // struct ucred
		for _, v := range []uint32{uint32(pid), m.GetUid(), m.GetGid()} {
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
	iov := b.Words(text, uint64(len(m.GetData())))
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
		u.connect(fd, other, object.Author{PID: 1}) // nobody sees by whom
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
