package linux

import (
	"testing"
	"unsafe"
)

func TestInetDiagLayout(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"InetDiagSockID":       {unsafe.Sizeof(InetDiagSockID{}), 48},
		"InetDiagReq":          {unsafe.Sizeof(InetDiagReq{}), 56},
		"InetDiagReq.ID":       {unsafe.Offsetof(InetDiagReq{}.ID), 8},
		"InetDiagMsg":          {unsafe.Sizeof(InetDiagMsg{}), 72},
		"InetDiagMsg.Ino":      {unsafe.Offsetof(InetDiagMsg{}.Ino), 68},
		"PacketDiagReq":        {unsafe.Sizeof(PacketDiagReq{}), 20},
		"PacketDiagMsg":        {unsafe.Sizeof(PacketDiagMsg{}), 16},
		"PacketDiagMembership": {unsafe.Sizeof(PacketDiagMembership{}), 44},
		"PacketDiagRing":       {unsafe.Sizeof(PacketDiagRing{}), 28},
		"TCPRepairWindow":      {unsafe.Sizeof(TCPRepairWindow{}), 20},
		"TCPRepairOpt":         {unsafe.Sizeof(TCPRepairOpt{}), 8},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s is %d, want %d", name, sizes[0], sizes[1])
		}
	}
}
