package main

import (
	"errors"
	"strings"
	"time"

	"vps/api"
	"vps/instance/home"
	"vps/internal/testimage"
)

// The work whose Redis has clients outside, and what they see of it.
const (
	gapWork    = "gap"
	gapSuspend = "gap: seen over a suspend of 30 ms, ms"
	gapCycle   = "gap: seen over a dump and restore, ms"
	gapLazy    = "gap: seen over a dump and lazy restore, ms"
)

// redisAtPort has a Redis serve all addresses too.
var redisAtPort = []string{"--port", redisPort, "--protected-mode", "no"}

const redisPort = "6379"

// ownGap measures ours: the longest time that clients outside an instance wait for an answer.
func (l *lab) ownGap() (contender, error) {
	const address = "192.0.2.10"
	outside, err := l.network()
	if err != nil {
		return contender{}, err
	}
	i, err := l.instance(gapWork, "/usr/bin/redis-server /etc/redis.conf "+strings.Join(redisAtPort, " "), testimage.Redis())
	if err != nil {
		return contender{}, err
	}
	if err := i.configure("NETIF_0_ADDRESS = " + address); err != nil {
		return contender{}, err
	}
	at, err := home.At(l.home())
	if err != nil {
		return contender{}, err
	}
	// No command lines here: they would make the suspend longer by their own time.
	daemon := api.Dial(at, "bench")
	suspend := func() error {
		if err := daemon.Suspend(l.ctx, i.id); err != nil {
			return err
		}
		time.Sleep(30 * time.Millisecond)
		return daemon.Resume(l.ctx, i.id)
	}
	measure := func() (s sample, err error) {
		if err := l.fillRedis(i.redis, redisKeys[gapWork]); err != nil {
			return nil, err
		}
		c, err := l.newClients(outside, address+":"+redisPort)
		if err != nil {
			return nil, err
		}
		defer func() {
			if err = errors.Join(err, c.close()); err == nil {
				err = checkRedis(i.redis, redisKeys[gapWork])
			}
		}()
		suspended, err := c.gap(suspend)
		if err != nil {
			return nil, err
		}
		cycled, err := c.gap(func() (err error) {
			s, err = i.cycle(gapWork, func() error { return nil })
			return err
		})
		if err != nil {
			return nil, err
		}
		lazy, err := c.gap(func() error {
			_, err := i.lazily(func() error { return nil })
			return err
		})
		if err != nil {
			return nil, err
		}
		s[gapSuspend], s[gapCycle], s[gapLazy] = suspended, cycled, lazy
		return s, nil
	}
	return contender{us, func() (sample, error) {
		if _, err := i.start(); err != nil {
			return nil, err
		}
		s, err := measure()
		return s, errors.Join(err, i.remove())
	}, func() error {
		daemon.Close()
		return nil
	}}, nil
}
