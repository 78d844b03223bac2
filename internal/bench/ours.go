package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vps/internal/testimage"
)

// instance is one of our instances.
type instance struct {
	*lab
	id, config, root, file string
}

func (l *lab) instance(id, init string, opts ...testimage.Option) (*instance, error) {
	i := &instance{lab: l, id: id, config: filepath.Join(l.disk, id+".conf"), root: filepath.Join(l.disk, "root-"+id),
		file: filepath.Join(l.memory, id+".snapshot")}
	l.instances = append(l.instances, i)
	if err := makeRoot(l, i.root, opts...); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("NAME = %s\nFSROOT = '%s'\nINIT = '%s'\nSTOP_SIGNAL = SIGTERM\n", id, i.root, init)
	return i, os.WriteFile(i.config, []byte(config), 0o644)
}

// configure adds lines to the configuration.
func (i *instance) configure(lines string) error {
	config, err := os.ReadFile(i.config)
	if err != nil {
		return err
	}
	return os.WriteFile(i.config, []byte(string(config)+lines+"\n"), 0o644)
}

// redis asks the Redis in the instance.
func (i *instance) redis(command ...string) (string, error) {
	text, _, err := i.exec(append([]string{"/usr/bin/redis-cli", "-s", testimage.RedisSocket}, command...)...)
	return strings.TrimSpace(text), err
}

func (i *instance) start() (time.Duration, error) { return i.run(i.vpsctl, "start", i.id, i.config) }

func (i *instance) exec(argv ...string) (string, time.Duration, error) {
	return i.output(append([]string{i.vpsctl, "exec", i.id, "--"}, argv...)...)
}

// remove ends the instance and forgets it.
func (i *instance) remove() error {
	err := i.undo(i.vpsctl, "kill", i.id, "KILL")
	_ = i.undo(i.vpsctl, "wait", i.id) // passes on the status of the killed init
	return errors.Join(err, i.undo(i.vpsctl, "rm", i.id))
}

// cycle dumps the instance, ends it, and restores it; the snapshot file is removed. check looks whether what
// came back is whole.
func (i *instance) cycle(step string, check func() error) (sample, error) {
	text, dump, err := i.output(i.vpsctl, "snapshot", "--stop", "--json", i.id, i.file)
	if err != nil {
		return nil, err
	}
	defer os.Remove(i.file)
	var report struct {
		Snapshot struct {
			Frozen time.Duration `json:"frozen_ns"`
			Phases []struct {
				Name string        `json:"name"`
				Took time.Duration `json:"took_ns"`
			} `json:"phases"`
		} `json:"snapshot"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return nil, fmt.Errorf("report of the snapshot: %w", err)
	}
	restore, err := i.run(i.vpsctl, "restore", "--resume", "--config", i.config, i.id, i.file)
	if err != nil {
		return nil, err
	}
	s := cycleSample(step, milliseconds(dump), milliseconds(restore))
	s[step+": frozen, ms"] = milliseconds(report.Snapshot.Frozen)
	for n, p := range report.Snapshot.Phases {
		s[fmt.Sprintf("%s: frozen: %d. %s, ms", step, n+1, p.Name)] = milliseconds(p.Took)
	}
	return s, check()
}

func cycleSample(step string, dump, restore float64) sample {
	return sample{step + ": dump, ms": dump, step + ": restore, ms": restore, step + ": dump and restore, ms": dump + restore}
}

func (l *lab) ownStart() (contender, error) {
	i, err := l.instance("start", "/stamp-init")
	return contender{name: us, round: func() (sample, error) {
		s, err := l.stamped(i.root, i.start)
		return s, errors.Join(err, i.remove())
	}}, err
}

func (l *lab) ownRun() (contender, error) {
	i, err := l.instance("run", "/bin/true")
	return contender{name: us, round: func() (sample, error) {
		began := time.Now()
		if _, err := i.start(); err != nil {
			return nil, err
		}
		_, err := i.run(i.vpsctl, "wait", i.id)
		took := time.Since(began)
		_, errRemove := i.run(i.vpsctl, "rm", i.id)
		return sample{"whole run of /bin/true, ms": milliseconds(took)}, errors.Join(err, errRemove)
	}}, err
}

func (l *lab) ownExec() (contender, error) {
	i, err := l.instance("exec", "/bin/sleep 1000000")
	if err != nil {
		return contender{}, err
	}
	if _, err := i.start(); err != nil {
		return contender{}, err
	}
	return contender{us, func() (sample, error) {
		_, took, err := i.exec("/bin/true")
		return sample{"exec of /bin/true, ms": milliseconds(took)}, err
	}, i.remove}, nil
}

func (l *lab) ownTiny() (contender, error) {
	i, err := l.instance("tiny", "/bin/sleep 1000000")
	return contender{name: us, round: func() (sample, error) {
		if _, err := i.start(); err != nil {
			return nil, err
		}
		s, err := i.cycle("tiny", func() error {
			_, _, err := i.exec("/bin/true")
			return err
		})
		return s, errors.Join(err, i.remove())
	}}, err
}

func (l *lab) ownRedis(work string) (contender, error) {
	i, err := l.instance(idOf(work), "/usr/bin/redis-server /etc/redis.conf", testimage.Redis())
	return contender{name: us, round: func() (sample, error) {
		if _, err := i.start(); err != nil {
			return nil, err
		}
		if err := l.fillRedis(i.redis, redisKeys[work]); err != nil {
			return nil, errors.Join(err, i.remove())
		}
		s, err := i.cycle(work, func() error { return checkRedis(i.redis, redisKeys[work]) })
		return s, errors.Join(err, i.remove())
	}}, err
}
