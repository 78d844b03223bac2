package config

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Real-time signals as the C library numbers them for programs, signal(7): it keeps the kernel's first two.
const (
	rtMin = 34
	rtMax = 64
)

// ParseSignal reads a signal: a name with or without SIG, RTMIN+n or RTMAX-n, or a number.
func ParseSignal(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	least, base, offset := 1, 0, name
	if after, ok := strings.CutPrefix(name, "RTMIN"); ok {
		least, base, offset = rtMin, rtMin, after
	} else if after, ok := strings.CutPrefix(name, "RTMAX"); ok {
		least, base, offset = rtMin, rtMax, after
	}
	signed := strings.HasPrefix(offset, "+") || strings.HasPrefix(offset, "-")
	n, err := strconv.Atoi(offset)
	if base != 0 && offset == "" {
		n, err, signed = 0, nil, true
	}
	if err != nil || signed != (base != 0) || base+n < least || base+n > rtMax {
		return 0, fault("%s is no signal", shown(s)).hint("a name such as TERM or RTMIN+3, or a number from 1 to %d", rtMax)
	}
	return syscall.Signal(base + n), nil
}

// SignalName returns the signal's name as [ParseSignal] reads it, "SIGTERM" or "SIGRTMIN+3"; "" for 0.
func SignalName(sig syscall.Signal) string {
	switch name := unix.SignalName(sig); {
	case sig == 0 || name != "":
		return name
	case sig == rtMin:
		return "SIGRTMIN"
	case sig > rtMin:
		return fmt.Sprintf("SIGRTMIN+%d", sig-rtMin)
	}
	return strconv.Itoa(int(sig))
}
