// Package object has what all kinds of kernel objects have in common. The kinds are in the packages below it, one noun
// each: its record, how it is dumped, how it is restored. None of them is imported here.
//
// Dumping reads from outside, on copies taken by pidfd_getfd and in /proc, while every task of the instance is stopped.
// Restoring makes an object equal to its record: in the instance's [Maker] where the object carries its opener's
// credentials, pid or mount, by us where it does not care. What cannot be dumped is a [Refusal], found by a probe
// before anything is stopped.
package object

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
)

// ErrUnsupported is the class of everything that cannot be dumped.
var ErrUnsupported = errors.New("not supported")

// ErrBusy is the class of refusals that are likely to be gone when the instance has run a moment longer.
var ErrBusy = errors.New("busy")

// ErrChanged is the class of errors about files that are not what they were at the time of the snapshot.
var ErrChanged = errors.New("changed since the snapshot")

// Refusal names what stands in the way of a snapshot.
type Refusal struct {
	PID    int    `json:"pid"` // inside; 0: the instance itself
	Comm   string `json:"comm,omitempty"`
	FD     int    `json:"fd"`            // -1: not a descriptor
	Object string `json:"object"`        // "io_uring", "tmpfs mount /data"
	Why    string `json:"why,omitempty"` // default: is not supported
}

// Error reads as in "pid 214 (nginx) fd 9: io_uring is not supported".
func (r *Refusal) Error() string {
	var where []string
	if r.PID != 0 {
		where = append(where, fmt.Sprintf("pid %d (%s)", r.PID, r.Comm))
	}
	if r.FD >= 0 {
		where = append(where, fmt.Sprintf("fd %d", r.FD))
	}
	text := ""
	if where != nil {
		text = strings.Join(where, " ") + ": "
	}
	if r.Why == "" {
		return text + r.Object + " is not supported"
	}
	return text + r.Object + ": " + r.Why
}

// Is makes every refusal an [ErrUnsupported].
func (r *Refusal) Is(target error) bool { return target == ErrUnsupported }

// Sink takes the records and the contents of an instance that is being dumped.
type Sink interface {
	// Put writes a record; the type is that of the message.
	Put(id uint64, m proto.Message) error
	// Memory writes the content of a Memory record: size bytes of r, holes and zero pages left out.
	Memory(id uint64, r io.ReaderAt, size int64) error
}

// Proc is a process of the instance as the dump sees it.
type Proc struct {
	PID   int // inside
	Host  int // in our pid namespace
	Lead  int // a thread that shows what the process has, because its first one has ended; 0: the first one does
	PidFD int
	Comm  string

	Status *Status // when it was found
}

// Task is the thread by which /proc, kcmp(2) and pidfd_getfd(2) show what the process has.
func (p Proc) Task() int {
	if p.Lead != 0 {
		return p.Lead
	}
	return p.Host
}

// Content gives back the content of a Memory record.
type Content interface {
	// Fill writes the pages of Memory record id to w, at their offsets; what is not written is zero.
	Fill(id uint64, w io.WriterAt) error
}

// Set is the records of an instance that is to be restored, by id.
type Set struct {
	Instance    *dump.Instance
	Mounts      map[uint64]*dump.Mount
	Inodes      map[uint64]*dump.Inode
	Processes   map[uint64]*dump.Process
	Threads     map[uint64]*dump.Thread
	Mms         map[uint64]*dump.Mm
	FdTables    map[uint64]*dump.FdTable
	SigHands    map[uint64]*dump.SigHand
	Seccomps    map[uint64]*dump.Seccomp
	Files       map[uint64]*dump.File
	Pipes       map[uint64]*dump.Pipe
	UnixSockets map[uint64]*dump.UnixSocket
	Ttys        map[uint64]*dump.Tty
	Memories    map[uint64]*dump.Memory
	ShmSegments map[uint64]*dump.ShmSegment
	SemSets     map[uint64]*dump.SemSet
	MsgQueues   map[uint64]*dump.MsgQueue
	Mqueues     map[uint64]*dump.Mqueue
	Sockets     map[uint64]*dump.Socket
	Networks    map[uint64]*dump.Network
	Firewalls   map[uint64]*dump.Firewall
	TCPQueues   map[uint64]*dump.TcpQueue
}

// CheckPath refuses what no path of the kernel's can be.
func CheckPath(path string) error {
	if !strings.HasPrefix(path, "/") || len(path) >= unix.PathMax || strings.IndexByte(path, 0) >= 0 {
		return fmt.Errorf("file path %.100q is not valid", path)
	}
	return nil
}
