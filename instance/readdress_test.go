package instance

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vps/dump/convert"
)

// echo returns what the echo server says to a client inside that says hello.
func (h *testHost) echo(id, to string) string {
	return h.shell(id, `python3 -c 'import socket; s = socket.create_connection(("`+to+`", 7), 5); s.send(b"hello"); print(s.recv(9).decode())'`)
}

// heard sends something over a connection to an echo server, and waits for it to come back.
func heard(t *testing.T, c net.Conn) error {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 5))
	return err
}

func TestReaddress(t *testing.T) {
	h, outside := lanHost(t)
	h.serve(outside, "192.0.2.11,2001:db8::11")
	old, err := outside.Dial("192.0.2.11", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	kept, err := outside.Dial("2001:db8::11", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for _, c := range []net.Conn{old, kept} {
		if err := heard(t, c); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := h.snapshotted("db", SnapshotOptions{Stop: true})
	bad := RestoreOptions{Readdress: convert.Addresses{netip.MustParseAddr("192.0.2.11"): netip.MustParseAddr("2001:db8::12")}}
	if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot), bad, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("an IPv6 address in the place of an IPv4 one: %v", err)
	}
	opt := RestoreOptions{Resume: true, Readdress: convert.Addresses{netip.MustParseAddr("192.0.2.11"): netip.MustParseAddr("192.0.2.12")}}
	if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot), opt, nil); err != nil {
		t.Fatal(err)
	}
	outside.MustReach("192.0.2.12")
	outside.MustReach("2001:db8::11")
	outside.MustNotReach("192.0.2.11")
	if err := heard(t, kept); err != nil {
		t.Errorf("the connection to the address that is the same: %v", err)
	}
	if links := h.shell("db", "cat /proc/net/fib_trie"); strings.Contains(links, "192.0.2.11") {
		t.Errorf("the old address is still there: %s", links)
	}
}

func TestUnplugged(t *testing.T) {
	h, outside := lanHost(t)
	h.serve(outside, "192.0.2.11")
	c, err := outside.Dial("192.0.2.11", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := heard(t, c); err != nil {
		t.Fatal(err)
	}
	snapshot := h.snapshotted("db", SnapshotOptions{Stop: true})
	if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot), RestoreOptions{Resume: true, Unplug: true}, nil); err != nil {
		t.Fatal(err)
	}
	outside.MustNotReach("192.0.2.11")
	if got := h.echo("db", "127.0.0.1"); got != "hello" {
		t.Errorf("the server inside says %q", got)
	}
	if links := h.shell("db", "cat /proc/net/dev"); strings.Contains(links, "vps0") {
		t.Errorf("there is still %s", links)
	}
	// Who was served has been told that it is over: the thread has ended.
	h.until("the end of the connection", func() bool { return h.shell("db", "cat /proc/1/status | grep -c 'Threads:.1$' || true") == "1" })
}
