package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a connection.
type peer struct {
	pid, uid int
	pidfd    *os.File
}

type peerKey struct{}

// peerOf returns the peer of the connection that a request came on.
func peerOf(ctx context.Context) *peer {
	p, _ := ctx.Value(peerKey{}).(*peer)
	return p
}

// listener accepts connections of those who may manage the host: root, and whoever the daemon runs as.
type listener struct {
	*net.UnixListener
	path string
	lock *os.File
	once sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := newPeer(c)
		if err != nil {
			slog.Warn("connection refused", "err", err)
			c.Close()
			continue
		}
		return &conn{UnixConn: c, peer: p}, nil
	}
}

// Close stops listening. Connections go on.
func (l *listener) Close() error {
	var err error
	l.once.Do(func() { err = errors.Join(os.Remove(l.path), l.UnixListener.Close(), l.lock.Close()) })
	return err
}

type conn struct {
	*net.UnixConn
	peer *peer
	once sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { c.peer.pidfd.Close() })
	return c.UnixConn.Close()
}

func newPeer(c *net.UnixConn) (*peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var p *peer
	if e := raw.Control(func(fd uintptr) { p, err = peerOfSocket(int(fd)) }); e != nil {
		return nil, e
	}
	return p, err
}

func peerOfSocket(fd int) (*peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("credentials of peer: %w", err)
	}
	if uid := int(cred.Uid); uid != 0 && uid != os.Geteuid() {
		return nil, fmt.Errorf("peer %d has uid %d: %w", cred.Pid, uid, unix.EPERM)
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == unix.ENOPROTOOPT {
		pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of peer %d: %w", cred.Pid, err)
	}
	return &peer{pid: int(cred.Pid), uid: int(cred.Uid), pidfd: os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

// descriptor takes a copy of one of the peer's descriptors, pidfd_getfd(2), so that what goes to a file or a pipe
// of the client's never passes through the connection.
func (p *peer) descriptor(fd int) (int, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("pidfd of process %d: %w", p.pid, err)
	}
	var n int
	if e := raw.Control(func(pidfd uintptr) { n, err = unix.PidfdGetfd(int(pidfd), fd, 0) }); e != nil {
		err = e
	}
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d of process %d: %w", fd, p.pid, err)
	}
	return n, nil
}
