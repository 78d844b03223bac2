package ifvps

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"vps/internal/nettest"
)

// TestTakeOver: without a daemon everything goes on, and the next one knows it all.
func TestTakeOver(t *testing.T) {
	w := newWorld(t)
	s := spec("a", "192.0.2.10", "2001:db8::10")
	s.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.64/26")}
	a := w.guest(t, s)
	c := w.guest(t, spec("c", "192.0.2.12"))
	a.IP("addr add 192.0.2.70/32 dev vps0")
	eventually(t, "an address that was added", func() bool { return w.outside.Reach("192.0.2.70", 200*time.Millisecond) == nil })
	counted := a.Counters()[0].In
	links := nettest.IP(t, "-o link")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"192.0.2.10", "2001:db8::10", "192.0.2.70"} {
		w.outside.MustReach(to)
	}
	c.MustReach("192.0.2.10")

	w.open(t)
	var err error
	if a.Member, err = w.Adopt(s, a.PID); err != nil {
		t.Fatal(err)
	}
	if err := w.Settle(); err != nil { // c is no member
		t.Fatal(err)
	}
	if now := a.Counters()[0].In; now.Bytes <= counted.Bytes {
		t.Errorf("counters have begun anew: %+v, before %+v", now, counted)
	}
	c.MustNotReach("192.0.2.10")
	for _, to := range []string{"192.0.2.10", "2001:db8::10", "192.0.2.70"} {
		w.outside.MustReach(to)
	}
	if now := nettest.IP(t, "-o link"); strings.Count(now, "\n") != strings.Count(links, "\n")-1 {
		t.Errorf("links before: %s, now: %s", links, now)
	}
	if d, err := w.Attach(spec("d", "192.0.2.12"), nettest.New(t).PID, false); err != nil {
		t.Errorf("an address of who is gone: %v", err)
	} else if err := d.Remove(); err != nil {
		t.Error(err)
	}
}

// TestTend: what somebody removes on the host comes back.
func TestTend(t *testing.T) {
	w := newWorld(t)
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	host := a.Counters()[0].Link
	for what, remove := range map[string]func(){
		"routes":  func() { nettest.IP(t, "route flush dev "+host); nettest.IP(t, "-6 route flush dev "+host) },
		"answers": func() { nettest.IP(t, "neigh del proxy 192.0.2.10 dev eth0") },
		"programs": func() {
			for _, where := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				for _, p := range []*ebpf.Program{w.programs.In, w.programs.Out} {
					link.RawDetachProgram(link.RawDetachProgramOptions{Target: a.ports[0].entry().Link(), Program: p, Attach: where})
				}
			}
		},
		"the link's state": func() { nettest.IP(t, "link set "+host+" down") },
		"addresses":        func() { w.tables.Disown(netip.MustParseAddr("192.0.2.10"), a.ports[0].n) },
	} {
		t.Run(what, func(t *testing.T) {
			w.outside.IP("neigh flush dev eth0")
			remove()
			if err := w.Tend(); err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{"192.0.2.10", "2001:db8::10"} {
				w.outside.MustReach(to)
			}
			in := a.Counters()[0].In
			w.outside.MustReach("192.0.2.10")
			if a.Counters()[0].In == in {
				t.Error("nothing is counted any more")
			}
		})
	}
}

// TestPark: while an instance does not exist, whoever speaks to it hears nothing, and is answered when it is back.
func TestPark(t *testing.T) {
	w := newWorld(t)
	s := spec("a", "192.0.2.10", "2001:db8::10")
	a := w.guest(t, s)
	before := a.Interfaces()[0]
	if err := a.Park(); err != nil {
		t.Fatal(err)
	}
	for _, daemon := range []string{"the same daemon", "another"} {
		t.Run(daemon, func(t *testing.T) {
			for _, to := range []string{"192.0.2.10", "2001:db8::10"} {
				if err := w.outside.Reach(to, 300*time.Millisecond); err == nil || !strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s: %v, want silence", to, err)
				}
			}
			if _, err := w.Attach(spec("thief", "192.0.2.10"), nettest.New(t).PID, false); err == nil {
				t.Error("a parked address was given to somebody else")
			}
			if daemon == "the same daemon" {
				w.Close()
				w.open(t)
				var err error
				if a.Member, err = w.Adopt(s, 0); err != nil {
					t.Fatal(err)
				}
				if err := w.Settle(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	answered := make(chan error, 1)
	go func() { answered <- w.outside.Reach("192.0.2.10", 20*time.Second) }()
	eventually(t, "a packet that is kept", func() bool { return a.ports[0].entry().Room() < keepBytes })
	back := &guest{Place: nettest.New(t)}
	back.Echo()
	s.Interfaces[0].Index, s.Interfaces[0].MAC = 7, before.MAC
	m, err := w.Attach(s, back.PID, true)
	if err != nil {
		t.Fatal(err)
	}
	if m != a.Member {
		t.Error("what was parked is not used")
	}
	if now := m.Interfaces()[0]; now.MAC != before.MAC || now.Index != 7 {
		t.Errorf("interface %+v, before %+v", now, before)
	}
	begin := time.Now()
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Errorf("answered %v after the release: the packet that was kept has been lost", took)
	}
	back.MustReach("192.0.2.2")
}
