package socket

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
)

// isNumber tells whether the value is looked at here.
func (o *option) isNumber() bool { return o.flags&halved != 0 || o.isBufLock() }

func (o *option) isBufLock() bool { return o.level == unix.SOL_SOCKET && o.get == unix.SO_BUF_LOCK }

// setting is an option with a value.
type setting struct {
	option *option
	value  []byte
}

// readOptions reads all options that a socket has.
func readOptions(fd int, stream bool) []setting {
	buf := make([]byte, maxOption)
	var list []setting
	for i := range options {
		o := &options[i]
		if stream && o.flags&messages != 0 || o.flags&special != 0 {
			continue
		}
		if n, err := linux.Getsockopt(fd, o.level, o.get, buf); err == nil {
			list = append(list, setting{o, bytes.Clone(buf[:n])})
		}
	}
	return list
}

// options reads the options of a socket that a new one of its kind does not have.
func (n *Namespace) options(fd int, s *dump.Socket) []*dump.SockOpt {
	var list []*dump.SockOpt
	var buf [maxOption]byte
	for _, u := range n.usual[kindOf(s)] {
		size, err := linux.Getsockopt(fd, u.option.level, u.option.get, buf[:])
		if err != nil || bytes.Equal(buf[:size], u.value) {
			continue // not in this state
		}
		list = append(list, &dump.SockOpt{Level: int32(u.option.level), Name: int32(u.option.get), Value: bytes.Clone(buf[:size])})
	}
	return list
}

// Stage is when an option is set.
type Stage optionFlags

// The stages: before bind(2) and connect(2), after them, and when the socket is as it was in all else.
const (
	Early  = Stage(early)
	Middle = Stage(0)
	Last   = Stage(last)
)

// byNumber finds options by level and number.
var byNumber = func() map[[2]int32]*option {
	m := make(map[[2]int32]*option, len(options))
	for i := range options {
		m[[2]int32{int32(options[i].level), int32(options[i].get)}] = &options[i]
	}
	return m
}()

// checkOptions refuses options that cannot be set, and puts them into the order of setting. allowed are the capabilities that the
// instance may have.
func checkOptions(s *dump.Socket, allowed uint64) error {
	for _, o := range s.GetOptions() {
		known := byNumber[[2]int32{o.GetLevel(), o.GetName()}]
		switch {
		case known == nil:
			return fmt.Errorf("socket option %d of level %d: %w", o.GetName(), o.GetLevel(), object.ErrUnsupported)
		case len(o.GetValue()) > maxOption || known.isNumber() && len(o.GetValue()) != 4:
			return fmt.Errorf("%s of %d bytes", known.name, len(o.GetValue()))
		case known.flags&admin != 0 && allowed&(1<<unix.CAP_NET_ADMIN) == 0:
			return fmt.Errorf("%s takes CAP_NET_ADMIN, which the instance may not have", known.name)
		}
	}
	return nil
}

// Apply sets the options of a stage. The record has been checked.
func Apply(fd int, s *dump.Socket, stage Stage) error {
	buffers, locked := false, make([]byte, 4)
	for _, o := range s.GetOptions() {
		known := byNumber[[2]int32{o.GetLevel(), o.GetName()}]
		if Stage(known.flags&(early|last)) != stage {
			continue
		}
		value := o.GetValue()
		switch {
		case known.isBufLock():
			locked = value
			continue
		case known.flags&halved != 0:
			buffers = true
			size := binary.NativeEndian.Uint32(value)
			if err := SetBuffer(fd, known.get, int(min(size/2, MaxBuffer))); err != nil {
				return err
			}
			continue
		}
		if err := linux.Setsockopt(fd, known.level, known.get, value); err != nil {
			return fmt.Errorf("set %s: %w", known.name, err)
		}
	}
	if stage == Last && (buffers || binary.NativeEndian.Uint32(locked) != 0) {
		return lockBuffers(fd, locked)
	}
	return nil
}

// lockBuffers says which buffers keep their size.
func lockBuffers(fd int, locked []byte) error {
	var now [4]byte
	if _, err := linux.Getsockopt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, now[:]); err == nil && bytes.Equal(now[:], locked) {
		return nil // MPTCP sockets only let it be read
	}
	if err := linux.Setsockopt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, locked); err != nil {
		return fmt.Errorf("set SO_BUF_LOCK: %w", err)
	}
	return nil
}

// MaxBuffer bounds the size of buffers, half of what SO_RCVBUF shows: what a snapshot may ask for beyond the host's limits.
const MaxBuffer = 16 << 20

// SetBuffer sets SO_RCVBUF or SO_SNDBUF to twice the size, beyond the host's limit for users.
func SetBuffer(fd, which, size int) error {
	name, force := "SO_RCVBUF", unix.SO_RCVBUFFORCE
	if which == unix.SO_SNDBUF {
		name, force = "SO_SNDBUF", unix.SO_SNDBUFFORCE
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size)
	if err == unix.EPERM { // not with rights in the initial user namespace: as far as it goes
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, which, size)
	}
	if err != nil {
		return fmt.Errorf("set %s to %d: %w", name, size, err)
	}
	return nil
}
