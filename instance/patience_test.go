package instance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Connections with data under way outlive a suspend that is longer than TCP waits for a peer, and a snapshot in the middle of it.
func TestLongSuspend(t *testing.T) {
	h, lan := lanHost(t)
	h.start("db", "NETIF_0_ADDRESS=192.0.2.11", "SYSCTL_net.ipv4.tcp_retries2=1", echoInit)
	h.until("the server", func() bool { return lan.Reach("192.0.2.11", time.Second) == nil })
	const setting = "cat /proc/sys/net/ipv4/tcp_retries2"
	if own := h.shell("db", setting); own != "1" {
		t.Fatalf("tcp_retries2 is %s", own)
	}
	c, err := lan.Dial("192.0.2.11", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// What comes from outside, answers too, comes late: there is always something under way.
	outside(t, lan, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "20mbit", "burst", "10kb", "latency", "300ms").ends()
	ended := make(chan error, 1)
	stop := flood(c, ended)
	time.Sleep(50 * time.Millisecond)
	if err := h.Suspend(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second) // one retry, and the wait for its answer, take less than two
	snapshot := h.snapshotted("db", SnapshotOptions{})
	if err := h.Resume(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	close(stop)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("not all has come back")
	}
	if own := h.shell("db", setting); own != "1" {
		t.Errorf("tcp_retries2 is %s after the suspend", own)
	}
	if err := h.Stop(t.Context(), "db", 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Restore(t.Context(), "db", bytes.NewReader(snapshot), RestoreOptions{Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	if err := h.Resume(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	if own := h.shell("db", setting); strings.TrimSpace(own) != "1" {
		t.Errorf("tcp_retries2 is %s after a restore", own)
	}
}

// flood sends all that an echo server takes until it is stopped, and tells whether as much has come back.
func flood(c net.Conn, ended chan<- error) (stop chan struct{}) {
	stop = make(chan struct{})
	sent := make(chan int64, 1)
	go func() {
		var total int64
		block := make([]byte, 64<<10)
		for {
			select {
			case <-stop:
				c.(*net.TCPConn).CloseWrite()
				sent <- total
				return
			default:
			}
			n, err := c.Write(block)
			total += int64(n)
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	go func() {
		got, err := io.Copy(io.Discard, c)
		if want := <-sent; err == nil && got != want {
			err = fmt.Errorf("%d bytes of %d have come back", got, want)
		}
		ended <- err
	}()
	return stop
}
