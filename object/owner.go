package object

import (
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// SetOwner lets an open file send its signals to an owner; to nobody, if that has ended: who has never comes back.
func SetOwner(s *remote.Script, fd int, owner *dump.Owner) {
	b := s.Room(512)
	b.Try("F_SETOWN_EX", unix.SYS_FCNTL, fd, unix.F_SETOWN_EX, b.Words(uint64(owner.GetPid())<<32|uint64(uint32(owner.GetType()))))
}
