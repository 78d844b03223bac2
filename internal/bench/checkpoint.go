package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"vps/internal/testimage"
)

// checkpoints is runc with CRIU for the dump and the restore of a container: what an instance is to be compared with, while CRIU
// alone does with a process. It takes part if both are there.
func (l *lab) checkpoints() (oci, bool) {
	path := "PATH=" + filepath.Dir(l.criu) + ":" + os.Getenv("PATH")

	return oci{l, "runc+criu", []string{"/usr/bin/env", path, l.runc, "--root", filepath.Join(l.memory, "runc")}}, l.runc != "" && l.criu != ""
}

// cycle dumps the container, which ends it, and restores it.
func (c *container) cycle(step string, check func() error) (sample, error) {
	images := filepath.Join(c.memory, "runc-"+c.id)
	defer os.RemoveAll(images)
	dump, err := c.run(c.command("checkpoint", "--image-path", images, c.id)...)
	if err != nil {
		return nil, err
	}
	restore, err := c.run(c.command("restore", "--detach", "--image-path", images, "--bundle", c.bundle, c.id)...)
	if err != nil {
		return nil, err
	}
	return cycleSample(step, milliseconds(dump), milliseconds(restore)), check()
}

func (o oci) tinyContender() (contender, error) {
	c, err := o.container("tiny", nil, "/bin/sleep", "1000000")
	return contender{name: o.name, round: func() (sample, error) {
		if _, err := c.start(); err != nil {
			return nil, err
		}
		s, err := c.cycle("tiny", func() error {
			_, err := c.run(c.command("exec", c.id, "/bin/true")...)
			return err
		})
		return s, errors.Join(err, c.remove())
	}}, err
}

func (o oci) redisContender(work string) (contender, error) {
	c, err := o.container(idOf(work), []testimage.Option{testimage.Redis()}, "/usr/bin/redis-server", "/etc/redis.conf")
	ask := func(command ...string) (string, error) {
		text, _, err := c.output(append(c.command("exec", c.id, "/usr/bin/redis-cli", "-s", testimage.RedisSocket), command...)...)
		return strings.TrimSpace(text), err
	}
	return contender{name: o.name, round: func() (sample, error) {
		if _, err := c.start(); err != nil {
			return nil, err
		}
		if err := c.fillRedis(ask, redisKeys[work]); err != nil {
			return nil, errors.Join(err, c.remove())
		}
		s, err := c.cycle(work, func() error { return checkRedis(ask, redisKeys[work]) })
		return s, errors.Join(err, c.remove())
	}}, err
}
