package instance

import (
	"bytes"
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

func TestInterface(t *testing.T) {
	h, outside := lanHost(t)
	before := nettest.IP(t, "-o link")
	h.start("web", "NETIF_0_ADDRESS=192.0.2.10,2001:db8::10")
	h.start("db", "NETIF_0_ADDRESS=192.0.2.11,2001:db8::11", echoInit)
	h.until("the server", func() bool { return outside.Reach("192.0.2.11", time.Second) == nil })
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
	h.start("db", "NETIF_0_ADDRESS=192.0.2.11,2001:db8::11", echoInit)
	h.until("the server", func() bool { return outside.Reach("192.0.2.11", time.Second) == nil })
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
