package task

import (
	"encoding/binary"
	"fmt"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// Bits of the securebits flags (include/uapi/linux/securebits.h).
const (
	secureNoSetuidFixup = 1 << 2
	secureKeepCaps      = 1 << 4
)

// DumpCreds returns the credentials of a task, with the ids of its user namespace; [AskCreds] adds the rest.
func DumpCreds(s *object.Status, m object.IDMaps) (*dump.Creds, error) {
	var uids, gids [4]uint32
	groups := make([]uint32, len(s.Groups))
	var err error
	translate := func(to *uint32, id uint32, by func(uint32) (uint32, error)) {
		if err == nil {
			*to, err = by(id)
		}
	}
	for i := range uids {
		translate(&uids[i], s.UIDs[i], m.UID)
		translate(&gids[i], s.GIDs[i], m.GID)
	}
	for i := range groups {
		translate(&groups[i], s.Groups[i], m.GID)
	}
	if err != nil {
		pid, _, _ := s.Inside()
		return nil, fmt.Errorf("pid %d (%s): %w", pid, s.Name, err)
	}
	return &dump.Creds{
		Uid: uids[0], Euid: uids[1], Suid: uids[2], Fsuid: uids[3],
		Gid: gids[0], Egid: gids[1], Sgid: gids[2], Fsgid: gids[3],
		Groups:      groups,
		Inheritable: s.CapInh, Permitted: s.CapPrm, Effective: s.CapEff, Bounding: s.CapBnd, Ambient: s.CapAmb,
	}, nil
}

// AskCreds asks a thread for what /proc does not show of its credentials.
func AskCreds(b *remote.Batch) func(c *dump.Creds) error {
	bits := b.Call("get securebits", unix.SYS_PRCTL, unix.PR_GET_SECUREBITS)
	return func(c *dump.Creds) error {
		v, err := b.Value(bits)
		c.Securebits = uint32(v)
		return err
	}
}

// RestoreCreds gives a stub's thread its credentials, and no_new_privs. No capability outside of bound is given, whatever
// the record says. The stub is root in its user namespace and holds there CAP_SETPCAP, CAP_SETUID, CAP_SETGID and all that
// it is to keep; afterwards it holds only what the record says. What needs root comes before, the death signal and
// the dumpable flag after, since a change of ids clears them.
func RestoreCreds(b *remote.Batch, c *dump.Creds, noNewPrivs bool, bound uint64) {
	restoreCreds(b, c, bound, 0)
	if noNewPrivs {
		b.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
}

// restoreCreds does not drop the capabilities in keep yet.
func restoreCreds(b *remote.Batch, c *dump.Creds, bound, keep uint64) {
	const needed = 1<<unix.CAP_SETPCAP | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	permitted, inheritable := c.GetPermitted()&bound, c.GetInheritable()&bound
	effective := c.GetEffective() & bound

	// A capability outside of the bounding set can be inheritable only if it was so before (capabilities(7)).
	all := permitted | needed | keep
	capset(b, all, all, inheritable)

	groups := make([]byte, 0, 4*len(c.GetGroups()))
	for _, g := range c.GetGroups() {
		groups = binary.LittleEndian.AppendUint32(groups, g)
	}
	b.Call("set groups", unix.SYS_SETGROUPS, len(c.GetGroups()), b.Data(groups))
	b.Call("set group ids", unix.SYS_SETRESGID, c.GetGid(), c.GetEgid(), c.GetSgid())
	b.Call("set group id of the file system", unix.SYS_SETFSGID, c.GetFsgid())

	for n := range capability.Cap(64) {
		if c.GetBounding()&bound&(1<<n) == 0 && knownCap(n) {
			b.Call("drop "+n.String()+" from the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, int(n), 0, 0, 0)
		}
	}
	// The ids change without any effect on the capabilities.
	b.Call("set securebits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureNoSetuidFixup|secureKeepCaps)
	b.Call("set user ids", unix.SYS_SETRESUID, c.GetUid(), c.GetEuid(), c.GetSuid())
	b.Call("set user id of the file system", unix.SYS_SETFSUID, c.GetFsuid())
	for n := range capability.Cap(64) {
		if c.GetAmbient()&permitted&inheritable&(1<<n) != 0 {
			b.Call("raise ambient "+n.String(), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, int(n), 0, 0)
		}
	}
	b.Call("set securebits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, c.GetSecurebits())
	capset(b, effective, permitted, inheritable)
}

// knownCap tells whether the running kernel has a capability.
func knownCap(n capability.Cap) bool {
	last, err := capability.LastCap()
	return err != nil || n <= last
}

// capset adds a capset(2) for the calling thread.
func capset(b *remote.Batch, effective, permitted, inheritable uint64) {
	header := object.Place(b, &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := object.Place(b, &[2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	})
	b.Call("set capabilities", unix.SYS_CAPSET, header, data)
}
