package plane

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"golang.org/x/sys/unix"
)

// join puts instructions and lists of them together.
func join(parts ...any) asm.Instructions {
	var all asm.Instructions
	for _, p := range parts {
		switch p := p.(type) {
		case asm.Instruction:
			all = append(all, p)
		case asm.Instructions:
			all = append(all, p...)
		}
	}
	return all
}

// label names an instruction, to be jumped to.
func label(name string, i asm.Instruction) asm.Instruction { return i.WithSymbol(name) }

// stack puts the address of a place on the stack into a register.
func stack(r asm.Register, at int16) asm.Instructions {
	return join(asm.Mov.Reg(r, asm.RFP), asm.Add.Imm(r, int32(at)))
}

// lookup puts the address of a table's entry into R0, 0 if there is none for the key on the stack.
func lookup(m *ebpf.Map, key int16) asm.Instructions {
	return join(asm.LoadMapPtr(asm.R1, m.FD()), stack(asm.R2, key), asm.FnMapLookupElem.Call())
}

// load copies bytes of the packet to the stack. A packet that is too short jumps to short.
func load(offset int32, to int16, n int, short string) asm.Instructions {
	return join(
		asm.Mov.Reg(asm.R1, rPacket),
		asm.Mov.Imm(asm.R2, offset),
		stack(asm.R3, to),
		asm.Mov.Imm(asm.R4, int32(n)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, short),
	)
}

// mac puts a MAC address on the stack.
func mac(a [6]byte) asm.Instructions {
	return join(
		asm.StoreImm(asm.RFP, atMAC, int64(binary.LittleEndian.Uint32(a[:])), asm.Word),
		asm.StoreImm(asm.RFP, atMAC+4, int64(binary.LittleEndian.Uint16(a[4:])), asm.Half),
	)
}

// toHost makes the packet one for who receives it, whatever MAC address it has.
func toHost() asm.Instructions {
	return join(asm.Mov.Reg(asm.R1, rPacket), asm.Mov.Imm(asm.R2, unix.PACKET_HOST), asm.FnSkbChangeType.Call())
}

func verdict(v int32) asm.Instructions { return join(asm.Mov.Imm(asm.R0, v), asm.Return()) }

// lose counts the packet in a field of a port, and drops it.
func lose(name string, entry asm.Register, field int16) asm.Instructions {
	return join(
		label(name, asm.Mov.Imm(asm.R1, 1)),
		asm.AddAtomic.Mem(entry, asm.R1, asm.DWord, field),
		asm.Ja.Label("drop"),
	)
}

// networkOrder is a 16-bit number as a packet has it, read as one of ours.
func networkOrder(n uint16) int32 {
	return int32(binary.LittleEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}
