package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	echoPort  = 7
	pingPongs = 5000
)

// pair is two who speak through the same network, beside their host.
type pair struct {
	*lab
	from, to place
	address  string // of to
}

// switchContenders measures what goes from an instance, and from the host, to an instance at the switch, and the same between
// two namespaces at a Linux bridge.
func switchContenders(l *lab) ([]contender, error) {
	list, err := l.gather(l.ownSwitch, nil)
	if err != nil {
		return list, err
	}
	bridge, err := l.bridge()
	return append(list, bridge), err
}

func (l *lab) ownSwitch() (contender, error) {
	if _, err := l.network(); err != nil {
		return contender{}, err
	}
	var ends []place
	var instances []*instance
	for n, address := range []string{"192.0.2.11", "192.0.2.12"} {
		i, err := l.instance(fmt.Sprintf("switch%d", n), "/bin/sleep 1000000")
		if err != nil {
			return contender{}, err
		}
		if err := i.configure("NETIF_0_ADDRESS = " + address); err != nil {
			return contender{}, err
		}
		if _, err := i.start(); err != nil {
			return contender{}, err
		}
		pid, err := i.pid()
		if err != nil {
			return contender{}, err
		}
		instances, ends = append(instances, i), append(ends, place{pid})
	}
	c, err := pair{l, ends[0], ends[1], "192.0.2.12"}.contender(us)
	if err != nil {
		return contender{}, err
	}
	end := c.close
	c.close = func() error { return errors.Join(end(), instances[0].remove(), instances[1].remove()) }
	return c, nil
}

func (l *lab) bridge() (contender, error) {
	for _, args := range []string{"link add br0 type bridge", "addr add 203.0.113.1/24 dev br0", "link set br0 up"} {
		if err := l.ip(host(), args); err != nil {
			return contender{}, err
		}
	}
	var ends []place
	for _, n := range []string{"2", "3"} {
		p, err := l.newPlace("br0-"+n, "203.0.113."+n)
		if err != nil {
			return contender{}, err
		}
		if err := l.ip(host(), "link set br0-"+n+" master br0"); err != nil {
			return contender{}, err
		}
		ends = append(ends, p)
	}
	return pair{l, ends[0], ends[1], "203.0.113.3"}.contender("bridge")
}

// contender serves at the far end and measures from the near one and from the host.
func (p pair) contender(who string) (contender, error) {
	echo, err := p.to.echo(echoPort)
	if err != nil {
		return contender{}, err
	}
	server, err := p.background(p.to.command("iperf3", "--server")...)
	if err != nil {
		return contender{}, err
	}
	undo := func() error {
		echo.Close()
		return server()
	}
	return contender{who, func() (sample, error) {
		s := sample{}
		for what, from := range map[string]place{"instance to instance": p.from, "host to instance": host()} {
			for step, measure := range map[string]func(place) (float64, error){"1 GiB, ms": p.stream, "round trip, µs": p.pingPong} {
				cost, err := measure(from)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", what, err)
				}
				s["switch: "+what+", "+step] = cost
			}
		}
		return s, nil
	}, undo}, nil
}

// stream returns the milliseconds that 1 GiB takes, by what iperf3 receives in two seconds.
func (p pair) stream(from place) (cost float64, err error) {
	var text string
	var failure error
	err = p.waitFor("iperf3", func() (bool, error) {
		text, _, failure = p.output(from.command("iperf3", "--client", p.address, "--time", "2", "--json")...)
		return failure == nil, nil // its server may not be ready
	})
	if err != nil {
		return 0, errors.Join(err, failure)
	}
	var report struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return 0, fmt.Errorf("report of iperf3: %w", err)
	}
	if report.End.Received.Rate == 0 {
		return 0, fmt.Errorf("iperf3 has received nothing: %s", text)
	}
	return (8 << 30) / report.End.Received.Rate * 1000, nil
}

// pingPong returns the microseconds that one byte takes there and back.
func (p pair) pingPong(from place) (float64, error) {
	c, err := from.dial(fmt.Sprintf("%s:%d", p.address, echoPort))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	var one [1]byte
	start := time.Now()
	for range pingPongs {
		if _, err := c.Write(one[:]); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, one[:]); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start)) / float64(time.Microsecond) / pingPongs, nil
}
