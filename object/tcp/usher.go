package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/socket"
)

// usher puts connections into the accept queues of listeners of a network namespace. For each, it sends the segment that ends a
// handshake, in the name of the peer; a BPF program at the loopback interface tells the kernel what the handshake agreed on, as it does where
// such a program has answered for SYN cookies (bpf_sk_assign_tcp_reqsk, Linux 6.9).
type usher struct {
	ns      *socket.Namespace
	inject  *socket.Injector
	agreed  *ebpf.Map
	program *ebpf.Program
	link    link.Link // nil: not attached yet
}

// usherMark marks the segments that the program looks at.
const usherMark = 0x76707363

// loopbackIndex is that of the loopback interface of every network namespace.
const loopbackIndex = 1

// newUsher makes an usher. The caller closes it.
func newUsher(ns *socket.Namespace) (u *usher, err error) {
	u = &usher{ns: ns}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	var assign *btf.Func
	if err := types.TypeByName("bpf_sk_assign_tcp_reqsk", &assign); err != nil {
		return nil, fmt.Errorf("bpf_sk_assign_tcp_reqsk: %w", err)
	}
	id, err := types.TypeID(assign)
	if err != nil {
		return nil, fmt.Errorf("bpf_sk_assign_tcp_reqsk: %w", err)
	}
	u.agreed, err = ebpf.NewMap(&ebpf.MapSpec{Name: "vps_usher", Type: ebpf.Array, KeySize: 4, ValueSize: agreementSize, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make a map: %w", err)
	}
	u.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vps_usher", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: usherProgram(u.agreed, int64(id)),
	})
	if err != nil {
		return nil, fmt.Errorf("load the program that fills accept queues: %w", err)
	}
	return u, nil
}

func (u *usher) close() {
	if u.link != nil {
		u.link.Close()
	}
	if u.program != nil {
		u.program.Close()
	}
	if u.agreed != nil {
		u.agreed.Close()
	}
	if u.inject != nil {
		u.inject.Close()
	}
}

// Places in the value of the map: struct bpf_tcp_req_attrs of include/net/tcp.h, then the size of a struct bpf_sock_tuple and the tuple.
const (
	attrsSize     = 20
	tupleSizeAt   = 20
	tupleAt       = 24
	tuple4        = 12
	tuple6        = 36
	agreementSize = tupleAt + tuple6
)

// usherProgram gives a marked packet a request of what the map says, at the listener that it is for.
func usherProgram(agreed *ebpf.Map, assign int64) asm.Instructions {
	const markAt, keyAt, thisNetwork, next = 8, -4, -1, -1 // of struct __sk_buff; on the stack; BPF_F_CURRENT_NETNS; TCX_NEXT
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, markAt, asm.Word),
		asm.JNE.Imm32(asm.R2, usherMark, "out"),
		asm.StoreImm(asm.RFP, keyAt, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, agreed.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, keyAt),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R7, asm.R0),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, tupleAt),
		asm.LoadMem(asm.R3, asm.R7, tupleSizeAt, asm.Word),
		asm.Mov.Imm(asm.R4, thisNetwork),
		asm.Mov.Imm(asm.R5, 0),
		asm.JEq.Imm(asm.R3, tuple6, "IPv6"),
		asm.Mov.Imm(asm.R3, tuple4),
		asm.Ja.Label("find"),
		asm.Mov.Imm(asm.R3, tuple6).WithSymbol("IPv6"),
		asm.FnSkcLookupTcp.Call().WithSymbol("find"),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.FnSkcToTcpSock.Call(),
		asm.JEq.Imm(asm.R0, 0, "release"),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Mov.Imm(asm.R4, attrsSize),
		asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: assign},
		asm.Mov.Reg(asm.R1, asm.R8).WithSymbol("release"),
		asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("out"),
		asm.Return(),
	}
}

// agreement is what the program is told of a connection. passed is how long ago it was read.
func agreement(s *dump.Socket, passed time.Duration) []byte {
	t := s.GetTcp()
	peer, local := endpoint(s.GetPeer()), endpoint(s.GetLocal())
	tuple := append(peer.Addr().AsSlice(), local.Addr().AsSlice()...)
	tuple = binary.BigEndian.AppendUint16(tuple, peer.Port())
	tuple = binary.BigEndian.AppendUint16(tuple, local.Port())

	flag := func(set bool) byte {
		if set {
			return 1
		}
		return 0
	}
	least := uint32(536) // what the kernel asks for: TCP_MSS_DEFAULT, IPV6_MIN_MTU - 60
	if peer.Addr().Is6() {
		least = 1220
	}
	now := stamp(t.GetTimestamp(), passed+stampSlack)
	b := binary.NativeEndian.AppendUint32(nil, 0) // the peer's timestamp: the next segment tells it
	b = binary.NativeEndian.AppendUint32(b, now)
	b = binary.NativeEndian.AppendUint16(b, uint16(min(max(t.GetMss(), least), 0xffff)))
	const ecn = 0
	b = append(b, byte(t.GetReceiveScale()), byte(t.GetSendScale()), ecn,
		flag(t.GetWindowScaling()), flag(t.GetSack()), flag(t.GetTimestamps()), flag(t.GetTimestamps() && now&1 != 0), 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(tuple)))
	return append(append(b, tuple...), make([]byte, agreementSize-tupleAt-len(tuple))...)
}

// put puts a connection into the accept queue of the listener at its address, which a descriptor of ours is open on, with what it has received.
func (u *usher) put(listener int, s *dump.Socket, passed time.Duration) error {
	if err := u.begin(); err != nil {
		return err
	}
	if err := u.agreed.Put(uint32(0), agreement(s, passed)); err != nil {
		return fmt.Errorf("tell what was agreed on: %w", err)
	}
	before, err := readInfo(listener)
	if err != nil {
		return err
	}
	if err := u.inject.Mark(usherMark); err != nil {
		return err
	}
	err = say(u.inject, []segment{fromPeer(s, 0, 0, nil)}, func() (bool, error) {
		now, err := readInfo(listener)
		return now.unacked != before.unacked, err
	})
	err = errors.Join(err, u.inject.Mark(0))
	if err != nil {
		return fmt.Errorf("the accept queue does not take it: %w", err)
	}
	return u.fill(s)
}

// begin attaches the program.
func (u *usher) begin() error {
	if u.link != nil {
		return nil
	}
	return u.ns.Do(func() (err error) {
		if u.inject == nil {
			if u.inject, err = socket.NewInjectorHere(); err != nil {
				return err
			}
		}
		u.link, err = link.AttachTCX(link.TCXOptions{Interface: loopbackIndex, Program: u.program, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return fmt.Errorf("attach the program that fills accept queues: %w", err)
		}
		return nil
	})
}

// segmentSize fits through the loopback interface.
const segmentSize = 16 << 10

// fill sends what a waiting connection has received, and its peer's FIN.
func (u *usher) fill(s *dump.Socket) error {
	data := s.GetTcp().GetReceived()
	size := len(data)
	var segments []segment
	for at := 0; at < len(data); at += segmentSize {
		segments = append(segments, fromPeer(s, at, 0, data[at:min(at+segmentSize, len(data))]))
	}
	if finReceived(s.GetTcp().GetState()) {
		size++
		segments = append(segments, fromPeer(s, len(data), flagFin, nil))
	}
	if size == 0 {
		return nil
	}
	family := uint8(s.GetFamily())
	err := say(u.inject, segments, func() (arrived bool, err error) {
		err = u.ns.Do(func() error {
			list, err := socket.ReadDiag(family, unix.IPPROTO_TCP, false)
			for _, d := range list {
				if d.Ino == 0 && (way{endpoint(d.Local()), endpoint(d.Peer())}) == wayOf(s) {
					arrived = int(d.RQueue) >= size
				}
			}
			return err
		})
		return arrived, err
	})
	if err != nil {
		return fmt.Errorf("%d bytes for who waits to be accepted: %w", size, err)
	}
	return nil
}

// arrivalTime is how long a segment may be on its way over the loopback interface; after resendTime it is sent again, as its route may be
// new: an address of IPv6 has one only some time after it is there.
const (
	arrivalTime = time.Second
	resendTime  = 20 * time.Millisecond
)

// say sends segments to a socket of the instance, and waits until they have been heard.
func say(inject *socket.Injector, segments []segment, heard func() (bool, error)) error {
	var last time.Time
	for end := time.Now().Add(arrivalTime); ; time.Sleep(50 * time.Microsecond) {
		if time.Since(last) > resendTime {
			for _, s := range segments {
				if err := inject.Send(s.packet()); err != nil {
					return err
				}
			}
			last = time.Now()
		}
		if ok, err := heard(); ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return unix.ETIMEDOUT
		}
	}
}

// acceptAll takes the connections out of an accept queue. The caller closes them.
func acceptAll(listener int) ([]int, error) {
	var list []int
	for {
		info, err := readInfo(listener)
		if err != nil || info.unacked == 0 {
			return list, err
		}
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return list, fmt.Errorf("accept: %w", err)
		}
		list = append(list, fd)
	}
}
