package restore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vps/internal/testimage"
	"vps/object"
	"vps/snapshot"
)

// networkSite has an instance that obeys: it executes /tmp/do, and writes what that says to /tmp/said.
func networkSite(t *testing.T) *site {
	s := newSite(t, testimage.Network())
	s.start("/bin/sh", "-c", `while :; do
		if [ -e /tmp/do ]; then sh /tmp/do >/tmp/said.new 2>&1; echo "exit $?" >>/tmp/said.new; rm /tmp/do; mv /tmp/said.new /tmp/said; fi; sleep 0.01; done`)
	return s
}

// administration has the instance use the real programs: busybox prefers its own.
const administration = `ip() { /usr/sbin/ip "$@"; }; tc() { /usr/sbin/tc "$@"; }
`

// do lets the instance execute a command, and returns what it says.
func (s *site) do(command string) string {
	s.t.Helper()
	os.Remove(s.root + "/tmp/said")
	if err := os.WriteFile(s.root+"/tmp/do.new", []byte(administration+command+"\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.root+"/tmp/do.new", s.root+"/tmp/do"); err != nil {
		s.t.Fatal(err)
	}
	text := s.read("tmp/said", func(text string) bool { return strings.Contains(text, "exit ") })
	said, status, _ := strings.Cut(text, "exit ")
	if status != "0\n" {
		s.t.Fatalf("%s: %s", command, text)
	}
	return said
}

func TestNetworkRefused(t *testing.T) {
	s := networkSite(t)
	for command, want := range map[string]string{
		"ip link add tunnel type vxlan id 7 dstport 4789":                              "network interface tunnel: of kind vxlan",
		"tc qdisc add dev lo clsact && tc filter add dev lo ingress u32 match u32 0 0": "filter u32 of network interface lo is not supported",
		"ip route add 10.0.0.0/8 encap ip id 5 dst 10.9.9.9 dev lo":                    "network route to 10.0.0.0/8 is not supported",
	} {
		s.do(command)
		if err := errors.Join(snapshot.Probe(s.source())...); !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: probe: %v, want ...%s", command, err, want)
		}
	}
	if err := s.pass(); !errors.Is(err, object.ErrUnsupported) {
		t.Errorf("snapshot: %v", err)
	}
}

// The network of an instance comes back only with what its configuration lets it do.
func TestNetworkWithoutRight(t *testing.T) {
	s := networkSite(t)
	s.do("ip link add west type veth peer name east")
	path := s.snapshot()
	s.end()
	s.rights.Capabilities &^= 1 << unix.CAP_NET_ADMIN
	err := s.attempt(open(t, readFile(t, path)))
	s.end()
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("restore without the right to configure a network: %v", err)
	}
}

// What the host has given to an instance is there before its restore, by its name, whatever its index.
func TestNetworkExternal(t *testing.T) {
	s := networkSite(t)
	s.give("eth0")
	s.do("ip link set eth0 mtu 1400 up; ip addr add 10.77.0.2/24 dev eth0; ip -6 addr add 2001:db8::2/64 dev eth0 nodad; " +
		"ip route add default via 10.77.0.1; ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:01 dev eth0")
	look := func() (all []struct {
		Name      string `json:"ifname"`
		MTU       int
		Flags     []string
		Addresses []struct{ Local string } `json:"addr_info"`
	}) {
		if err := json.Unmarshal([]byte(s.do("ip -j addr show dev eth0")), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	routes := s.do("ip route; ip neigh show nud permanent")
	addresses := len(look()[0].Addresses)
	path := s.snapshot()
	s.end()
	err := s.attempt(open(t, readFile(t, path)))
	s.end()
	if err == nil || !strings.Contains(err.Error(), "network interface eth0, which the host gave, is not here") {
		t.Errorf("restore without what the host gave: %v", err)
	}
	s.built = func() {
		s.give("other") // the index is another one
		s.give("eth0")
	}
	s.restore(path)
	after := look()[0]
	if after.MTU != 1400 || len(after.Addresses) != addresses || !strings.Contains(fmt.Sprint(after), "10.77.0.2") || !strings.Contains(fmt.Sprint(after), "2001:db8::2") {
		t.Errorf("after the restore: %v", after)
	}
	same := func(when string) {
		if now := s.do("ip route; ip neigh show nud permanent"); now != routes {
			t.Errorf("routes and neighbours before:\n%s%s:\n%s", routes, when, now)
		}
	}
	same("after the restore")
	s.end()
	s.rights.Capabilities &^= 1 << unix.CAP_NET_ADMIN
	s.restore(path)
	same("without the right to configure a network")
}

// give puts one end of a veth into the instance, under a name; the other end stays here.
func (s *site) give(name string) {
	s.t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		s.t.Fatal(err)
	}
	defer h.Close()
	s.runs++
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("vt%d-%d", os.Getpid()%100000, s.runs)
	attrs.Flags = net.FlagUp
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsPid(s.cell.Init.PID)}); err != nil {
		s.t.Fatal(err)
	}
}

// A persistent tap that nobody has open comes back with its owner, who is one of the instance's.
func TestNetworkTap(t *testing.T) {
	s := networkSite(t)
	enter := fmt.Sprintf("--net=/proc/%d/ns/net", s.cell.Init.PID) // the instance itself has no /dev/net/tun
	out, err := exec.Command("nsenter", enter, "ip", "tuntap", "add", "dev", "tap7", "mode", "tap", "user", fmt.Sprint(firstUID+1000)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.do("ip link set tap7 address 02:00:00:00:00:07 up; ip addr add 10.7.0.1/24 dev tap7")
	const look = "ip -d -o link show dev tap7; ip -o addr show dev tap7"
	before := s.do(look)
	if !strings.Contains(before, "tun type tap pi off vnet_hdr off persist on user user") {
		t.Errorf("the tap is %s", before)
	}
	s.again()
	if after := s.do(look); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}
