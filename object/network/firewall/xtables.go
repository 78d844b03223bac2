package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// xtable is what the tables of a family have in common: struct ipt_entry, struct ip6t_entry.
type xtable struct {
	name     string
	level    int    // of their socket options
	names    string // file of /proc that lists them
	next     int    // where an entry says how long it is
	counters int    // where its struct xt_counters is
}

var xtables = map[uint32]xtable{
	unix.AF_INET:  {"iptables", unix.SOL_IP, "ip_tables_names", 90, 96},
	unix.AF_INET6: {"ip6tables", unix.SOL_IPV6, "ip6_tables_names", 142, 152},
}

const (
	countersSize = int(unsafe.Sizeof(linux.XtCounters{}))
	entriesHead  = linux.XT_TABLE_MAXNAMELEN + 8 // struct ipt_get_entries and struct xt_counters_info: name, a number, padding
	maxXtable    = 8 << 20
)

// readXtables reads the tables of iptables and ip6tables that the namespace has, and refuses those of arptables.
func readXtables() ([]*dump.Xtable, error) {
	var all []*dump.Xtable
	for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
		x := xtables[family]
		names, err := tableNames(x.names)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			t, err := readXtable(family, name)
			if err != nil {
				return nil, fmt.Errorf("table %s of %s: %w", name, x.name, err)
			}
			all = append(all, t)
		}
	}
	names, err := tableNames("arp_tables_names")
	if err == nil && len(names) > 0 {
		err = refusal("table %s of arptables", names[0])
	}
	return all, err
}

// tableNames lists the tables that somebody has used, in that order: the file begins with the last one.
func tableNames(file string) ([]string, error) {
	text, err := os.ReadFile("/proc/thread-self/net/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := strings.Fields(string(text))
	slices.Reverse(names)
	return names, err
}

func readXtable(family uint32, name string) (*dump.Xtable, error) {
	x := xtables[family]
	fd, err := unix.Socket(int(family), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	info, err := tableInfo(fd, x, name)
	if err != nil {
		return nil, err
	}
	if info.Size > maxXtable {
		return nil, refusal("%d bytes of rules", info.Size)
	}
	buf := make([]byte, entriesHead+int(info.Size))
	copy(buf, info.Name[:])
	binary.NativeEndian.PutUint32(buf[linux.XT_TABLE_MAXNAMELEN:], info.Size)
	if _, err := linux.Getsockopt(fd, x.level, linux.IPT_SO_GET_ENTRIES, buf); err != nil {
		return nil, fmt.Errorf("IPT_SO_GET_ENTRIES: %w", err)
	}
	return &dump.Xtable{
		Family: family, Name: name, Hooks: info.ValidHooks, HookEntry: info.HookEntry[:], Underflow: info.Underflow[:],
		Entries: info.NumEntries, Rules: buf[entriesHead:],
	}, nil
}

func checkXtable(t *dump.Xtable) error {
	_, known := xtables[t.Family]
	if !known || t.Name == "" || len(t.Name) >= linux.XT_TABLE_MAXNAMELEN || len(t.HookEntry) != 5 || len(t.Underflow) != 5 || len(t.Rules) > maxXtable {
		return fmt.Errorf("table %.40q of iptables is not valid", t.Name)
	}
	if _, err := counters(t); err != nil {
		return fmt.Errorf("table %.40q of iptables: %w", t.Name, err)
	}
	return nil
}

// counters returns the counters of all entries.
func counters(t *dump.Xtable) ([]byte, error) {
	x := xtables[t.Family]
	var all []byte
	rest := t.Rules
	for range t.Entries {
		if len(rest) < x.counters+countersSize {
			return nil, fmt.Errorf("its rules end after %d of %d bytes", len(t.Rules)-len(rest), len(t.Rules))
		}
		all = append(all, rest[x.counters:x.counters+countersSize]...)
		next := int(binary.NativeEndian.Uint16(rest[x.next:]))
		if next < x.counters+countersSize || next > len(rest) {
			return nil, fmt.Errorf("a rule of %d bytes", next)
		}
		rest = rest[next:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after its rules", len(rest))
	}
	return all, nil
}

// replace puts rules and counters into a table, in the instance's name.
func (r *Restorer) replace(ctx context.Context, t *dump.Xtable) error {
	x := xtables[t.Family]
	fd, err := unix.Socket(int(t.Family), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	info, err := tableInfo(fd, x, t.Name)
	unix.Close(fd)
	if err != nil {
		return err
	}
	count, err := counters(t)
	if err != nil {
		return err
	}
	var batch *remote.Batch
	var socket remote.Result
	err = r.Maker.Run(ctx, func(b *remote.Batch) {
		batch = b
		socket = b.Call("raw socket", unix.SYS_SOCKET, int(t.Family), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	})
	if err != nil {
		return err
	}
	theirs, err := batch.Value(socket)
	if err != nil {
		return err
	}
	head := linux.XtReplace{
		Name: tableName(t.Name), ValidHooks: t.Hooks, NumEntries: t.Entries, Size: uint32(len(t.Rules)),
		HookEntry: [5]uint32(t.HookEntry), Underflow: [5]uint32(t.Underflow), NumCounters: info.NumEntries,
	}
	const headSize = int(unsafe.Sizeof(head))
	size := headSize + len(t.Rules)
	old := (size + 7) &^ 7 // where the counters of the rules before come
	err = r.Maker.RunOn(ctx, old+int(info.NumEntries)*countersSize, func(b *remote.Batch, at remote.Address) []byte {
		head.Counters = uint64(at) + uint64(old)
		b.Call("IPT_SO_SET_REPLACE", unix.SYS_SETSOCKOPT, theirs, x.level, linux.IPT_SO_SET_REPLACE, at, size)
		return append(append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&head)), headSize)...), t.Rules...)
	})
	if err == nil {
		data := make([]byte, entriesHead)
		copy(data, head.Name[:])
		binary.NativeEndian.PutUint32(data[linux.XT_TABLE_MAXNAMELEN:], t.Entries)
		data = append(data, count...)
		err = r.Maker.RunOn(ctx, len(data), func(b *remote.Batch, at remote.Address) []byte {
			b.Call("IPT_SO_SET_ADD_COUNTERS", unix.SYS_SETSOCKOPT, theirs, x.level, linux.IPT_SO_SET_ADD_COUNTERS, at, len(data))
			return data
		})
	}
	closed := r.Maker.Run(ctx, func(b *remote.Batch) { b.Call("close", unix.SYS_CLOSE, theirs) })
	return errors.Join(err, closed)
}

func tableName(name string) (n [linux.XT_TABLE_MAXNAMELEN]byte) {
	copy(n[:len(n)-1], name)
	return n
}

// tableInfo asks about a table, which makes it.
func tableInfo(fd int, x xtable, name string) (info linux.XtGetinfo, err error) {
	info.Name = tableName(name)
	_, err = linux.Getsockopt(fd, x.level, linux.IPT_SO_GET_INFO, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
	if err != nil {
		return info, fmt.Errorf("IPT_SO_GET_INFO: %w", err)
	}
	return info, nil
}
