package ifvps

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/internal/nettest"
)

// TestMain runs the tests in a network namespace of their own, which is the host.
func TestMain(m *testing.M) { nettest.Main(m) }

// world is a host with a network, and somebody in that network.
type world struct {
	*Switch
	outside *nettest.Place
	self    *nettest.Place
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{outside: nettest.Network(t), self: nettest.Self(t)}
	w.open(t)
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) open(t testing.TB) {
	t.Helper()
	var err error
	if w.Switch, err = Open("00c0ffee", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

// guest is an instance.
type guest struct {
	*nettest.Place
	*Member
	spec Spec
}

func spec(id string, addresses ...string) Spec {
	s := Spec{ID: id, Interfaces: []Interface{{Name: "vps0"}}}
	for _, a := range addresses {
		s.Interfaces[0].Addresses = append(s.Interfaces[0].Addresses, netip.MustParseAddr(a))
	}
	return s
}

func (w *world) guest(t testing.TB, s Spec) *guest {
	t.Helper()
	g := &guest{Place: nettest.New(t), spec: s}
	var err error
	if g.Member, err = w.Attach(s, g.PID, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	g.Echo()
	return g
}

func TestReach(t *testing.T) {
	w := newWorld(t)
	w.self.Echo()
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	b := w.guest(t, spec("b", "198.51.100.11", "2001:db8::11"))
	for _, way := range []struct {
		from *nettest.Place
		to   []string
	}{
		{a.Place, []string{"198.51.100.11", "2001:db8::11", "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.10"}},
		{b.Place, []string{"192.0.2.10", "2001:db8::10", "192.0.2.1", "192.0.2.2", "2001:db8::2"}},
		{w.self, []string{"192.0.2.10", "2001:db8::10", "198.51.100.11", "2001:db8::11"}},
		{w.outside, []string{"192.0.2.10", "2001:db8::10", "198.51.100.11", "2001:db8::11"}},
	} {
		for _, to := range way.to {
			way.from.MustReach(to)
		}
	}
	c := a.Counters()[0]
	if c.In.Packets == 0 || c.In.Bytes < 256<<10 || c.Out.Bytes < 256<<10 || c.Spoofed != 0 {
		t.Errorf("counters: %+v", c)
	}
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	b.MustNotReach("192.0.2.10")
	w.outside.MustNotReach("2001:db8::10")
	if text := nettest.IP(t, "link"); strings.Count(text, "00c0ffee") != 1 {
		t.Errorf("links after the removal: %s", text)
	}
	if text := nettest.IP(t, "neigh show proxy") + nettest.IP(t, "-6 neigh show proxy"); strings.Contains(text, ":10 ") || strings.Contains(text, ".10 ") {
		t.Errorf("answers after the removal: %s", text)
	}
}

// TestUnreachable: who speaks to an interface that is down, or to an address that is not configured, is told.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	b := w.guest(t, spec("b", "192.0.2.11", "2001:db8::11"))
	told := func(from *nettest.Place, to string) bool {
		err := from.Reach(to, 5*time.Second)
		return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) // as IPv6 has it for a route that says so
	}
	all := []string{"192.0.2.11", "2001:db8::11"}
	for what, change := range map[string][2]string{
		"down":           {"link set vps0 down", "link set vps0 up"},
		"not configured": {"addr flush dev vps0", "link set vps0 up"},
	} {
		t.Run(what, func(t *testing.T) {
			b.IP(change[0])
			for _, to := range all {
				for name, from := range map[string]*nettest.Place{"outside": w.outside, "instance": a.Place, "host": w.self} {
					eventually(t, to+" to be unreachable from "+name, func() bool { return told(from, to) })
				}
			}
			b.IP(change[1])
			for _, to := range all {
				b.IP("addr replace " + to + " dev vps0")
			}
			b.IP("route replace default via 169.254.1.1 dev vps0 onlink")
			b.IP("-6 route replace default via fe80::1 dev vps0")
			eventually(t, "a way back", func() bool { return a.Reach(all[0], time.Second) == nil && a.Reach(all[1], time.Second) == nil })
		})
	}
}
