package instance

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"vps/internal/nettest"
	"vps/internal/testimage"
)

// echoServer serves on port 7 of both protocols, each connection by a thread.
const echoServer = `
import socket, threading
def echo(c):
    with c:
        while b := c.recv(65536):
            c.sendall(b)
s = socket.create_server(("::", 7), family=socket.AF_INET6, backlog=100, dualstack_ipv6=True)
while True:
    threading.Thread(target=echo, args=[s.accept()[0]], daemon=True).start()
`

const echoInit = `INIT='/usr/bin/python3 /echo.py'`

// lanHost is a host with a network, in which somebody outside is.
func lanHost(t *testing.T) (*testHost, *nettest.Place) {
	t.Helper()
	outside := nettest.Network(t)
	return newHost(t, testimage.Python(), testimage.File("/echo.py", echoServer, 0o644)), outside
}

// serve starts the instance db, which echoes what comes to its addresses, of which 192.0.2.11 is one.
func (h *testHost) serve(outside *nettest.Place, addresses string) {
	h.t.Helper()
	h.start("db", "NETIF_0_ADDRESS="+addresses, echoInit)
	h.until("the server", func() bool { return outside.Reach("192.0.2.11", time.Second) == nil })
}

func TestInterface(t *testing.T) {
	h, outside := lanHost(t)
	before := nettest.IP(t, "-o link")
	h.start("web", "NETIF_0_ADDRESS=192.0.2.10,2001:db8::10")
	h.serve(outside, "192.0.2.11,2001:db8::11")
	for _, to := range []string{"192.0.2.11", "2001:db8::11"} {
		outside.MustReach(to)
		nettest.Self(t).MustReach(to)
	}
	for _, to := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.11", "2001:db8::1", "2001:db8::2", "2001:db8::11"} {
		h.shell("web", "ping -c 1 -W 5 "+to)
	}
	if err := h.Start(t.Context(), "thief", h.config("NETIF_0_ADDRESS=192.0.2.11")); err == nil || !strings.Contains(err.Error(), "another instance's") {
		t.Errorf("another instance with the same address: %v", err)
	}
	if state := h.state("thief"); state != "" {
		t.Errorf("the thief is %s", state)
	}
	for _, id := range []string{"web", "db"} {
		if err := h.Stop(t.Context(), id, 0); err != nil {
			t.Fatal(err)
		}
	}
	if after := nettest.IP(t, "-o link"); strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("links before: %s, after: %s", before, after)
	}
	if text := nettest.IP(t, "route") + nettest.IP(t, "-6 route") + nettest.IP(t, "neigh show proxy") + nettest.IP(t, "-6 neigh show proxy"); strings.Contains(text, ".10 ") || strings.Contains(text, "::11 ") || strings.Contains(text, " proxy") {
		t.Errorf("routes and answers after: %s", text)
	}
}

// TestQuiet: over a suspend, a snapshot, and an end and a restore, a peer loses nothing.
func TestQuiet(t *testing.T) {
	h, outside := lanHost(t)
	h.serve(outside, "192.0.2.11,2001:db8::11")
	for name, interrupt := range map[string]func(){
		"suspend": func() {
			if err := h.Suspend(t.Context(), "db"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Millisecond)
			if err := h.Resume(t.Context(), "db"); err != nil {
				t.Fatal(err)
			}
		},
		"snapshot": func() { h.snapshotted("db", SnapshotOptions{}) },
		"restore": func() {
			snapshot := h.snapshotted("db", SnapshotOptions{Stop: true})
			if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot), RestoreOptions{Resume: true}, nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, to := range []string{"192.0.2.11", "2001:db8::11"} {
			t.Run(name+" "+to, func(t *testing.T) {
				c, err := outside.Dial(to, 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				before := outside.Losses()
				nettest.Exchange(t, c, func() {
					time.Sleep(20 * time.Millisecond)
					interrupt()
					time.Sleep(100 * time.Millisecond)
				})
				if n := outside.Losses() - before; n > 0 && name != "restore" {
					t.Errorf("%d segments were sent again", n)
				} else if n > 0 {
					t.Logf("%d segments were sent again", n)
				}
			})
		}
	}
}

func TestParkedAddresses(t *testing.T) {
	h, outside := lanHost(t)
	h.serve(outside, "192.0.2.11")
	h.shell("db", "ip route add 10.1.0.0/16 via 169.254.1.1 dev vps0 metric 7 onlink && ip addr add 10.2.0.1/24 dev vps0 && ip link set vps0 mtu 1400")
	const look = "ip -o link; ip -o addr; ip route; ip -6 route"
	before := h.shell("db", look)
	snapshot := h.snapshotted("db", SnapshotOptions{Stop: true})
	silent := func() {
		t.Helper()
		if err := outside.Reach("192.0.2.11", 300*time.Millisecond); err == nil || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("%v, want silence", err)
		}
	}
	silent()
	if info, err := h.Show("db"); err != nil || !info.Parked {
		t.Errorf("it is not parked: %+v, %v", info, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	silent()
	if err := h.Start(t.Context(), "thief", h.config("NETIF_0_ADDRESS=192.0.2.11")); err == nil {
		t.Error("somebody else has started with its address")
	}
	if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot[:len(snapshot)/2]), RestoreOptions{}, nil); err == nil {
		t.Error("half a snapshot was restored")
	}
	silent()
	if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot), RestoreOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	silent()
	if err := h.Resume(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	outside.MustReach("192.0.2.11")
	if after := h.shell("db", look); after != before {
		t.Errorf("network after the restore:\n%s\nbefore:\n%s", after, before)
	}
	h.snapshotted("db", SnapshotOptions{Suspend: true})
	if err := h.Park(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	silent()
	if err := h.Release(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	if err := outside.Reach("192.0.2.11", 5*time.Second); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v, want an answer that there is nobody", err)
	}
	if err := h.Release(t.Context(), "db"); !errors.Is(err, ErrState) {
		t.Errorf("released again: %v", err)
	}
	h.start("thief", "NETIF_0_ADDRESS=192.0.2.11")
}

// TestDaemonGone: the network needs no daemon.
func TestDaemonGone(t *testing.T) {
	h, outside := lanHost(t)
	h.serve(outside, "192.0.2.11")
	c, err := outside.Dial("192.0.2.11", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nettest.Exchange(t, c, func() {
		time.Sleep(20 * time.Millisecond)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
		outside.MustReach("192.0.2.11")
		h.open()
		if err := h.Suspend(t.Context(), "db"); err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		h.open()
		if err := h.Resume(t.Context(), "db"); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
	})
}

func TestAllowedNetworks(t *testing.T) {
	h, outside := lanHost(t)
	h.serve(outside, "192.0.2.11")
	h.shell("db", "ip addr add 192.0.2.70/32 dev vps0")
	reached := func() bool { return outside.Reach("192.0.2.70", 200*time.Millisecond) == nil }
	if reached() {
		t.Error("an address that is not allowed can be reached")
	}
	change := func(networks string, remove bool, want error) {
		t.Helper()
		if err := h.AllowNetworks(t.Context(), "db", networks, remove); !errors.Is(err, want) {
			t.Errorf("%s, remove %v: %v, want %v", networks, remove, err, want)
		}
	}
	change("192.0.2.64/26,2001:db8::/64", false, nil)
	h.until("the address", reached)
	change("192.0.2.64/26", false, ErrInvalid)
	change("192.0.2.64/27", true, ErrInvalid)
	change("192.0.2.65/26", false, ErrInvalid)
	change("192.0.2.64/26", true, nil)
	h.until("the address to be gone", func() bool { return !reached() })
	outside.MustReach("192.0.2.11")
	if may, err := h.Args("db"); err != nil || strings.Join(may.Networks, " ") != "192.0.2.11/32 2001:db8::/64" {
		t.Errorf("networks: %v, %v", may.Networks, err)
	}
}

func TestMoveInterface(t *testing.T) {
	h, _ := lanHost(t)
	h.start("web", "NETIF_0_ADDRESS=192.0.2.11")
	nettest.IP(t, "link add spare type veth peer name other")
	t.Cleanup(func() { nettest.IP(t, "link del other") })
	if err := h.MoveInterface(t.Context(), "web", "spare", "eth5"); err != nil {
		t.Fatal(err)
	}
	if out := h.shell("web", "ip link"); !strings.Contains(out, "eth5") {
		t.Errorf("interfaces inside: %s", out)
	}
	for _, name := range []string{"lo", "missing", h.must(h.Show("web")).Interfaces[0].Link} {
		if err := h.MoveInterface(t.Context(), "web", name, ""); err == nil {
			t.Errorf("%s was moved", name)
		}
	}
	h.shell("web", "ip link set eth5 name mine")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	if err := h.Stop(t.Context(), "web", 0); err != nil {
		t.Fatal(err)
	}
	nettest.IP(t, "link show spare")
}

func (h *testHost) must(info Info, err error) Info {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	return info
}

// TestAnnounceCommands: they run instead of the built-in way, at every start and end.
func TestAnnounceCommands(t *testing.T) {
	h, _ := lanHost(t)
	log := h.dir + "/log"
	h.start("web", "NETIF_0_ADDRESS=192.0.2.10,2001:db8::10",
		`NETWORK_ANNOUNCE='echo announce $VPS_ID $VPS_ADDRESSES >>`+log+`'`, `NETWORK_REVOKE='echo revoke $VPS_ID $VPS_ADDRESSES >>`+log+`'`)
	if text := nettest.IP(t, "neigh show proxy"); strings.Contains(text, "proxy") {
		t.Errorf("it is announced by others, and by us: %s", text)
	}
	if err := h.Stop(t.Context(), "web", 0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if want := "announce web 192.0.2.10 2001:db8::10\nrevoke web 192.0.2.10 2001:db8::10\n"; err != nil || string(text) != want {
		t.Errorf("commands: %q, want %q, %v", text, want, err)
	}
	if err := h.Start(t.Context(), "db", h.config("NETIF_0_ADDRESS=192.0.2.11", "NETWORK_ANNOUNCE='echo oh no; false'")); err == nil || !strings.Contains(err.Error(), "oh no") {
		t.Errorf("a command that fails: %v", err)
	}
	if text := nettest.IP(t, "-o link"); strings.Count(text, "\n") != 2 {
		t.Errorf("links after a start that failed: %s", text)
	}
}
