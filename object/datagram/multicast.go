package datagram

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/socket"
)

// group is a multicast group that somebody has joined on an interface.
type group struct {
	address netip.Addr
	index   uint32
}

// joined lists all multicast groups of a network namespace. Who has joined them it does not tell.
func joined(n *socket.Namespace) (list []group, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/igmp")
		if err != nil {
			return err
		}
		list = append(list, parseIGMP(string(text))...)
		text, err = os.ReadFile("/proc/thread-self/net/igmp6")
		if os.IsNotExist(err) {
			return nil // a kernel without IPv6
		}
		list = append(list, parseIGMP6(string(text))...)
		return err
	})
	return list, err
}

// parseIGMP reads /proc/net/igmp: a line for each interface, which begins with its index, and indented ones for its groups.
func parseIGMP(text string) (list []group) {
	index := uint64(0)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if !strings.HasPrefix(line, "\t") {
			index, _ = strconv.ParseUint(fields[0], 10, 32)
			continue
		}
		word, err := strconv.ParseUint(fields[0], 16, 32)
		if err != nil || index == 0 {
			continue
		}
		var ip [4]byte
		binary.NativeEndian.PutUint32(ip[:], uint32(word))
		list = append(list, group{netip.AddrFrom4(ip), uint32(index)})
	}
	return list
}

// parseIGMP6 reads /proc/net/igmp6: index, interface, group, users, flags, timer.
func parseIGMP6(text string) (list []group) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		index, err := strconv.ParseUint(fields[0], 10, 32)
		ip, herr := hex.DecodeString(fields[2])
		if err == nil && herr == nil && len(ip) == 16 {
			list = append(list, group{netip.AddrFrom16([16]byte(ip)), uint32(index)})
		}
	}
	return list
}

// Layout of struct group_filter, include/uapi/linux/in.h.
const (
	filterGroup   = 8
	filterMode    = 136
	filterCount   = 140
	filterSources = 144
	storageSize   = 128 // struct sockaddr_storage

	maxSources = 1024
)

func level(ip netip.Addr) int {
	if ip.Is4() {
		return unix.IPPROTO_IP
	}
	return unix.IPPROTO_IPV6
}

// storage is an address as struct sockaddr_storage.
func storage(ip netip.Addr) []byte {
	data := make([]byte, storageSize)
	if ip.Is4() {
		binary.NativeEndian.PutUint16(data, unix.AF_INET)
		copy(data[4:], ip.AsSlice())
	} else {
		binary.NativeEndian.PutUint16(data, unix.AF_INET6)
		copy(data[8:], ip.AsSlice())
	}
	return data
}

// memberships finds the multicast groups that a socket has joined, by asking it for the sources of each that there is.
func memberships(fd int, family uint32, all []group) (list []*dump.Membership, err error) {
	for _, g := range all {
		if g.address.Is6() && family != unix.AF_INET6 {
			continue
		}
		m, err := membership(fd, g, 16)
		if err != nil {
			return nil, fmt.Errorf("sources of group %s: %w", g.address, err)
		}
		if m != nil {
			list = append(list, m)
		}
	}
	return list, nil
}

// membership returns what a socket has of a group, nil if it has not joined it.
func membership(fd int, g group, room int) (*dump.Membership, error) {
	buf := make([]byte, filterSources+room*storageSize)
	binary.NativeEndian.PutUint32(buf, g.index)
	copy(buf[filterGroup:], storage(g.address))
	binary.NativeEndian.PutUint32(buf[filterCount:], uint32(room))
	if _, err := linux.Getsockopt(fd, level(g.address), unix.MCAST_MSFILTER, buf); err != nil {
		switch err {
		case unix.EADDRNOTAVAIL, unix.ENOPROTOOPT, unix.EINVAL, unix.ENODEV:
			return nil, nil
		}
		return nil, err
	}
	count := int(binary.NativeEndian.Uint32(buf[filterCount:]))
	if count > room {
		if count > maxSources {
			return nil, fmt.Errorf("%d sources", count)
		}
		return membership(fd, g, count)
	}
	m := &dump.Membership{
		Group: g.address.AsSlice(), Interface: g.index,
		Include: binary.NativeEndian.Uint32(buf[filterMode:]) == unix.MCAST_INCLUDE,
	}
	for i := range count {
		source := buf[filterSources+i*storageSize:]
		if g.address.Is4() {
			m.Sources = append(m.Sources, slices.Clone(source[4:8]))
		} else {
			m.Sources = append(m.Sources, slices.Clone(source[8:24]))
		}
	}
	return m, nil
}

// join lets a socket join a multicast group.
func join(fd int, m *dump.Membership) error {
	ip, _ := netip.AddrFromSlice(m.GetGroup())
	request := make([]byte, filterGroup, filterGroup+storageSize) // struct group_req
	binary.NativeEndian.PutUint32(request, m.GetInterface())
	if err := linux.Setsockopt(fd, level(ip), unix.MCAST_JOIN_GROUP, append(request, storage(ip)...)); err != nil {
		return fmt.Errorf("join group %s on interface %d: %w", ip, m.GetInterface(), err)
	}
	if !m.GetInclude() && len(m.GetSources()) == 0 {
		return nil
	}
	filter := make([]byte, filterSources)
	binary.NativeEndian.PutUint32(filter, m.GetInterface())
	copy(filter[filterGroup:], storage(ip))
	mode := uint32(unix.MCAST_EXCLUDE)
	if m.GetInclude() {
		mode = unix.MCAST_INCLUDE
	}
	binary.NativeEndian.PutUint32(filter[filterMode:], mode)
	binary.NativeEndian.PutUint32(filter[filterCount:], uint32(len(m.GetSources())))
	for _, source := range m.GetSources() {
		ip, _ := netip.AddrFromSlice(source)
		filter = append(filter, storage(ip)...)
	}
	if err := linux.Setsockopt(fd, level(ip), unix.MCAST_MSFILTER, filter); err != nil {
		return fmt.Errorf("sources of group %s: %w", ip, err)
	}
	return nil
}

// checkMemberships refuses groups that are none.
func checkMemberships(s *dump.Socket) error {
	for _, m := range s.GetMemberships() {
		ip, ok := netip.AddrFromSlice(m.GetGroup())
		if !ok || !ip.IsMulticast() || ip.Is6() && s.GetFamily() != unix.AF_INET6 || len(m.GetSources()) > maxSources {
			return fmt.Errorf("membership in a group of %d bytes is not valid", len(m.GetGroup()))
		}
		for _, source := range m.GetSources() {
			if len(source) != len(m.GetGroup()) {
				return fmt.Errorf("source of %d bytes, of group %s, is not valid", len(source), ip)
			}
		}
	}
	return nil
}
