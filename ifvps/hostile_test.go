package ifvps

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/internal/nettest"
)

// send sends frames from an instance.
func (g *guest) send(t *testing.T, frames ...[]byte) {
	t.Helper()
	err := g.Do(func() error {
		link, err := net.InterfaceByName("vps0")
		if err != nil {
			return err
		}
		fd, err := openSender()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := send(fd, link.Index, binary.BigEndian.Uint16(f[12:]), f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// datagram is a UDP datagram to port 9 without a checksum, which only IPv4 has.
func datagram(mac [6]byte, from, to string) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	if src.Is4() {
		b := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0}
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(b[10:], checksum(b))
		return append(append(ethernet(mac, mac, unix.ETH_P_IP), b...), 0, 9, 0, 9, 0, 8, 0, 0)
	}
	b := append(ethernet(mac, mac, unix.ETH_P_IPV6), 0x60, 0, 0, 0, 0, 8, 17, 64)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return append(b, 0, 9, 0, 9, 0, 8, 0, 0)
}

// noPorts is how many datagrams have come for a port that nobody has.
func noPorts(p *nettest.Place) int { return p.Counter("snmp", "Udp", "NoPorts") }

func TestSpoofing(t *testing.T) {
	w := newWorld(t)
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	b := w.guest(t, spec("b", "192.0.2.11", "2001:db8::11"))
	mac := a.Interfaces()[0].MAC
	before, others := noPorts(w.outside), noPorts(b.Place)
	a.send(t, datagram(mac, "192.0.2.10", "192.0.2.2"), datagram(mac, "192.0.2.10", "192.0.2.11"))
	eventually(t, "datagrams with the instance's own address", func() bool {
		return noPorts(w.outside) == before+1 && noPorts(b.Place) == others+1
	})
	for _, from := range []string{"192.0.2.11", "192.0.2.1", "192.0.2.2", "10.0.0.1", "127.0.0.1"} {
		a.send(t, datagram(mac, from, "192.0.2.2"), datagram(mac, from, "192.0.2.11"))
	}
	for _, from := range []string{"2001:db8::11", "2001:db8::2", "fe80::1", "::1", "::ffff:192.0.2.10"} {
		a.send(t, datagram(mac, from, "2001:db8::2"), datagram(mac, from, "2001:db8::11"))
	}
	if n := a.Counters()[0].Spoofed; n < 18 { // the last one's source is the instance's: its receiver drops it
		t.Errorf("%d packets were found out, of 20", n)
	}
	a.send(t, datagram(mac, "192.0.2.10", "192.0.2.2"))
	eventually(t, "a datagram after them", func() bool { return noPorts(w.outside) >= before+2 })
	if n := noPorts(w.outside) - before; n != 2 {
		t.Errorf("%d datagrams came outside, want 2", n)
	}
	if n := noPorts(b.Place) - others; n != 1 {
		t.Errorf("%d datagrams came to the other instance, want 1", n)
	}
}

func TestStealing(t *testing.T) {
	w := newWorld(t)
	s := spec("a", "192.0.2.10")
	s.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.64/26"), netip.MustParsePrefix("192.0.2.11/32")}
	a := w.guest(t, s)
	b := w.guest(t, spec("b", "192.0.2.11"))
	b.IP("addr add 192.0.2.70/32 dev vps0") // which it is not allowed to
	for _, address := range []string{"192.0.2.11", "192.0.2.1", "192.0.2.2", "192.0.2.200"} {
		a.IP("addr add " + address + "/32 dev vps0")
	}
	w.outside.MustReach("192.0.2.11")
	w.outside.MustNotReach("192.0.2.200")
	b.MustReach("192.0.2.2")
	if n := a.Counters()[0].In.Packets; n != 0 {
		t.Errorf("%d packets came to who has stolen addresses", n)
	}
	a.IP("addr del 192.0.2.2/32 dev vps0")
	a.IP("addr del 192.0.2.1/32 dev vps0")
	a.IP("addr add 192.0.2.70/32 dev vps0")
	eventually(t, "an address that is allowed", func() bool { return w.outside.Reach("192.0.2.70", 200*time.Millisecond) == nil })
	if n := a.Counters()[0].In.Packets; n == 0 {
		t.Error("nothing came to the address that is allowed")
	}
	a.IP("addr del 192.0.2.70/32 dev vps0")
	eventually(t, "the address to be gone", func() bool { return w.outside.Reach("192.0.2.70", 200*time.Millisecond) != nil })
}

func TestForgedNeighbours(t *testing.T) {
	w := newWorld(t)
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	b := w.guest(t, spec("b", "192.0.2.11", "2001:db8::11"))
	for _, to := range []string{"192.0.2.2", "2001:db8::2"} {
		nettest.Self(t).MustReach(to)
		b.MustReach(to)
	}
	evil := [6]byte{2, 0xe, 0x11, 0, 0, 0x66}
	for _, address := range []string{"192.0.2.2", "192.0.2.1", "192.0.2.11", "169.254.1.1"} {
		reply := gratuitousARP(netip.MustParseAddr(address), evil)
		reply[21] = 2
		a.send(t, gratuitousARP(netip.MustParseAddr(address), evil), reply)
	}
	for _, address := range []string{"2001:db8::2", "2001:db8::1", "2001:db8::11", "fe80::1"} {
		a.send(t, unsolicitedNA(netip.MustParseAddr(address), evil))
	}
	if c := a.Counters()[0]; c.Foreign < 12 {
		t.Errorf("%d frames were found out, want 12", c.Foreign)
	}
	all := nettest.IP(t, "neigh") + nettest.IP(t, "-6 neigh") + b.IP("neigh") + b.IP("-6 neigh") + w.outside.IP("neigh") + w.outside.IP("-6 neigh")
	if strings.Contains(all, "02:0e:11:00:00:66") {
		t.Errorf("a forged neighbour is known: %s", all)
	}
	for _, to := range []string{"192.0.2.2", "2001:db8::2", "192.0.2.11", "2001:db8::11"} {
		a.MustReach(to)
	}
}

// TestFlood: who sends to addresses that nobody has does not fill the host's table of neighbours.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	b := w.guest(t, spec("b", "192.0.2.11", "2001:db8::11"))
	mac := a.Interfaces()[0].MAC
	var frames [][]byte
	for n := range 4000 {
		frames = append(frames, datagram(mac, "2001:db8::10", fmt.Sprintf("2001:db8::1:%x", n)))
	}
	for n := range 200 {
		frames = append(frames, datagram(mac, "192.0.2.10", fmt.Sprintf("192.0.2.%d", 20+n)))
	}
	a.send(t, frames...)
	if n := strings.Count(nettest.IP(t, "neigh")+nettest.IP(t, "-6 neigh"), "\n"); n > 200 {
		t.Errorf("the host looks for %d neighbours", n)
	}
	if c := a.Counters()[0]; c.Flooded < 3000 {
		t.Errorf("%d packets were found out", c.Flooded)
	}
	w.outside.IP("addr add 192.0.2.3/24 dev eth0")
	w.outside.IP("addr add 2001:db8::3/64 dev eth0 nodad")
	for _, to := range []string{"192.0.2.3", "2001:db8::3", "192.0.2.10"} {
		b.MustReach(to)
	}
}

// eventually waits until f gives true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after ten seconds: %s", what)
		}
	}
}
