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

// defaultMaxPID is above the pids that every kernel gives (PID_MAX_DEFAULT, include/linux/threads.h).
const defaultMaxPID = 1 << 15

// peer is what SO_PEERCRED shows of the process that made a connection, or listened (unix(7)).
type peer struct {
	pid      int // 1 is the maker itself
	uid, gid uint32
}

// Ask asks a process whom its Unix sockets have at their other ends: only inside does the kernel tell the pid of a process
// that has ended. Sockets that have been asked for are passed over, as are those for which there is no room.
func (d *dumper) Ask(b *remote.Batch, links []file.Link) (answer func()) {
	const room = 256 // for a call and what it answers
	answers := make(map[uint64]func() unix.Ucred)
	for _, l := range links {
		text, ok := strings.CutPrefix(l.Text, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		if !ok || err != nil {
			continue
		}
		d.handles[inode] = l.Handle
		if _, known := d.peers[inode]; known || answers[inode] != nil || b.Room() < room {
			continue
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
	}
}

// peerPID returns the pid inside of a socket's peer, whose pid here is given; 0: it is not known.
func (d *dumper) peerPID(socket uint64, here int32) uint32 {
	if pid := d.Inside(int(here)); pid != 0 {
		return uint32(pid)
	}
	return uint32(max(0, d.peers[socket]))
}

// peerOf returns what a socket is to show of its peer.
func (u *restorer) peerOf(sock *dump.UnixSocket) peer {
	return peer{u.known(sock.GetPeerPid()), sock.GetPeerUid(), sock.GetPeerGid()}
}

// known returns a pid; that of nobody in place of one that is not known.
func (u *restorer) known(pid uint32) int {
	if pid != 0 {
		return int(pid)
	}
	if u.nobody == 0 {
		u.nobody = defaultMaxPID
		for used := true; used; {
			u.nobody--
			_, process := u.Set().Processes[uint64(u.nobody)]
			_, thread := u.Set().Threads[uint64(u.nobody)]
			used = process || thread
		}
	}
	return u.nobody
}

// holder returns the process that has a socket, which is connected but not accepted: it is taken for the one that connected, if that is not known.
func (u *restorer) holder(socket uint64) peer {
	for _, pid := range object.SortedIDs(u.Set().Processes) {
		for _, fd := range u.Set().FdTables[u.Set().Processes[pid].GetFdTable()].GetFds() {
			if u.Set().Files[fd.GetFile()].GetUnixSocket() == socket {
				creds := u.Set().Threads[pid].GetCreds()
				return peer{int(pid), creds.GetEuid(), creds.GetEgid()}
			}
		}
	}
	return peer{pid: u.known(0)}
}

// as runs calls as the process that SO_PEERCRED is to show to the peer: a child with its pid, which no process has yet, and
// its ids. Rights over files stay root's. The results are in the batch that is returned.
func (u *restorer) as(p peer, calls func(b *remote.Batch)) *remote.Batch {
	if p.pid == 1 || u.Maker().Child == nil {
		b := u.s.Room(4096)
		p.become(b, calls)
		return b
	}
	return u.s.Child(u.Maker().Child, p.pid, func(b *remote.Batch) { p.become(b, calls) })
}

// become runs calls under the ids of a peer.
func (p peer) become(b *remote.Batch, calls func(b *remote.Batch)) {
	if p.uid == 0 && p.gid == 0 {
		calls(b)
		return
	}
	const same = ^uint32(0)
	b.Try("become group of peer", unix.SYS_SETRESGID, same, p.gid, same)
	b.Try("become user of peer", unix.SYS_SETRESUID, same, p.uid, same)
	b.Try("keep rights over files", unix.SYS_SETFSUID, 0)
	calls(b)
	b.Call("become root", unix.SYS_SETRESUID, same, 0, same)
	b.Call("become group 0", unix.SYS_SETRESGID, same, 0, same)
	b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}
