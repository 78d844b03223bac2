package object

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// defaultMaxPID is above the pids that every kernel gives (PID_MAX_DEFAULT, include/linux/threads.h).
const defaultMaxPID = 1 << 15

// peer is what SO_PEERCRED shows of the process that made a connection, or listened (unix(7)).
type peer struct {
	pid      int // 1 is the maker itself
	uid, gid uint32
}

// AskPeers asks a process whom its Unix sockets have at their other ends: only inside does the kernel tell the pid of a process
// that has ended. Sockets that have been asked for are passed over, as are those for which there is no room.
func (d *Descriptors) AskPeers(b *remote.Batch, p Proc) (answer func() error, err error) {
	fds, err := descriptors(p.Host)
	if err != nil {
		return nil, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	const room = 256 // for a call and what it answers
	answers := make(map[uint64]func() unix.Ucred)
	for _, fd := range fds {
		link, err := os.Readlink(handle{host: p.Host, fd: fd}.path("fd"))
		if err != nil {
			return nil, err
		}
		text, ok := strings.CutPrefix(link, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		if _, known := d.peers[inode]; !ok || err != nil || known || answers[inode] != nil || b.Room() < room {
			continue
		}
		at, read := space[unix.Ucred](b)
		answers[inode] = read
		size := b.Data([]byte{unix.SizeofUcred, 0, 0, 0})
		b.Try("get peer credentials", unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERCRED, at, size)
	}
	return func() error {
		for inode, read := range answers {
			d.peers[inode] = read().Pid
		}
		return nil
	}, nil
}

// peerPID returns the pid inside of a socket's peer, whose pid here is given; 0: it is not known.
func (d *Descriptors) peerPID(socket uint64, here int32) uint32 {
	if pid := d.inside(int(here)); pid != 0 {
		return uint32(pid)
	}
	return uint32(max(0, d.peers[socket]))
}

// peerOf returns what a socket is to show of its peer.
func (u *unixRestore) peerOf(sock *dump.UnixSocket) peer {
	return peer{u.known(sock.GetPeerPid()), sock.GetPeerUid(), sock.GetPeerGid()}
}

// known returns a pid; that of nobody in place of one that is not known.
func (u *unixRestore) known(pid uint32) int {
	if pid != 0 {
		return int(pid)
	}
	if u.nobody == 0 {
		u.nobody = defaultMaxPID
		for used := true; used; {
			u.nobody--
			_, process := u.set.Processes[uint64(u.nobody)]
			_, thread := u.set.Threads[uint64(u.nobody)]
			used = process || thread
		}
	}
	return u.nobody
}

// holder returns the process that has a socket, which is connected but not accepted: it is taken for the one that connected.
func (u *unixRestore) holder(socket uint64) peer {
	for _, pid := range sortedIDs(u.set.Processes) {
		for _, fd := range u.set.FdTables[u.set.Processes[pid].GetFdTable()].GetFds() {
			if u.set.Files[fd.GetFile()].GetUnixSocket() == socket {
				creds := u.set.Threads[pid].GetCreds()
				return peer{int(pid), creds.GetEuid(), creds.GetEgid()}
			}
		}
	}
	return peer{pid: u.known(0)}
}

// as runs calls as the process that SO_PEERCRED is to show to the peer: a child with its pid, which no process has yet, and
// its ids. Rights over files stay root's. The results are in the batch that is returned.
func (u *unixRestore) as(p peer, calls func(b *remote.Batch)) *remote.Batch {
	if p.pid == 1 || u.m.Child == nil {
		b := u.s.Room(4096)
		p.become(b, calls)
		return b
	}
	return u.s.Child(u.m.Child, p.pid, func(b *remote.Batch) { p.become(b, calls) })
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
