package object

import (
	"fmt"
	"strings"

	"vps/remote"
)

// IDMaps translate between the ids of a user namespace and those here (user_namespaces(7)).
type IDMaps struct{ UIDs, GIDs []remote.IDMap }

// ReadIDMaps reads the maps of a process's user namespace, as seen from ours.
func ReadIDMaps(pid int) (IDMaps, error) {
	uids, err := readIDMap(pid, "uid_map")
	if err != nil {
		return IDMaps{}, err
	}
	gids, err := readIDMap(pid, "gid_map")
	return IDMaps{uids, gids}, err
}

func readIDMap(pid int, name string) ([]remote.IDMap, error) {
	text, err := ReadProc(pid, name)
	if err != nil {
		return nil, err
	}
	var list []remote.IDMap
	for line := range strings.Lines(string(text)) {
		p := FieldParser{}
		f := p.ints(line)
		if p.Err != nil || len(f) != 3 {
			return nil, fmt.Errorf("/proc/%d/%s: line %q", pid, name, line)
		}
		list = append(list, remote.IDMap{Inside: f[0], Host: f[1], Size: f[2]})
	}
	return list, nil
}

// UID translates a user id from here to inside.
func (m IDMaps) UID(host uint32) (uint32, error) { return inside(m.UIDs, "uid", host) }

// GID translates a group id from here to inside.
func (m IDMaps) GID(host uint32) (uint32, error) { return inside(m.GIDs, "gid", host) }

// HostUID translates a user id from inside to here.
func (m IDMaps) HostUID(inside uint32) (uint32, error) { return outside(m.UIDs, "uid", inside) }

// HostGID translates a group id from inside to here.
func (m IDMaps) HostGID(inside uint32) (uint32, error) { return outside(m.GIDs, "gid", inside) }

func outside(ranges []remote.IDMap, what string, inside uint32) (uint32, error) {
	for _, r := range ranges {
		if at := int(inside) - r.Inside; at >= 0 && at < r.Size {
			return uint32(r.Host + at), nil
		}
	}
	return 0, fmt.Errorf("%s %d has no name on the host: %w", what, inside, ErrUnsupported)
}

func inside(ranges []remote.IDMap, what string, host uint32) (uint32, error) {
	for _, r := range ranges {
		if at := int(host) - r.Host; at >= 0 && at < r.Size {
			return uint32(r.Inside + at), nil
		}
	}
	return 0, fmt.Errorf("%s %d of the host has no name inside: %w", what, host, ErrUnsupported)
}
