package link

import (
	"fmt"
	"math"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/network/netlink"
)

// maxInterfaces is what an instance may have; the kernel takes long over more.
const maxInterfaces = 4096

// Check refuses records of interfaces that make no sense together.
func Check(list []*dump.Interface) error {
	if len(list) > maxInterfaces {
		return fmt.Errorf("%d network interfaces", len(list))
	}
	byIndex := make(map[uint32]*dump.Interface)
	names := make(map[string]bool)
	for _, i := range list {
		if err := check(i); err != nil {
			return fmt.Errorf("network interface %.20q: %w", i.Name, err)
		}
		if names[i.Name] || byIndex[i.Index] != nil {
			return fmt.Errorf("network interface %q of index %d: there are two", i.Name, i.Index)
		}
		names[i.Name], byIndex[i.Index] = true, i
	}
	for _, i := range list {
		below := byIndex[i.Link]
		switch {
		case i.Link != 0 && below == nil, i.Master != 0 && byIndex[i.Master] == nil:
			return fmt.Errorf("network interface %s: there is no interface %d below and %d above", i.Name, i.Link, i.Master)
		case i.Kind == "veth" && !i.External && (below == nil || below == i || below.Kind != "veth" || below.External || below.Link != i.Index):
			return fmt.Errorf("network interface %s: %d is not its other end", i.Name, i.Link)
		}
	}
	return nil
}

func check(i *dump.Interface) error {
	if i.Index == 0 || i.Index > math.MaxInt32 {
		return fmt.Errorf("index %d", i.Index)
	}
	for _, name := range append([]string{i.Name}, i.AlternativeNames...) {
		limit := unix.IFNAMSIZ
		if name != i.Name {
			limit = altIfNameSize
		}
		odd := func(r rune) bool { return r == '/' || r == ':' || r == 0 || unicode.IsSpace(r) }
		if name == "" || name == "." || name == ".." || len(name) >= limit || strings.ContainsFunc(name, odd) {
			return fmt.Errorf("name %.200q", name)
		}
	}
	if len(i.Address) > 32 || len(i.Alias) > 255 || len(i.Token) > 16 || len(i.AlternativeNames) > 64 || strings.ContainsRune(i.Alias, 0) {
		return fmt.Errorf("an attribute is too long")
	}
	if i.External {
		return nil
	}
	k, ok := kinds[i.Kind]
	switch {
	case !ok:
		return fmt.Errorf("kind %.20q", i.Kind)
	case (i.Kind == "") != (i.Name == "lo"), i.Name == "lo" && i.Index != 1:
		return fmt.Errorf("kind %q, index %d", i.Kind, i.Index)
	case (i.Kind == "tun") != (i.Tun != nil):
		return fmt.Errorf("kind %q without its settings", i.Kind)
	}
	if err := onlyThose(i.Data, k.data); err != nil {
		return fmt.Errorf("kind %q: %w", i.Kind, err)
	}
	return netlink.Check(i.PortData)
}

// altIfNameSize is ALTIFNAMSIZ of include/uapi/linux/if.h.
const altIfNameSize = 128

// onlyThose refuses other attributes than a kind has.
func onlyThose(data []byte, has func(uint16) bool) error {
	for a := range netlink.Attributes(data) {
		if !has(a.Type) {
			return fmt.Errorf("attribute %d", a.Type)
		}
	}
	return netlink.Check(data)
}
