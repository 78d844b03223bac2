package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"vps/linux"
)

// isolatedVariable is set for a program that isolate has started.
const isolatedVariable = "VPS_BENCH_ISOLATED"

// isolate executes this program again in a network namespace of its own, which is the host's for all it measures.
func isolate() error {
	if os.Getenv(isolatedVariable) != "" {
		if text, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil { // CRIU tries TCP
			return fmt.Errorf("ip link set lo up: %w: %s", err, text)
		}
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare the network: %w", err)
	}
	err := unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), isolatedVariable+"=1"))
	return fmt.Errorf("execute %s again: %w", os.Args[0], err)
}

// hostAddress is the host's in the network that somebody outside is in.
const hostAddress = "192.0.2.1"

// place is the network namespace of a process.
type place struct{ pid int }

// ip runs ip(8) in it.
func (l *lab) ip(p place, args string) error {
	_, err := l.run(p.command("ip", strings.Fields(args)...)...)
	return err
}

// command is the command line of a program that runs there.
func (p place) command(name string, args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(p.pid), "--net", name}, args...)
}

// do runs f on a thread that is there. What it opens stays there.
func (p place) do(f func() error) error {
	return linux.OnSpareThread(func() error {
		ns, err := netns.GetFromPid(p.pid)
		if err != nil {
			return fmt.Errorf("network of process %d: %w", p.pid, err)
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter the network of process %d: %w", p.pid, err)
		}
		return f()
	})
}

func (p place) dial(address string) (c net.Conn, err error) {
	err = p.do(func() (err error) {
		c, err = net.Dial("tcp", address)
		return err
	})
	return c, err
}

// echo serves, on a port of all addresses, what sends back whatever comes.
func (p place) echo(port int) (l net.Listener, err error) {
	err = p.do(func() (err error) {
		l, err = net.Listen("tcp", ":"+strconv.Itoa(port))
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer c.Close()
				io.Copy(c, c) // until the other end is closed
			}()
		}
	}()
	return l, nil
}

// host is where this program is.
func host() place { return place{os.Getpid()} }

// newPlace makes a place that lasts until the lab is closed. A veth pair leads there: one end is the link in the host, the other
// one eth0 in the place, with an address.
func (l *lab) newPlace(link, address string) (place, error) {
	cmd := exec.Command("cat") // which ends with us, whatever ends us
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		return place{}, err
	}
	if err := cmd.Start(); err != nil {
		return place{}, err
	}
	l.undos = append(l.undos, func() error {
		in.Close()
		return cmd.Wait()
	})
	p := place{cmd.Process.Pid}
	return p, errors.Join(
		l.ip(host(), fmt.Sprintf("link add %s type veth peer name eth0 netns %d", link, p.pid)),
		l.ip(host(), "link set "+link+" up"),
		l.ip(p, "addr add "+address+"/24 dev eth0"), l.ip(p, "link set eth0 up"), l.ip(p, "link set lo up"))
}

// network returns who is outside, in a network that the host has as well.
func (l *lab) network() (place, error) {
	if l.outsider.pid != 0 {
		return l.outsider, nil
	}
	p, err := l.newPlace("eth0", "192.0.2.2")
	if err != nil {
		return place{}, err
	}
	l.outsider = p
	return p, l.ip(host(), "addr add "+hostAddress+"/24 dev eth0")
}
