package ifvps

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

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
