package account

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Values of struct bpf_cgroup_dev_ctx, include/uapi/linux/bpf.h; its
// access_type is access << 16 | type.
const (
	devBlock = 1
	devChar  = 2

	accessMknod = 1
	accessRead  = 2
	accessWrite = 4
)

// SetDevices lets the instance open and make the device nodes of the list, and
// no others; a later call replaces the list, also while the instance runs. A
// rule is written as in devices.allow of cgroup v1 (cgroup-v1/devices.rst):
// type (c, b, or a for both), MAJOR:MINOR with * for any, and accesses r, w, m
// (mknod), as in "c 1:3 rwm".
//
// It is a BPF program on the v2 group, which works on hybrid hosts too, lives
// as long as the group, and cannot be reached from a mounted v1 hierarchy. It
// needs CONFIG_CGROUP_BPF and CAP_BPF with CAP_NET_ADMIN, or CAP_SYS_ADMIN.
func (g *Group) SetDevices(rules []string) error {
	var list []deviceRule
	for _, text := range rules {
		r, err := parseDeviceRule(text)
		if err != nil {
			return err
		}
		list = append(list, r)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "vps_devices",
		Type:         ebpf.CGroupDevice,
		Instructions: deviceProgram(list),
		License:      "Apache-2.0",
	})
	if err != nil {
		return fmt.Errorf("load device filter: %w", err)
	}
	defer program.Close()

	group, err := os.OpenFile(g.dir(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer group.Close()
	// Without flags: takes the place of an earlier one, and nobody below may
	// attach another.
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(group.Fd()), Program: program, Attach: ebpf.AttachCGroupDevice,
	})
	if err != nil {
		return fmt.Errorf("attach device filter to %s: %w", g.dir(), err)
	}
	return nil
}

type deviceRule struct {
	kind         int32 // devBlock, devChar, or 0 for both
	major, minor int32 // -1 for any
	access       int32
}

func parseDeviceRule(text string) (r deviceRule, err error) {
	bad := func(what string) (deviceRule, error) {
		return r, fmt.Errorf("device rule %q: %s: %w", text, what, fs.ErrInvalid)
	}
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return bad("want TYPE MAJOR:MINOR ACCESS")
	}
	switch fields[0] {
	case "a":
	case "b":
		r.kind = devBlock
	case "c":
		r.kind = devChar
	default:
		return bad("type is not a, b or c")
	}
	major, minor, _ := strings.Cut(fields[1], ":")
	for text, number := range map[*string]*int32{&major: &r.major, &minor: &r.minor} {
		if *text == "*" {
			*number = -1
			continue
		}
		n, err := strconv.ParseUint(*text, 10, 31)
		if err != nil {
			return bad("malformed device number")
		}
		*number = int32(n)
	}
	for _, c := range fields[2] {
		bit, ok := map[rune]int32{'r': accessRead, 'w': accessWrite, 'm': accessMknod}[c]
		if !ok {
			return bad("access is not of r, w, m")
		}
		r.access |= bit
	}
	return r, nil
}

// deviceProgram answers 1, go on, if one rule allows all of an access, else 0,
// which becomes EPERM.
func deviceProgram(rules []deviceRule) asm.Instructions {
	const (
		kind, access = asm.R2, asm.R3
		major, minor = asm.R4, asm.R5
		rest         = asm.R6
	)
	program := asm.Instructions{
		asm.LoadMem(kind, asm.R1, 0, asm.Word),
		asm.Mov.Reg(access, kind),
		asm.And.Imm(kind, 0xffff),
		asm.RSh.Imm(access, 16),
		asm.LoadMem(major, asm.R1, 4, asm.Word),
		asm.LoadMem(minor, asm.R1, 8, asm.Word),
	}
	label := ""
	add := func(code ...asm.Instruction) {
		if label != "" {
			code[0] = code[0].WithSymbol(label)
			label = ""
		}
		program = append(program, code...)
	}
	for i, r := range rules {
		next := fmt.Sprintf("rule%d", i+1)
		add(
			asm.Mov.Reg(rest, access),
			asm.And.Imm(rest, ^r.access),
			asm.JNE.Imm(rest, 0, next),
		)
		if r.kind != 0 {
			add(asm.JNE.Imm(kind, r.kind, next))
		}
		if r.major >= 0 {
			add(asm.JNE.Imm(major, r.major, next))
		}
		if r.minor >= 0 {
			add(asm.JNE.Imm(minor, r.minor, next))
		}
		add(asm.Mov.Imm(asm.R0, 1), asm.Return())
		label = next
	}
	add(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return program
}
