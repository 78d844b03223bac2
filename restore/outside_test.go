package restore_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/tcp"
)

// peer is a program in a network namespace of its own, to which a wire leads from the instance.
type peer struct {
	t      testing.TB
	dir    string
	cmd    *exec.Cmd
	handle *netlink.Handle
}

// newPeer starts testdata/peer.py.
func newPeer(t testing.TB, args ...string) *peer {
	t.Helper()
	code := t.TempDir()
	for name, text := range programTexts(t) {
		if err := os.WriteFile(filepath.Join(code, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &peer{t: t, dir: t.TempDir()}
	p.cmd = exec.Command("python3", append([]string{"-B", filepath.Join(code, "peer.py")}, args...)...)
	p.cmd.Env = append(os.Environ(), "KIND_DIR="+p.dir)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.handle.Close()
	})
	ns, err := netns.GetFromPid(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if p.handle, err = netlink.NewHandleAt(ns); err != nil {
		t.Fatal(err)
	}
	p.read("READY")
	return p
}

// The two ends of the wire, in the order peer, instance.
var (
	wireNames     = [2]string{"wire0", "eth0"}
	wireAddresses = [2][]string{{"10.77.7.1/24", "fd77:7::1/64"}, {"10.77.7.2/24", "fd77:7::2/64"}}
)

// wire leads a wire into the network of an instance, whose init is given. The one before vanishes with its instance.
func (p *peer) wire(init int) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := p.handle.LinkByName(wireNames[0]); errors.As(err, &netlink.LinkNotFoundError{}) {
			break
		}
		if time.Now().After(end) {
			return errors.New("the wire of the instance before is still there")
		}
	}
	err := p.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: wireNames[0]}, PeerName: wireNames[1], PeerNamespace: netlink.NsPid(init),
	})
	if err != nil {
		return fmt.Errorf("make a wire: %w", err)
	}
	for i, pid := range []int{p.cmd.Process.Pid, init} {
		err := object.InNamespace(pid, "net", unix.CLONE_NEWNET, func() error {
			h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer h.Close()
			link, err := h.LinkByName(wireNames[i])
			if err != nil {
				return err
			}
			if err := h.LinkSetUp(link); err != nil {
				return err
			}
			for _, a := range wireAddresses[i] {
				ip, ipNet, err := net.ParseCIDR(a)
				if err != nil {
					return err
				}
				ipNet.IP = ip
				if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet, Flags: unix.IFA_F_NODAD}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("end %d of a wire: %w", i, err)
		}
	}
	return nil
}

// nft runs a command in the network of the peer.
func (p *peer) nft(command string) {
	p.t.Helper()
	cmd := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", p.cmd.Process.Pid), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(command)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("nft: %v: %s", err, out)
	}
}

// Nothing comes through a gate that is shut.
func (p *peer) shut() {
	p.t.Helper()
	p.nft(`table inet gate {
		chain in { type filter hook prerouting priority -300; policy drop; }
		chain out { type filter hook postrouting priority 300; policy drop; }
	}`)
}

func (p *peer) open() {
	p.t.Helper()
	p.nft("delete table inet gate")
}

// read waits for a file of the peer's.
func (p *peer) read(name string) string {
	p.t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if text, err := os.ReadFile(filepath.Join(p.dir, name)); err == nil {
			return string(text)
		}
	}
	p.t.Fatalf("the peer has not written %s", name)
	return ""
}

func touch(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Connections to others outlive the instance.
func TestOutside(t *testing.T) {
	s := kindSite(t)
	p := newPeer(t)
	s.wire = p.wire
	inside := filepath.Join(s.root, "tmp/kind")
	s.begin(t, "outside", "")
	p.nft("table inet slow { chain in { type filter hook prerouting priority -300; tcp dport 7002 drop; }; }")
	touch(t, p.dir, "CONNECT")
	p.read("CONNECTED")
	touch(t, inside, "CALL")
	for _, address := range wireAddresses[0] {
		s.read("tmp/kind/calling-"+strings.Split(address, "/")[0], func(string) bool { return true })
	}
	for range 3 {
		p.shut()
		path := s.snapshot()
		s.silence()
		s.end()
		s.restore(path)
		p.open()
		time.Sleep(time.Second) // the busy ones go on
	}
	p.nft("delete table inet slow")
	touch(t, p.dir, "GO")
	touch(t, inside, "GO")
	p.read("DONE")
	touch(t, inside, "END")
	s.verdict()
	touch(t, p.dir, "END")
	if verdict := p.read("VERDICT"); verdict != "PASS\n" {
		t.Errorf("the peer: %s", verdict)
	}
	for _, a := range wireAddresses[1] {
		t.Logf("%s: questions, longest wait: %s", a, p.read("ping-"+strings.Split(a, "/")[0]))
	}
}

// silence has the connections of an instance end without a word.
func (s *site) silence() {
	s.t.Helper()
	pids, err := s.group.Procs()
	if err == nil {
		err = tcp.Silence(pids)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// Ten thousand connections outlive the instance.
func TestManyConnections(t *testing.T) {
	const many = 10000
	s := kindSite(t)
	p := newPeer(t, strconv.Itoa(many))
	s.wire = p.wire
	s.begin(t, "outside", "many")
	touch(t, p.dir, "CONNECT")
	p.read("CONNECTED")
	p.shut()
	each := func(what string, do func()) {
		begin := time.Now()
		do()
		t.Logf("%s: %v for each connection", what, time.Since(begin)/many)
	}
	var path string
	each("snapshot", func() { path = s.snapshot() })
	t.Logf("frozen: %v", s.frozen)
	each("silence", s.silence)
	each("end", s.end)
	each("restore", func() { s.restore(path) })
	p.open()
	touch(t, p.dir, "GO")
	if verdict := p.read("VERDICT"); verdict != "PASS\n" {
		t.Errorf("the peer: %.1000s", verdict)
	}
	touch(t, filepath.Join(s.root, "tmp/kind"), "END")
	s.verdict()
}

// Connections of an instance that comes back without its addresses are reset.
func TestDeserted(t *testing.T) {
	s := kindSite(t)
	p := newPeer(t)
	s.wire = p.wire
	s.begin(t, "outside", "deserted")
	p.shut()
	path := s.snapshot()
	s.silence()
	s.end()
	s.wire, s.unplugged = nil, true
	s.restore(path)
	s.verdict()
}
