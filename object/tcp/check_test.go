package tcp

import (
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
)

func TestCheck(t *testing.T) {
	address := func(last byte, port uint32) *dump.SocketAddress {
		return &dump.SocketAddress{Address: []byte{10, 0, 0, last}, Port: port}
	}
	good := &dump.Socket{
		Id: 1, Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP, Local: address(1, 80), Peer: address(2, 4000),
		Tcp: &dump.Tcp{State: dump.Tcp_ESTABLISHED, Received: []byte("received"), Urgent: 8},
	}
	if err := check(good, 0); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*dump.Socket){
		"no TCP":           func(s *dump.Socket) { s.Tcp = nil },
		"state":            func(s *dump.Socket) { s.Tcp.State = waiting },
		"state beyond":     func(s *dump.Socket) { s.Tcp.State = -1 },
		"no peer":          func(s *dump.Socket) { s.Peer = nil },
		"unspecified peer": func(s *dump.Socket) { s.Peer.Address = make([]byte, 4) },
		"no port":          func(s *dump.Socket) { s.Local.Port = 0 },
		"long port":        func(s *dump.Socket) { s.Local.Port = 1 << 16 },
		"short address":    func(s *dump.Socket) { s.Peer.Address = s.Peer.Address[1:] },
		"another family":   func(s *dump.Socket) { s.Family = unix.AF_INET6 },
		"urgent":           func(s *dump.Socket) { s.Tcp.Urgent = 9 },
		"scale":            func(s *dump.Socket) { s.Tcp.SendScale = 15 },
		"received scale":   func(s *dump.Socket) { s.Tcp.ReceiveScale = 1 << 31 },
		"waits with data":  func(s *dump.Socket) { s.Tcp.Waiting = true },
		"MPTCP":            func(s *dump.Socket) { s.Protocol = unix.IPPROTO_MPTCP },
		"dead MPTCP":       func(s *dump.Socket) { s.Protocol, s.Tcp.State = unix.IPPROTO_MPTCP, dump.Tcp_DEAD },
		"messages":         func(s *dump.Socket) { s.Queue = []*dump.Datagram{{}} },
		"memberships":      func(s *dump.Socket) { s.Memberships = []*dump.Membership{{}} },
		"filter":           func(s *dump.Socket) { s.Filter = make([]byte, 9) },
		"mark without a right": func(s *dump.Socket) {
			s.Options = []*dump.SockOpt{{Level: unix.SOL_SOCKET, Name: unix.SO_MARK, Value: []byte{1, 0, 0, 0}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := proto.CloneOf(good)
			spoil(bad)
			if err := check(bad, 0); err == nil {
				t.Error("no error")
			}
		})
	}
}
