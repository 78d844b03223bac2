package unixsock

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// Ask asks a process whom its Unix sockets have at their other ends: only inside does the kernel tell the pid of a process
// that has ended. Sockets that have been asked for are passed over.
func (d *dumper) Ask(b *remote.Batch, links []file.Link) (answer func(), more bool) {
	const room = 16 << 10 // for a call, what it answers, and the signal frame of a batch
	answers := make(map[uint64]func() unix.Ucred)
	for _, l := range links {
		if l.Domain != unix.AF_UNIX {
			continue
		}
		text := strings.TrimPrefix(l.Text, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		if err != nil {
			continue
		}
		d.handles[inode] = l.Handle
		if _, known := d.peers[inode]; known || answers[inode] != nil {
			continue
		}
		if more = b.Room() < room; more {
			break
		}
		at, read := object.Space[unix.Ucred](b)
		answers[inode] = read
		size := b.Data([]byte{unix.SizeofUcred, 0, 0, 0})
		b.Try("get peer credentials", unix.SYS_GETSOCKOPT, l.Number(), unix.SOL_SOCKET, unix.SO_PEERCRED, at, size)
	}
	return func() {
		for inode, read := range answers {
			d.peers[inode] = read().Pid
		}
	}, more
}

// peerPID returns the pid inside of a socket's peer, whose pid here is given; 0: it is not known.
func (d *dumper) peerPID(socket uint64, here int32) uint32 {
	if pid, asked := d.peers[socket]; asked {
		return uint32(max(0, pid))
	}
	return uint32(d.Inside(int(here))) // which may be another's, if the peer has ended
}

// peerOf returns what a socket is to show of its peer.
func (u *restorer) peerOf(sock *dump.UnixSocket) object.Author {
	return object.Author{PID: u.Set().Known(sock.GetPeerPid()), UID: sock.GetPeerUid(), GID: sock.GetPeerGid()}
}

// holder returns the process that has a socket, which is connected but not accepted: it is taken for the one that connected,
// if that is not known.
func (u *restorer) holder(socket uint64) object.Author {
	for _, pid := range object.SortedIDs(u.Set().Processes) {
		for _, fd := range u.Set().FdTables[u.Set().Processes[pid].GetFdTable()].GetFds() {
			if u.Set().Files[fd.GetFile()].GetUnixSocket() == socket {
				creds := u.Set().Threads[pid].GetCreds()
				return object.Author{PID: int(pid), UID: creds.GetEuid(), GID: creds.GetEgid()}
			}
		}
	}
	return object.Author{PID: u.Set().Known(0)}
}

// as has calls made by the author of a connection.
func (u *restorer) as(a object.Author, calls func(b *remote.Batch)) *remote.Batch {
	return u.Maker().As(u.s, a, calls)
}
