package ifvps

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vps/ifvps/nat"
	"vps/internal/nettest"
)

// speak sends a line to an address and a port, and wants it back.
func speak(from *nettest.Place, to string) error {
	return from.Do(func() error {
		c, err := net.DialTimeout("tcp", to, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 5))
		return err
	})
}

func TestTranslation(t *testing.T) {
	w := newWorld(t)
	s := spec("a", "10.9.0.5", "fd00:9::5")
	i := &s.Interfaces[0]
	i.NAT = true
	i.Forwards = []nat.Forward{{Port: 8007, Inside: 7}, {Host: netip.MustParseAddr("2001:db8::1"), Port: 8008, Inside: 7}}
	a := w.guest(t, s)
	b := w.guest(t, spec("b", "192.0.2.11", "2001:db8::11"))
	for _, to := range []string{"192.0.2.2", "2001:db8::2", "192.0.2.11", "192.0.2.1:8007"} {
		if !strings.Contains(to, ":8007") {
			a.MustReach(to)
		}
	}
	all := map[string]*nettest.Place{"outside": w.outside, "the host": w.self, "another instance": b.Place}
	each := func(want bool) {
		t.Helper()
		for _, to := range []string{"192.0.2.1:8007", "[2001:db8::1]:8008"} {
			for name, from := range all {
				if err := speak(from, to); (err == nil) != want {
					t.Errorf("%s from %s: %v", to, name, err)
				}
			}
		}
	}
	each(true)
	if out, err := exec.Command("nft", "delete", "table", "ip", "vps_00c0ffee").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("nft", "delete", "table", "ip6", "vps_00c0ffee").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	each(false)
	if err := w.Tend(); err != nil {
		t.Fatal(err)
	}
	each(true)
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	each(false)
	if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || bytes.Contains(out, []byte("vps")) {
		t.Errorf("tables after the removal: %s, %v", out, err)
	}
}

func TestBandwidth(t *testing.T) {
	w := newWorld(t)
	s := spec("a", "192.0.2.10")
	const rate = 80e6 // 10 MB/s
	s.Interfaces[0].In, s.Interfaces[0].Out = rate, rate
	w.guest(t, s)
	b := w.guest(t, spec("b", "192.0.2.11"))
	for name, from := range map[string]*nettest.Place{"outside": w.outside, "instance": b.Place} {
		c, err := from.Dial("192.0.2.10", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		const size = 8 << 20
		go c.Write(make([]byte, size))
		begin := time.Now()
		if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		c.Close()
		if least := time.Duration(float64(size-3<<20) * 8 / rate * float64(time.Second)); took < least || took > 10*least {
			t.Errorf("%s: %d bytes took %v, want a bit more than %v", name, size, took, least)
		}
	}
}
