// Package nettest has network namespaces for tests: the host's, in which all tests of a package run, and others around it.
package nettest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"vps/internal/leak"
	"vps/linux"
)

// Main is [leak.Main] in a network namespace of the tests' own, which is the host's for them.
func Main(m *testing.M) {
	if os.Geteuid() != 0 {
		leak.Main(m)
		return
	}
	if os.Getenv("VPS_NETTEST") != "" {
		if err := loopback(); err != nil {
			fmt.Fprintln(os.Stderr, "nettest:", err)
			os.Exit(1)
		}
		leak.Main(m)
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), "VPS_NETTEST=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// loopback switches the loopback interface on.
func loopback() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// Place is a network namespace, that of a process which sleeps.
type Place struct {
	t   testing.TB
	PID int
}

// New makes one, until the test ends.
func New(t testing.TB) *Place {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	p := &Place{t, cmd.Process.Pid}
	p.IP("link set lo up")
	p.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	return p
}

// Do runs f on a thread in the namespace.
func (p *Place) Do(f func() error) error {
	return linux.OnSpareThread(func() error {
		ns, err := netns.GetFromPid(p.PID)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

// Sysctl sets a parameter of /proc/sys there.
func (p *Place) Sysctl(name, value string) {
	p.t.Helper()
	if err := p.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }); err != nil {
		p.t.Fatal(err)
	}
}

// IP runs ip(8) there.
func (p *Place) IP(args string) string {
	p.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(p.PID), "-n", "ip"}, strings.Fields(args)...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// IP runs ip(8) on the host.
func IP(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// Echo serves on port 7 of all addresses until the test ends.
func (p *Place) Echo() {
	p.t.Helper()
	var l net.Listener
	err := p.Do(func() (err error) {
		l, err = net.Listen("tcp", ":7")
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// Dial connects from here to port 7 of an address.
func (p *Place) Dial(to string, timeout time.Duration) (c net.Conn, err error) {
	err = p.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(to, "7"), timeout)
		return err
	})
	return c, err
}

// Reach sends bytes to port 7 of an address and back.
func (p *Place) Reach(to string, timeout time.Duration) error {
	c, err := p.Dial(to, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	go c.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return errors.New("other bytes came back")
	}
	return nil
}

// MustReach fails the test if an address cannot be reached.
func (p *Place) MustReach(to string) {
	p.t.Helper()
	if err := p.Reach(to, 5*time.Second); err != nil {
		p.t.Errorf("%s cannot be reached: %v", to, err)
	}
}

// MustNotReach fails the test if an address can be reached.
func (p *Place) MustNotReach(to string) {
	p.t.Helper()
	if p.Reach(to, 500*time.Millisecond) == nil {
		p.t.Errorf("%s can be reached", to)
	}
}

// Self is the host.
func Self(t testing.TB) *Place { return &Place{t, os.Getpid()} }

// Network gives the host a network of its own with somebody in it: 192.0.2.1/24 and 2001:db8::1/64 are the host's, .2 and ::2 are
// theirs, who serve echoes. They find 198.51.100.0/24 behind the host.
func Network(t testing.TB) (outside *Place) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	outside = New(t)
	Self(t).Sysctl("net/ipv6/conf/default/accept_dad", "0")
	IP(t, fmt.Sprintf("link add eth0 type veth peer name eth0 netns %d", outside.PID))
	t.Cleanup(func() { exec.Command("ip", "link", "del", "eth0").Run() })
	for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		IP(t, "addr add "+a+" dev eth0 nodad")
	}
	IP(t, "link set eth0 up")
	for _, a := range []string{"192.0.2.2/24", "2001:db8::2/64"} {
		outside.IP("addr add " + a + " dev eth0 nodad")
	}
	outside.IP("link set eth0 up")
	outside.IP("route add 198.51.100.0/24 via 192.0.2.1")
	outside.Echo()
	return outside
}

// Process is the pid of who is there, as text.
func (p *Place) Process() string { return fmt.Sprint(p.PID) }
