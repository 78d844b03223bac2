package mount

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
)

// readPropagation reads the optional fields of mountinfo (proc_pid_mountinfo(5)).
func (mnt *mount) readPropagation() error {
	for _, field := range strings.Fields(mnt.Optional) {
		name, value, _ := strings.Cut(field, ":")
		var err error
		switch name {
		case "shared":
			mnt.group, err = strconv.Atoi(value)
		case "master":
			mnt.master, err = strconv.Atoi(value)
		case "unbindable":
			mnt.unbindable = true
		}
		if err != nil {
			return fmt.Errorf("propagation %q: %w", field, err)
		}
	}
	return nil
}

// groups returns the members of each peer group, those that show most of the file system first.
func (m *Namespace) groups() map[int][]*mount {
	groups := make(map[int][]*mount)
	for _, mnt := range m.mounts {
		if mnt.group != 0 {
			groups[mnt.group] = append(groups[mnt.group], mnt)
		}
	}
	for _, members := range groups {
		slices.SortStableFunc(members, func(a, b *mount) int { return len(a.Root) - len(b.Root) })
	}
	return groups
}

// probeGroups returns the mounts that cannot be made members of their peer groups, or slaves, again: for that a member must be there that
// shows as much of the file system (move_mount, MOVE_MOUNT_SET_GROUP).
func (m *Namespace) probeGroups() []error {
	var refusals []error
	groups := m.groups()
	for _, mnt := range m.mounts {
		leads := mnt.group == 0 || groups[mnt.group][0] == mnt
		wider := func(other *mount) bool { return covers(other.Root, mnt.Root) }
		fits := leads || wider(groups[mnt.group][0])
		if leads && mnt.master != 0 && !mnt.standard {
			fits = slices.ContainsFunc(groups[mnt.master], wider)
		}
		if !fits {
			refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf("mount %s (%s)", mnt.Mountpoint, mnt.FSType),
				Why: "what it receives mounts from shows another part of the file system, or is not the instance's"})
		}
	}
	return refusals
}

// numberGroups gives the peer groups numbers of the snapshot's own, masters first.
func (m *Namespace) numberGroups() {
	groups := m.groups()
	numbers := make(map[int]uint32)
	var number func(group, depth int) uint32
	number = func(group, depth int) uint32 {
		if len(groups[group]) == 0 || depth > len(groups) {
			return 0
		}
		if numbers[group] == 0 {
			number(groups[group][0].master, depth+1)
			numbers[group] = uint32(len(numbers) + 1)
		}
		return numbers[group]
	}
	for _, mnt := range m.mounts {
		mnt.record.Group, mnt.record.Master = number(mnt.group, 0), number(mnt.master, 0)
	}
}

// made is a mount that has been made again, or one of the manager's.
type made struct {
	*dump.Mount
	root *os.File // with O_PATH
}

// propagate gives mounts their propagation, in the mount namespace of a process.
func propagate(pid int, mounts []*made) error {
	mounts = slices.Clone(mounts)
	slices.SortStableFunc(mounts, func(a, b *made) int {
		order := func(m *made) uint32 { return cmp.Or(m.GetGroup(), m.GetMaster()+1) }
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(len(a.GetRoot()), len(b.GetRoot())))
	})
	return object.InNamespace(pid, "mnt", unix.CLONE_NEWNS, func() error {
		members := make(map[uint32][]*made)
		for _, m := range mounts {
			if err := m.propagate(members); err != nil {
				return fmt.Errorf("mount %s: propagation: %w", m.GetTarget(), err)
			}
		}
		return nil
	})
}

// propagate gives a mount its propagation, when its master and all members of its group that show more have theirs.
func (m *made) propagate(members map[uint32][]*made) error {
	if err := m.set(unix.MS_PRIVATE); err != nil {
		return err
	}
	peers := members[m.GetGroup()]
	if m.GetGroup() != 0 {
		members[m.GetGroup()] = append(peers, m)
		if len(peers) > 0 {
			return m.join(peers)
		}
	}
	if m.GetMaster() != 0 {
		if err := m.join(members[m.GetMaster()]); err != nil {
			return err
		}
		if err := m.set(unix.MS_SLAVE); err != nil {
			return err
		}
	}
	switch {
	case m.GetGroup() != 0:
		return m.set(unix.MS_SHARED)
	case m.GetUnbindable():
		return m.set(unix.MS_UNBINDABLE)
	}
	return nil
}

func (m *made) set(propagation uint64) error {
	return unix.MountSetattr(int(m.root.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: propagation})
}

// join makes a mount a member of a peer group.
func (m *made) join(peers []*made) error {
	err := fmt.Errorf("group %d or master %d is not there", m.GetGroup(), m.GetMaster())
	for _, peer := range peers {
		const flags = unix.MOVE_MOUNT_SET_GROUP | unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
		if err = unix.MoveMount(int(peer.root.Fd()), "", int(m.root.Fd()), "", flags); err == nil {
			return nil
		}
	}
	return err
}
