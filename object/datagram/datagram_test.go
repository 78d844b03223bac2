package datagram_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/leak"
	"vps/internal/objecttest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileSockets(t *testing.T) {
	socket := func(change func(*dump.Socket)) *objecttest.Bag {
		b := objecttest.NewBag()
		s := &dump.Socket{Id: 1, Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP}
		change(s)
		b.Set.Sockets[1] = s
		b.Set.Files[1] = &dump.File{Id: 1, Kind: &dump.File_Socket{Socket: 1}}
		return b
	}
	here := &dump.SocketAddress{Address: []byte{127, 0, 0, 1}, Port: 9}
	option := func(level, name int32, value string) func(*dump.Socket) {
		return func(s *dump.Socket) {
			s.Options = []*dump.SockOpt{{Level: level, Name: name, Value: []byte(value)}}
		}
	}
	netlink := func(s *dump.Socket) { s.Family, s.Type, s.Protocol = unix.AF_NETLINK, unix.SOCK_RAW, 0 }
	packet := func(p *dump.Packet) func(*dump.Socket) {
		return func(s *dump.Socket) { s.Family, s.Protocol, s.Packet = unix.AF_PACKET, 0, p }
	}
	twice := socket(func(*dump.Socket) {})
	twice.Set.Files[2] = &dump.File{Id: 2, Kind: &dump.File_Socket{Socket: 1}}
	objecttest.RefuseAll(t, map[string]*objecttest.Bag{
		"socket of two files":  twice,
		"unknown family":       socket(func(s *dump.Socket) { s.Family = 99 }),
		"unknown protocol":     socket(func(s *dump.Socket) { s.Protocol = 99 }),
		"raw protocol":         socket(func(s *dump.Socket) { s.Type, s.Protocol = unix.SOCK_RAW, 70000 }),
		"unknown option":       socket(option(1, 9999, "1234")),
		"option that attaches": socket(option(unix.SOL_SOCKET, unix.SO_ATTACH_BPF, "1234")),
		"short option":         socket(option(unix.SOL_SOCKET, unix.SO_BROADCAST, "")),
		"short buffer size":    socket(option(unix.SOL_SOCKET, unix.SO_RCVBUF, "1")),
		"short lock":           socket(option(unix.SOL_SOCKET, unix.SO_BUF_LOCK, "")),
		"filter":               socket(func(s *dump.Socket) { s.Filter = []byte{1, 2, 3} }),
		"filter without end":   socket(func(s *dump.Socket) { s.Filter = make([]byte, 8) }),
		"long filter":          socket(func(s *dump.Socket) { s.Filter = make([]byte, 8*5000) }),
		"address":              socket(func(s *dump.Socket) { s.Local = &dump.SocketAddress{Address: []byte{1}} }),
		"port":                 socket(func(s *dump.Socket) { s.Local = &dump.SocketAddress{Address: here.Address, Port: 1 << 16} }),
		"peer of a family":     socket(func(s *dump.Socket) { s.Family, s.Peer = unix.AF_INET6, here }),
		"datagram of nobody":   socket(func(s *dump.Socket) { s.Queue = []*dump.Datagram{{Data: []byte("x")}} }),
		"long datagram":        socket(func(s *dump.Socket) { s.Queue = []*dump.Datagram{{Data: make([]byte, 1<<16), From: here}} }),
		"destination":          socket(func(s *dump.Socket) { s.Queue = []*dump.Datagram{{From: here, To: []byte{1}}} }),
		"raw with a queue":     socket(func(s *dump.Socket) { s.Type, s.Protocol, s.Queue = unix.SOCK_RAW, 253, []*dump.Datagram{{From: here}} }),
		"group":                socket(func(s *dump.Socket) { s.Memberships = []*dump.Membership{{Group: []byte{1, 2, 3, 4}}} }),
		"group of a length":    socket(func(s *dump.Socket) { s.Memberships = []*dump.Membership{{Group: []byte{1}}} }),
		"source": socket(func(s *dump.Socket) {
			s.Memberships = []*dump.Membership{{Group: []byte{239, 0, 0, 1}, Sources: [][]byte{{1}}}}
		}),
		"interface": socket(func(s *dump.Socket) {
			s.Memberships = []*dump.Membership{{Group: []byte{239, 0, 0, 1}, Interface: 99999}}
		}),
		"netlink":           socket(netlink),
		"netlink protocol":  socket(func(s *dump.Socket) { netlink(s); s.Protocol, s.Netlink = 31, &dump.Netlink{} }),
		"netlink group":     socket(func(s *dump.Socket) { netlink(s); s.Netlink = &dump.Netlink{Groups: []uint32{1 << 20}} }),
		"packet":            socket(packet(nil)),
		"packet protocol":   socket(packet(&dump.Packet{Protocol: 1 << 20})),
		"packet interface":  socket(packet(&dump.Packet{Protocol: 3, Interface: 99999})),
		"packet membership": socket(packet(&dump.Packet{Memberships: []*dump.PacketMembership{{Count: 1 << 30}}})),
		"packet address":    socket(packet(&dump.Packet{Memberships: []*dump.PacketMembership{{Count: 1, Address: make([]byte, 32)}}})),
		"packet fanout":     socket(packet(&dump.Packet{Fanout: 1})),
	})
}
