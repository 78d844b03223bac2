package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// counter is a Redis that knows one key for each connection. answer may change what it says to the n-th INCR.
func counter(t *testing.T, answer func(n int) int) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n := 0
				for lines := bufio.NewScanner(c); lines.Scan(); {
					said := 1
					if strings.HasPrefix(lines.Text(), "INCR ") {
						n++
						said = answer(n)
					}
					fmt.Fprintf(c, ":%d\r\n", said)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestGap(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const pause = 200 * time.Millisecond
	for _, test := range []struct {
		name   string
		answer func(n int) int
		fails  bool
	}{
		{"silence", func(n int) int {
			if n == 5000 {
				time.Sleep(pause)
			}
			return n
		}, false},
		{"doubled", func(n int) int { return n + n/5000 }, true},
		{"lost", func(n int) int { return n - n/5000 }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &lab{ctx: t.Context()}
			c, err := l.newClients(host(), counter(t, test.answer))
			if err != nil {
				t.Fatal(err)
			}
			ms, err := c.gap(func() error { return c.await(6000) })
			if errClose := c.close(); err == nil {
				err = errClose
			}
			if (err != nil) != test.fails {
				t.Errorf("error %v", err)
			}
			if err == nil && ms < milliseconds(pause) {
				t.Errorf("a gap of %.0f ms, want at least %v", ms, pause)
			}
		})
	}
}
