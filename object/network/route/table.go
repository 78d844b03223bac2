// Package route has what a network namespace knows of addresses and ways: its own addresses, neighbours, routes, next hops
// and rules. What is here is made equal to the records: what the kernel or the host has put there already and is the same stays.
package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/object"
	"vps/object/network/netlink"
)

// Table is where the records are read from, and made.
type Table struct {
	Conn  *netlink.Conn
	IDs   object.IDMaps
	Index func(recorded uint32) (uint32, error) // of an interface here; nil while they are read
	Send  func(message []byte) error            // lets the instance send a message by the Conn's socket; nil while they are read
}

// read lists objects of a kind; decode makes a record of a message, nil of one that is left out.
func read[M proto.Message](c *netlink.Conn, kind uint16, what string, request []byte, decode func(body []byte) (M, error)) ([]M, []error) {
	var list []M
	var refusals []error
	err := c.Dump(kind, request, func(m netlink.Message) error {
		r, err := decode(append([]byte(nil), m.Body...))
		if err != nil {
			refusals = append(refusals, err)
		} else if r.ProtoReflect().IsValid() {
			list = append(list, r)
		}
		return nil
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil // the kernel has none
	}
	if err != nil {
		refusals = append(refusals, fmt.Errorf("list %s: %w", what, err))
	}
	return list, refusals
}

func refusal(format string, args ...any) error {
	return &object.Refusal{FD: -1, Object: fmt.Sprintf(format, args...)}
}

// show writes an address.
func show(b []byte) string {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return fmt.Sprintf("%x", b)
	}
	return a.String()
}

func prefix(b []byte, bits uint32) string {
	if len(b) == 0 && bits == 0 {
		return "default"
	}
	return fmt.Sprintf("%s/%d", show(b), bits)
}

// family is the one that addresses of such a length have.
func family(address []byte) uint32 {
	if len(address) == 4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// isAddress tells whether bytes are an address of a family, or none.
func isAddress(b []byte, family uint32) bool {
	return len(b) == 0 || len(b) == 4 && family == unix.AF_INET || len(b) == 16 && family == unix.AF_INET6
}

// difference lists what is in a and not in b.
func difference[M proto.Message](a, b []M) []M {
	have := make(map[string]int)
	for _, m := range b {
		have[key(m)]++
	}
	return slices.DeleteFunc(slices.Clone(a), func(m M) bool {
		k := key(m)
		have[k]--
		return have[k] >= 0
	})
}

// key is the same for equal records.
func key(m proto.Message) string {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// What bounds the records of a kind. A full table of the Internet's routes has a million: the record of a network has room for less. The
// kernel looks through all rules for each packet, and for each new rule.
const (
	maxObjects = 1 << 18
	maxRules   = 1 << 12
)
