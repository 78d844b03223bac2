package plane

import (
	"errors"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"vps/linux"
)

// Programs are what decides about each packet.
//
//	out   what an instance sends, at the host's end of its link
//	in    what the host's stack sends to an instance, there too
//	back  what was kept while a gate was closed and is now put back, at the tap that kept it
type Programs struct {
	Out, In, Back *ebpf.Program
}

// Load loads the programs. The caller closes them.
func (t *Tables) Load() (p *Programs, err error) {
	p = &Programs{}
	for _, one := range []struct {
		to    **ebpf.Program
		name  string
		build func(*Tables) asm.Instructions
	}{{&p.Out, "vps_out", outProgram}, {&p.In, "vps_in", inProgram}, {&p.Back, "vps_back", backProgram}} {
		*one.to, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: one.name, Type: ebpf.SchedCLS, Instructions: one.build(t), License: "GPL",
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load program %s: %w", one.name, err), p.Close())
		}
	}
	return p, nil
}

// Close lets go of the programs, which stay attached.
func (p *Programs) Close() error { return errors.Join(p.Out.Close(), p.In.Close(), p.Back.Close()) }

// kept packets are marked in their destination's MAC address, which says where they were going. A fresh one never has it: the
// links have other addresses.
var (
	keptIn  = [6]byte{0x02, 'v', 'p', 's', 0, 1}
	keptOut = [6]byte{0x02, 'v', 'p', 's', 0, 2}
)

const (
	// passMark is the mark of a packet that was kept on its way out, and may pass a gate that is closed yet. What comes through
	// the link has none: it is lost between namespaces.
	passMark = 0x767073

	// keptOverhead is what a kept packet takes besides its bytes, about struct sk_buff and struct skb_shared_info.
	keptOverhead = 768

	// A packet to a neighbour of the host's that it has to look for takes seekCost of an instance's budget, ns, of which there are
	// at most seekBurst: nobody fills the table of neighbours, which is one for all.
	seekCost  = 100e6
	seekBurst = 5e9

	// burst is by how much an instance may be ahead of its bandwidth, ns.
	burst = 250e6
)

// Registers of the programs that last: the packet, the entry of the port where it is, and of one that it goes to.
const (
	rPacket = asm.R6
	rPort   = asm.R7
	rTarget = asm.R8
)

// Places on the stack, below the frame pointer.
const (
	atKey    = -4  // of a table
	atPort   = -8  // the port's number
	atMAC    = -16 // a MAC address
	atDest   = -32 // the packet's addresses, as keys of the table of addresses
	atSource = -48
	atRoute  = -112 // struct bpf_fib_lookup
)

// Offsets of fields.
var (
	portInstance = int16(unsafe.Offsetof(Port{}.instance))
	portIfindex  = int16(unsafe.Offsetof(Port{}.ifindex))
	portGate     = int16(unsafe.Offsetof(Port{}.gate))
	portHold     = int16(unsafe.Offsetof(Port{}.hold))
	portRoom     = int16(unsafe.Offsetof(Port{}.room))
	portOut      = int16(unsafe.Offsetof(Port{}.out))
	portIn       = int16(unsafe.Offsetof(Port{}.in))
	portSpoofed  = int16(unsafe.Offsetof(Port{}.spoofed))
	portForeign  = int16(unsafe.Offsetof(Port{}.foreign))
	portItself   = int16(unsafe.Offsetof(Port{}.itself))
	portLost     = int16(unsafe.Offsetof(Port{}.lost))
	portSeek     = int16(unsafe.Offsetof(Port{}.seek))
	portFlooded  = int16(unsafe.Offsetof(Port{}.flooded))

	trafficPackets = int16(unsafe.Offsetof(traffic{}.packets))
	trafficBytes   = int16(unsafe.Offsetof(traffic{}.bytes))
	trafficCost    = int16(unsafe.Offsetof(traffic{}.cost))
	trafficNext    = int16(unsafe.Offsetof(traffic{}.next))
	trafficLimited = int16(unsafe.Offsetof(traffic{}.limited))

	ownerPort     = int16(unsafe.Offsetof(owner{}.Port))
	ownerInstance = int16(unsafe.Offsetof(owner{}.Instance))
	ownerAbsent   = int16(unsafe.Offsetof(owner{}.Absent))

	skbLen      = int16(unsafe.Offsetof(linux.SkBuff{}.Len))
	skbMark     = int16(unsafe.Offsetof(linux.SkBuff{}.Mark))
	skbProtocol = int16(unsafe.Offsetof(linux.SkBuff{}.Protocol))
	skbVLAN     = int16(unsafe.Offsetof(linux.SkBuff{}.VlanPresent))
	skbIfindex  = int16(unsafe.Offsetof(linux.SkBuff{}.Ifindex))
	skbGSOSegs  = int16(unsafe.Offsetof(linux.SkBuff{}.GSOSegs))
)

// outProgram sends a packet of an instance to the instance that owns its destination, or else to the host's stack.
func outProgram(t *Tables) asm.Instructions {
	return join(
		findPort(t),
		readAddresses("foreign"),
		lookup(t.addresses, atSource),
		asm.JEq.Imm(asm.R0, 0, "spoofed"),
		asm.LoadMem(asm.R1, asm.R0, ownerInstance, asm.Word),
		asm.LoadMem(asm.R2, rPort, portInstance, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "spoofed"),

		asm.LoadMem(asm.R1, rPort, portGate, asm.Word),
		asm.And.Imm(asm.R1, GateOut),
		asm.JEq.Imm(asm.R1, 0, "open"),
		asm.LoadMem(asm.R1, rPacket, skbMark, asm.Word),
		asm.JEq.Imm(asm.R1, passMark, "open"),
		mac(keptOut),
		asm.Mov.Reg(rTarget, rPort),
		asm.Ja.Label("keep"),

		label("open", asm.Mov.Imm(asm.R1, 0)),
		asm.StoreMem(rPacket, skbMark, asm.R1, asm.Word),
		limit(rPort, portOut),
		toHost(),
		lookup(t.addresses, atDest),
		asm.JEq.Imm(asm.R0, 0, "host"),
		asm.LoadMem(asm.R1, asm.R0, ownerAbsent, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "host"), // which says that it is unreachable
		asm.LoadMem(asm.R1, asm.R0, ownerPort, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, atPort, asm.Word),
		asm.JEq.Reg(asm.R1, asm.R2, "itself"),
		asm.StoreMem(asm.RFP, atKey, asm.R1, asm.Word),
		lookup(t.ports, atKey),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Reg(rTarget, asm.R0),

		asm.LoadMem(asm.R1, rTarget, portGate, asm.Word),
		asm.And.Imm(asm.R1, GateIn),
		asm.JEq.Imm(asm.R1, 0, "peer"),
		count("held", rPort, portOut),
		mac(keptIn),
		asm.Ja.Label("keep"),

		label("peer", asm.Mov.Imm(asm.R1, 0)),
		limit(rTarget, portIn),
		count("sent", rPort, portOut),
		count("received", rTarget, portIn),
		asm.LoadMem(asm.R1, rTarget, portIfindex, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),

		label("host", asm.Mov.Imm(asm.R1, 0)),
		seek(),
		count("sent to host", rPort, portOut),
		verdict(linux.TCX_NEXT),

		keep(),
		lose("foreign", rPort, portForeign),
		lose("spoofed", rPort, portSpoofed),
		lose("itself", rPort, portItself),
		lose("flooded", rPort, portFlooded),
		label("drop", asm.Mov.Imm(asm.R0, linux.TCX_DROP)),
		asm.Return(),
	)
}

// inProgram lets pass what the host's stack sends to an address of the port.
func inProgram(t *Tables) asm.Instructions {
	return join(
		findPort(t),
		readAddresses("drop"),
		lookup(t.addresses, atDest),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, ownerPort, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, atPort, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "drop"),
		asm.LoadMem(asm.R1, rPort, portGate, asm.Word),
		asm.And.Imm(asm.R1, GateIn),
		asm.JEq.Imm(asm.R1, 0, "open"),
		mac(keptIn),
		asm.Mov.Reg(rTarget, rPort),
		asm.Ja.Label("keep"),

		label("open", asm.Mov.Imm(asm.R1, 0)),
		limit(rPort, portIn),
		count("received from host", rPort, portIn),
		verdict(linux.TCX_NEXT),

		keep(),
		label("drop", asm.Mov.Imm(asm.R0, linux.TCX_DROP)),
		asm.Return(),
	)
}

// backProgram sends what was kept where it was going.
func backProgram(t *Tables) asm.Instructions {
	return join(
		findPort(t),
		load(0, atMAC, len(keptIn), "drop"),
		toHost(),
		asm.LoadMem(asm.R1, asm.RFP, atMAC+5, asm.Byte),
		asm.JEq.Imm(asm.R1, int32(keptOut[5]), "out"),
		asm.JNE.Imm(asm.R1, int32(keptIn[5]), "drop"),
		count("put back", rPort, portIn),
		asm.LoadMem(asm.R1, rPort, portIfindex, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),

		label("out", asm.Mov.Imm(asm.R1, passMark)),
		asm.StoreMem(rPacket, skbMark, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, rPort, portIfindex, asm.Word),
		asm.Mov.Imm(asm.R2, unix.BPF_F_INGRESS),
		asm.FnRedirect.Call(),
		asm.Return(),

		label("drop", asm.Mov.Imm(asm.R0, linux.TCX_DROP)),
		asm.Return(),
	)
}

// findPort finds the port of the link where the packet is.
func findPort(t *Tables) asm.Instructions {
	return join(
		asm.Mov.Reg(rPacket, asm.R1),
		asm.LoadMem(asm.R1, rPacket, skbIfindex, asm.Word),
		asm.StoreMem(asm.RFP, atKey, asm.R1, asm.Word),
		lookup(t.links, atKey),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, atPort, asm.R1, asm.Word),
		lookup(t.ports, atPort),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Reg(rPort, asm.R0),
	)
}

// readAddresses puts the packet's addresses on the stack. What is neither IPv4 nor IPv6 to a single destination jumps to foreign.
func readAddresses(foreign string) asm.Instructions {
	const (
		ethernet = 14 // header's length
		source4  = ethernet + 12
		dest4    = ethernet + 16
		source6  = ethernet + 8
	)
	return join(
		asm.LoadMem(asm.R1, rPacket, skbVLAN, asm.Word),
		asm.JNE.Imm(asm.R1, 0, foreign),
		asm.LoadMem(asm.R1, rPacket, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R1, networkOrder(unix.ETH_P_IP), "ipv4"),
		asm.JNE.Imm(asm.R1, networkOrder(unix.ETH_P_IPV6), foreign),
		load(source6, atSource, 32, foreign),
		asm.LoadMem(asm.R1, asm.RFP, atDest, asm.Byte),
		asm.JEq.Imm(asm.R1, 0xff, foreign), // multicast
		asm.Ja.Label("addresses"),

		label("ipv4", asm.Mov.Imm(asm.R1, 0)), // as netip.Addr.As16 has it: ::ffff:0:0/96
		asm.StoreMem(asm.RFP, atSource, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, atDest, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R1, -0x10000),
		asm.StoreMem(asm.RFP, atSource+8, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, atDest+8, asm.R1, asm.Word),
		load(source4, atSource+12, 4, foreign),
		load(dest4, atDest+12, 4, foreign),
		asm.LoadMem(asm.R1, asm.RFP, atDest+12, asm.Byte),
		asm.JGE.Imm(asm.R1, 224, foreign), // multicast, reserved, broadcast
		label("addresses", asm.Mov.Imm(asm.R1, 0)),
	)
}

// keep sends the packet to the tap of the target, with the MAC address at atMAC, or loses it if there is no room.
func keep() asm.Instructions {
	return join(
		label("keep", asm.LoadMem(asm.R9, rPacket, skbLen, asm.Word)),
		asm.Add.Imm(asm.R9, keptOverhead),
		asm.LoadMem(asm.R1, rTarget, portRoom, asm.DWord), // as many processors as there are may see the same
		asm.JSGE.Reg(asm.R1, asm.R9, "room"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(rTarget, asm.R1, asm.DWord, portLost),
		asm.Ja.Label("drop"),

		label("room", asm.Neg.Imm(asm.R9, 0)),
		asm.AddAtomic.Mem(rTarget, asm.R9, asm.DWord, portRoom),
		asm.Mov.Reg(asm.R1, rPacket),
		asm.Mov.Imm(asm.R2, 0),
		stack(asm.R3, atMAC),
		asm.Mov.Imm(asm.R4, int32(len(keptIn))),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.LoadMem(asm.R1, rTarget, portHold, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	)
}

// limit drops the packet if a direction of a port is too far ahead of its bandwidth.
func limit(entry asm.Register, direction int16) asm.Instructions {
	name := fmt.Sprintf("limit %v %d ", entry, direction)
	return join(
		asm.LoadMem(asm.R9, entry, direction+trafficCost, asm.DWord),
		asm.JEq.Imm(asm.R9, 0, name+"none"),
		asm.LoadMem(asm.R1, rPacket, skbLen, asm.Word),
		asm.Mul.Reg(asm.R9, asm.R1),
		asm.RSh.Imm(asm.R9, int32(bits.TrailingZeros(costUnit))),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, entry, direction+trafficNext, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R0, name+"ahead"),
		asm.Mov.Reg(asm.R1, asm.R0),
		label(name+"ahead", asm.Mov.Reg(asm.R2, asm.R1)),
		asm.Sub.Reg(asm.R2, asm.R0),
		asm.JLE.Imm(asm.R2, burst, name+"pass"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(entry, asm.R1, asm.DWord, direction+trafficLimited),
		asm.Ja.Label("drop"),
		label(name+"pass", asm.Add.Reg(asm.R1, asm.R9)),
		asm.StoreMem(entry, direction+trafficNext, asm.R1, asm.DWord),
		label(name+"none", asm.Mov.Imm(asm.R1, 0)),
	)
}

// seek drops the packet if the host would have to look for a neighbour, and has had to for this port often enough.
func seek() asm.Instructions {
	const (
		size    = int16(unsafe.Sizeof(linux.BPFFibLookup{}))
		ifindex = int16(unsafe.Offsetof(linux.BPFFibLookup{}.Ifindex))
		source  = int16(unsafe.Offsetof(linux.BPFFibLookup{}.Src))
		dest    = int16(unsafe.Offsetof(linux.BPFFibLookup{}.Dst))
	)
	words := func(to, from, n int16) (all asm.Instructions) {
		for i := int16(0); i < n; i += 4 {
			all = append(all, asm.LoadMem(asm.R1, asm.RFP, from+i, asm.Word), asm.StoreMem(asm.RFP, to+i, asm.R1, asm.Word))
		}
		return all
	}
	var zero asm.Instructions
	for i := int16(0); i < size; i += 8 {
		zero = append(zero, asm.StoreMem(asm.RFP, atRoute+i, asm.R1, asm.DWord))
	}
	return join(
		zero,
		asm.LoadMem(asm.R1, rPacket, skbIfindex, asm.Word),
		asm.StoreMem(asm.RFP, atRoute+ifindex, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, rPacket, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R1, networkOrder(unix.ETH_P_IP), "seek ipv4"),
		asm.StoreImm(asm.RFP, atRoute, unix.AF_INET6, asm.Byte),
		words(atRoute+source, atSource, 16),
		words(atRoute+dest, atDest, 16),
		asm.Ja.Label("seek route"),
		label("seek ipv4", asm.StoreImm(asm.RFP, atRoute, unix.AF_INET, asm.Byte)),
		words(atRoute+source, atSource+12, 4),
		words(atRoute+dest, atDest+12, 4),
		label("seek route", asm.Mov.Reg(asm.R1, rPacket)),
		stack(asm.R2, atRoute),
		asm.Mov.Imm(asm.R3, int32(size)),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnFibLookup.Call(),
		asm.JNE.Imm(asm.R0, linux.BPF_FIB_LKUP_RET_NO_NEIGH, "known"),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, rPort, portSeek, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R0, "seek ahead"),
		asm.Mov.Reg(asm.R1, asm.R0),
		label("seek ahead", asm.Mov.Reg(asm.R2, asm.R1)),
		asm.Sub.Reg(asm.R2, asm.R0),
		asm.LoadImm(asm.R3, seekBurst, asm.DWord),
		asm.JGT.Reg(asm.R2, asm.R3, "flooded"),
		asm.Add.Imm(asm.R1, seekCost),
		asm.StoreMem(rPort, portSeek, asm.R1, asm.DWord),
		label("known", asm.Mov.Imm(asm.R1, 0)),
	)
}

// count adds the packet, or the packets that it stands for, to a direction of a port.
func count(name string, entry asm.Register, direction int16) asm.Instructions {
	name = "count " + name
	return join(
		asm.LoadMem(asm.R1, rPacket, skbGSOSegs, asm.Word),
		asm.JNE.Imm(asm.R1, 0, name),
		asm.Mov.Imm(asm.R1, 1),
		label(name, asm.AddAtomic.Mem(entry, asm.R1, asm.DWord, direction+trafficPackets)),
		asm.LoadMem(asm.R1, rPacket, skbLen, asm.Word),
		asm.AddAtomic.Mem(entry, asm.R1, asm.DWord, direction+trafficBytes),
	)
}
