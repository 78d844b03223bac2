package nettest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Losses is how many segments TCP has sent again for a loss. Probes (RFC 8985) are none: a sender that hears nothing for two
// round trips sends one.
func (p *Place) Losses() int {
	p.t.Helper()
	return p.Counter("snmp", "Tcp", "RetransSegs") - p.Counter("netstat", "TcpExt", "TCPLossProbes") +
		p.Counter("netstat", "TcpExt", "TCPTimeouts")
}

// Counter reads one of /proc/net/snmp or /proc/net/netstat.
func (p *Place) Counter(file, protocol, name string) (n int) {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.PID, file))
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if f[0] != protocol+":" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := range names {
			if names[i] == name {
				fmt.Sscan(f[i], &n)
			}
		}
	}
	return n
}

// Exchange sends pseudorandom bytes to an echo server for as long as f takes, and compares what comes back.
func Exchange(t testing.TB, c net.Conn, f func()) {
	t.Helper()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	stop, sent := make(chan struct{}), make(chan error, 1)
	const block = 16 << 10
	go func() {
		r := rand.NewChaCha8([32]byte{})
		b := make([]byte, block)
		for {
			select {
			case <-stop:
				sent <- c.(*net.TCPConn).CloseWrite()
				return
			default:
			}
			r.Read(b)
			if _, err := c.Write(b); err != nil {
				sent <- err
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	received := make(chan error, 1)
	total := 0
	go func() {
		r := rand.NewChaCha8([32]byte{})
		got, want := make([]byte, block), make([]byte, block)
		for {
			_, err := io.ReadFull(c, got)
			if err == io.EOF {
				received <- nil
				return
			}
			r.Read(want)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("other bytes after %d", total)
			}
			if err != nil {
				received <- err
				return
			}
			total += block
		}
	}()
	f()
	close(stop)
	for _, ch := range []chan error{sent, received} {
		if err := <-ch; err != nil {
			t.Error(err)
		}
	}
	if total == 0 {
		t.Error("nothing was exchanged")
	}
}
