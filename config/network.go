package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Interface is an interface of the instance at the host's layer-3 switch.
type Interface struct {
	N         int          // of the keys NETIF_<n>_*
	Unit      int          // the number in its name: N unless NETIF_<n>_IFIDX says otherwise
	Addresses []netip.Addr // single ones, which the host routes
	NAT       bool         // outside of the host it has the host's address
	Forwards  []Forward    // ports of the host's
	Bandwidth Bandwidth
}

// Name returns the interface's name inside the instance.
func (i Interface) Name() string { return fmt.Sprintf("vps%d", i.Unit) }

// netif returns the interface of the keys NETIF_<n>_*, which is made if it is not there.
func (c *Config) netif(arg string) (*Interface, error) {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return nil, err
	}
	i := Interface{N: n, Unit: n}
	return insert(&c.Interfaces, i, func(a, b Interface) int { return cmp.Compare(a.N, b.N) }), nil
}

// ofInterface is the access to a key that sets something of an interface.
func ofInterface[T any](of func(*Interface) *T, as codec[T], written func(Interface) bool) access {
	return access{
		set: func(c *Config, arg, value string) error {
			v, err := as.parse(value)
			if err != nil {
				return err
			}
			i, err := c.netif(arg)
			if err == nil {
				*of(i) = v
			}
			return err
		},
		get: func(c *Config) []assignment {
			var all []assignment
			for _, i := range c.Interfaces {
				if written(i) {
					all = append(all, assignment{strconv.Itoa(i.N), as.format(*of(&i))})
				}
			}
			return all
		},
		reset: reset(func(c *Config) *[]Interface { return &c.Interfaces }),
	}
}

// address is one IPv4 or IPv6 address.
var address = codec[netip.Addr]{
	parse: func(s string) (netip.Addr, error) {
		a, err := netip.ParseAddr(s)
		if plain, _, ok := strings.Cut(s, "/"); ok {
			return a, fault("%s is a network", shown(s)).hint("the address alone, %.64s", plain)
		}
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return a, fault("%s is no IPv4 or IPv6 address", shown(s))
		}
		return a, nil
	},
	format: netip.Addr.String,
}

// hostAddress is an address that an interface can have.
var hostAddress = codec[netip.Addr]{
	parse: func(s string) (netip.Addr, error) {
		a, err := address.parse(s)
		if err == nil && (a.IsUnspecified() || a.IsMulticast() || a.IsLoopback()) {
			return a, fault("%s cannot be the address of an interface", shown(s))
		}
		return a, err
	},
	format: address.format,
}

// network is an address, an address with the length of its prefix, or an IPv4 address with a mask.
var network = codec[netip.Prefix]{
	parse: func(s string) (netip.Prefix, error) {
		left, right, long := strings.Cut(s, "/")
		a, err := address.parse(left)
		if err != nil {
			return netip.Prefix{}, err
		}
		length := a.BitLen()
		if long {
			if length, err = prefixLen(a, right); err != nil {
				return netip.Prefix{}, err
			}
		}
		p := netip.PrefixFrom(a, length)
		if p != p.Masked() {
			return netip.Prefix{}, fault("%s has bits set after its prefix", shown(s)).hint("the network is %v", p.Masked())
		}
		return p, nil
	},
	format: netip.Prefix.String,
}

// prefixLen reads what follows the slash of a network.
func prefixLen(a netip.Addr, s string) (int, error) {
	if mask, err := netip.ParseAddr(s); err == nil && mask.Is4() && a.Is4() {
		ones, bits := net.IPMask(mask.AsSlice()).Size()
		if bits == 0 {
			return 0, fault("%s is no network mask", shown(s))
		}
		return ones, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || int(n) > a.BitLen() {
		return 0, fault("%s is no prefix length of %v", shown("/"+s), a).hint("a number from 0 to %d", a.BitLen())
	}
	return int(n), nil
}

// Readdress returns a configuration with other addresses of interfaces in the place of those that are keys.
func (c *Config) Readdress(other map[netip.Addr]netip.Addr) *Config {
	own := *c
	own.Interfaces = slices.Clone(c.Interfaces)
	for n := range own.Interfaces {
		i := &own.Interfaces[n]
		i.Addresses = slices.Clone(i.Addresses)
		for at, a := range i.Addresses {
			if new, ok := other[a]; ok {
				i.Addresses[at] = new
			}
		}
	}
	return &own
}

// Allows reports whether the instance may configure address a: one of its Interfaces' or of its Networks.
func (c *Config) Allows(a netip.Addr) bool {
	for _, i := range c.Interfaces {
		if slices.Contains(i.Addresses, a) {
			return true
		}
	}
	return slices.ContainsFunc(c.Networks, func(p netip.Prefix) bool { return p.Contains(a) })
}
