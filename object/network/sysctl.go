package network

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vps/linux"
	"vps/object"
)

const sysctlDir = "/proc/sys/net"

// maxSysctl is more than any value has: net.ipv4.ip_local_reserved_ports is the longest.
const maxSysctl = 64 << 10

// ReadSysctls reads the settings of the network namespace of a process, by its pid here, that differ from those of a new one: the
// files below /proc/sys/net that can be written, by their paths below /proc/sys. A namespace that is ours too has none of its own.
// The first call takes longer.
func ReadSysctls(pid int) (map[string]string, error) {
	ids, err := object.ReadIDMaps(pid)
	if err != nil {
		return nil, err
	}
	if ours, err := shared(pid); err != nil || ours {
		return nil, err
	}
	usual, err := usualSysctls()
	if err != nil {
		return nil, fmt.Errorf("settings of a new network: %w", err)
	}
	var values map[string]string
	err = object.InNamespace(pid, "net", unix.CLONE_NEWNET, func() (err error) {
		values, err = readLike(usual)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("settings of the network: %w", err)
	}
	same := func(name, value string) bool {
		return usual[name] == value // "": it has no value, or is not there
	}
	general := make(map[string]bool) // settings of all interfaces: they have been changed with those of each
	for name, value := range values {
		if strings.Contains(name, "/conf/all/") && !same(name, value) {
			general[name] = true
		}
	}
	if forwarding := "net/ipv4/conf/all/forwarding"; !same(forwarding, values[forwarding]) {
		general[redirects] = true
	}
	maps.DeleteFunc(values, func(name, value string) bool { return same(name, value) && !general[ofAll(name)] })
	if value, ok := values[groupRange]; ok {
		if values[groupRange], err = translate(groupRange, value, ids.GID); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// ofAll is the name that the setting of an interface has for all interfaces.
func ofAll(name string) string {
	protocol, rest, ok := strings.Cut(name, "/conf/")
	if !ok {
		return name
	}
	return protocol + "/conf/all/" + path.Base(rest)
}

// usualSysctls are the settings of a new namespace.
var usualSysctls = sync.OnceValues(func() (values map[string]string, err error) {
	err = linux.OnSpareThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		values = make(map[string]string)
		return readBelow(sysctlDir, values)
	})
	return values, err
})

// interfaceDirs have a directory of settings for each interface.
var interfaceDirs = []string{"net/ipv4/conf", "net/ipv4/neigh", "net/ipv6/conf", "net/ipv6/neigh"}

// readLike reads those settings of the calling thread's namespace that another one has too, and those of further interfaces. There
// are some hundreds: they are read with as few calls as there can be.
func readLike(other map[string]string) (map[string]string, error) {
	dir, err := unix.Open("/proc/sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/sys: %w", err)
	}
	defer unix.Close(dir)
	values := make(map[string]string, len(other))
	buf := make([]byte, maxSysctl)
	for name := range other {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // not here
		}
		if n, err := unix.Read(fd, buf); err == nil {
			values[name] = string(bytes.TrimSpace(buf[:n]))
		}
		unix.Close(fd)
	}
	for _, dir := range interfaceDirs {
		entries, err := os.ReadDir("/proc/sys/" + dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name := e.Name(); name == "all" || name == "default" || name == "lo" {
				continue
			}
			if err := readBelow("/proc/sys/"+dir+"/"+e.Name(), values); err != nil {
				return nil, err
			}
		}
	}
	return values, nil
}

// readBelow adds the settings of the calling thread's namespace that are in a directory and can be written.
func readBelow(dir string, values map[string]string) error {
	return filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		const both = 0o600
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&both != both {
			return ignoreGone(err)
		}
		text, _ := os.ReadFile(file) // it may have no value yet
		values["net"+strings.TrimPrefix(file, sysctlDir)] = string(bytes.TrimSpace(text))
		return nil
	})
}

// ignoreGone passes over what has gone while it was looked at: the settings of an interface.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// shared tells whether a process is in our own network namespace.
func shared(pid int) (bool, error) {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	return theirs == ours, err
}

// groupRange is the setting that names groups (icmp(7)). It is none as long as the first is above the second.
const groupRange = "net/ipv4/ping_group_range"

// redirects is the setting that the kernel changes with forwarding (inet_forward_change).
const redirects = "net/ipv4/conf/all/accept_redirects"

// translate gives the value of a setting with other ids of groups.
func translate(name, value string, gid func(uint32) (uint32, error)) (string, error) {
	if name != groupRange {
		return value, nil
	}
	var list []string
	for field := range strings.FieldsSeq(value) {
		id, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		other, err := gid(uint32(id))
		if err != nil {
			return "1\t0", nil
		}
		list = append(list, strconv.FormatUint(uint64(other), 10))
	}
	return strings.Join(list, "\t"), nil
}

// RestoreSysctls sets what differs in the network namespace of a process, by its pid here, from recorded values. Names of others
// than of the network are passed over, as are settings that are not there.
func RestoreSysctls(pid int, recorded map[string]string) error {
	ids, err := object.ReadIDMaps(pid)
	if err != nil {
		return err
	}
	var names []string
	for name := range recorded {
		if strings.HasPrefix(name, "net/") && path.Clean(name) == name && strings.IndexByte(name, 0) < 0 {
			names = append(names, name)
		}
	}
	if ours, err := shared(pid); err != nil || ours || len(names) == 0 {
		return err
	}
	slices.SortFunc(names, bySetting)
	return object.InNamespace(pid, "net", unix.CLONE_NEWNET, func() error {
		for _, name := range names {
			have, err := os.ReadFile("/proc/sys/" + name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			text, terr := translate(name, string(bytes.TrimSpace(have)), ids.GID)
			if err == nil && terr == nil && text == recorded[name] {
				continue
			}
			if err := set(name, recorded[name], ids); err != nil {
				return err
			}
		}
		return nil
	})
}

func set(name, value string, ids object.IDMaps) error {
	if len(value) > maxSysctl {
		return fmt.Errorf("set %s: value of %d bytes", name, len(value))
	}
	text, err := translate(name, value, ids.HostGID)
	if err == nil {
		err = os.WriteFile("/proc/sys/"+name, []byte(text), 0)
	}
	if err != nil {
		return fmt.Errorf("set %s to %.100q: %w", name, value, err)
	}
	return nil
}

// bySetting sorts settings so that those come first that change others: of the whole protocol, of all interfaces, of new ones;
// net.ipv6.conf.*.stable_secret before addr_gen_mode, which it changes and which needs it; forwarding before redirects.
func bySetting(a, b string) int {
	rank := func(name string) int {
		for i, part := range []string{"/conf/all/", "/conf/default/", "/conf/"} {
			if strings.Contains(name, part) {
				return i + 1
			}
		}
		return 0
	}
	late := func(name string) int {
		if path.Base(name) == "addr_gen_mode" || name == redirects {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(late(a), late(b)), cmp.Compare(a, b))
}

// SwapSysctls sets settings of the network namespace of a process, by its pid here, and returns what they were; those that are not
// there are passed over. A namespace that is ours too stays as it is.
func SwapSysctls(pid int, values map[string]string) (before map[string]string, err error) {
	if ours, err := shared(pid); err != nil || ours {
		return nil, err
	}
	before = make(map[string]string)
	err = object.InNamespace(pid, "net", unix.CLONE_NEWNET, func() error {
		for name, value := range values {
			file := "/proc/sys/" + name
			old, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(file, []byte(value), 0)
			}
			if err != nil {
				return err
			}
			before[name] = string(bytes.TrimSpace(old))
		}
		return nil
	})
	return before, err
}
