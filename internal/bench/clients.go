package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// clients ask a Redis without end, each through a connection of its own.
type clients struct {
	*lab
	list []*caller
	stop atomic.Bool
	done sync.WaitGroup
}

// caller counts a key of its own up, one command after the other: an answer tells whether one was lost or done twice.
type caller struct {
	key  string
	conn net.Conn

	mu      sync.Mutex // for what follows
	answers int
	longest time.Duration // between two answers
	err     error
}

const clientConnections = 10

// newClients connects from a place to a Redis.
func (l *lab) newClients(from place, address string) (*clients, error) {
	c := &clients{lab: l}
	for n := range clientConnections {
		conn, err := from.dial(address)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		a := &caller{key: fmt.Sprintf("count:%d", n), conn: conn}
		c.list = append(c.list, a)
		c.done.Go(func() { a.call(&c.stop) })
	}
	return c, nil
}

func (a *caller) call(stop *atomic.Bool) {
	// Nothing that is measured lasts as long: without an answer the row is an error.
	err := a.conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(a.conn)
	ask := func(command, want string) error {
		if _, err := fmt.Fprintf(a.conn, "%s %s\r\n", command, a.key); err != nil {
			return err
		}
		if line, err := r.ReadString('\n'); err != nil || line != want {
			return fmt.Errorf("redis answers %q to %s %s, want %q: %w", line, command, a.key, want, err)
		}
		return nil
	}
	last := time.Now()
	for n := 1; err == nil && !stop.Load(); n++ {
		err = ask("INCR", fmt.Sprintf(":%d\r\n", n))
		now := time.Now()
		a.mu.Lock()
		a.answers, a.longest, a.err = n, max(a.longest, now.Sub(last)), err
		a.mu.Unlock()
		last = now
	}
	if err == nil {
		err = ask("DEL", ":1\r\n")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// await waits until every caller has had n more answers.
func (c *clients) await(n int) error {
	var want []int
	for _, a := range c.list {
		a.mu.Lock()
		want = append(want, a.answers+n)
		a.mu.Unlock()
	}
	return c.waitFor("answers of redis", func() (bool, error) {
		for i, a := range c.list {
			a.mu.Lock()
			answers, err := a.answers, a.err
			a.mu.Unlock()
			if err != nil || answers < want[i] {
				return false, err
			}
		}
		return true, nil
	})
}

// gap returns the longest time, in ms, between two answers that one of them had while f did its work.
func (c *clients) gap(f func() error) (float64, error) {
	if err := c.await(100); err != nil {
		return 0, err
	}
	for _, a := range c.list {
		a.mu.Lock()
		a.longest = 0
		a.mu.Unlock()
	}
	if err := f(); err != nil {
		return 0, err
	}
	if err := c.await(1); err != nil {
		return 0, err
	}
	var gaps []time.Duration
	for _, a := range c.list {
		a.mu.Lock()
		gaps = append(gaps, a.longest)
		a.mu.Unlock()
	}
	return milliseconds(slices.Max(gaps)), nil
}

// close has them say goodbye and returns what has gone wrong.
func (c *clients) close() error {
	c.stop.Store(true)
	c.done.Wait()
	var errs []error
	for _, a := range c.list {
		errs = append(errs, a.err, a.conn.Close())
	}
	return errors.Join(errs...)
}
