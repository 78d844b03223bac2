package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"vps/internal/testimage"
)

// oci is an OCI runtime: runc or runsc, which share the command line.
type oci struct {
	*lab
	name string
	argv []string // the program and its global options
}

func (l *lab) runtimes() []oci {
	var list []oci
	if l.runc != "" {
		list = append(list, oci{l, "runc", []string{l.runc, "--root", filepath.Join(l.memory, "runc")}})
	}
	if l.runsc != "" {
		list = append(list, oci{l, "runsc", []string{l.runsc, "--root", filepath.Join(l.memory, "runsc"),
			"--network=none", "--ignore-cgroups", "--overlay2=none"}})
	}
	return list
}

func (o oci) command(args ...string) []string {
	return append(append([]string(nil), o.argv...), args...)
}

// container is an OCI container that runs one command.
type container struct {
	oci
	id, bundle, root string
}

// container makes a bundle of the runtime's own default configuration.
func (o oci) container(work string, opts []testimage.Option, argv ...string) (*container, error) {
	c := &container{oci: o, id: "bench-" + work, bundle: filepath.Join(o.disk, o.name+"-"+work)}
	c.root = filepath.Join(c.bundle, "rootfs")
	if err := os.MkdirAll(c.bundle, 0o755); err != nil {
		return nil, err
	}
	if err := makeRoot(o.lab, c.root, opts...); err != nil {
		return nil, err
	}
	if _, err := o.run(o.command("spec", "--bundle", c.bundle)...); err != nil {
		return nil, err
	}
	config := filepath.Join(c.bundle, "config.json")
	b, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	var spec struct {
		Version  string          `json:"ociVersion"`
		Process  map[string]any  `json:"process"`
		Root     map[string]any  `json:"root"`
		Hostname string          `json:"hostname"`
		Mounts   json.RawMessage `json:"mounts,omitempty"`
		Linux    json.RawMessage `json:"linux,omitempty"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	spec.Process["args"], spec.Process["terminal"] = argv, false
	spec.Root = map[string]any{"path": "rootfs", "readonly": false}
	if b, err = json.Marshal(&spec); err != nil {
		return nil, err
	}
	return c, os.WriteFile(config, b, 0o644)
}

// start runs the container in the background.
func (c *container) start() (time.Duration, error) {
	// What a container has as output, CRIU would have to find again.
	const quiet = `exec "$@" >/dev/null 2>&1`
	return c.run(append([]string{"/bin/sh", "-c", quiet, "sh"}, c.command("run", "--detach", "--bundle", c.bundle, c.id)...)...)
}

func (c *container) remove() error {
	return c.undo(c.command("delete", "--force", c.id)...)
}

// makeRoot makes the root file system of all instances and containers: busybox, and the stamp program.
func makeRoot(l *lab, root string, opts ...testimage.Option) error {
	stamp, err := l.stamp()
	if err != nil {
		return err
	}
	return testimage.Make(root, append(opts, testimage.Program(stamp, "/stamp-init"))...)
}

// stamp builds the program that tells when it began.
func (l *lab) stamp() (string, error) {
	path := filepath.Join(l.disk, "stamp")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	_, err = l.run("env", "CGO_ENABLED=0", "go", "-C", dir, "build", "-o", path, "./internal/bench/stamp")
	return path, err
}

// stamped runs start, whose instance's init is the stamp program in root, and returns the time from the beginning
// of start to the first instruction of that init, and the time start took.
func (l *lab) stamped(root string, start func() (time.Duration, error)) (sample, error) {
	file := filepath.Join(root, "stamp")
	if err := os.RemoveAll(file); err != nil {
		return nil, err
	}
	began := time.Now()
	took, err := start()
	if err != nil {
		return nil, err
	}
	text, err := l.readWhenThere(file)
	if err != nil {
		return nil, err
	}
	stamp, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, err
	}
	return sample{
		"to init's first instruction, ms": float64(stamp-began.UnixNano()) / 1e6,
		"whole start command, ms":         milliseconds(took),
	}, nil
}

func (o oci) startContender() (contender, error) {
	c, err := o.container("start", nil, "/stamp-init")
	if err != nil {
		return contender{}, err
	}
	return contender{name: o.name, round: func() (sample, error) {
		s, err := o.stamped(c.root, c.start)
		return s, errors.Join(err, c.remove())
	}}, nil
}

func (o oci) runContender() (contender, error) {
	c, err := o.container("run", nil, "/bin/true")
	if err != nil {
		return contender{}, err
	}
	return contender{name: o.name, round: func() (sample, error) {
		took, err := o.run(o.command("run", "--bundle", c.bundle, c.id)...)
		return sample{"whole run of /bin/true, ms": milliseconds(took)}, err
	}}, nil
}

func (o oci) execContender() (contender, error) {
	c, err := o.container("exec", nil, "/bin/sleep", "1000000")
	if err != nil {
		return contender{}, err
	}
	if _, err := c.start(); err != nil {
		return contender{}, err
	}
	return contender{o.name, func() (sample, error) {
		took, err := o.run(o.command("exec", c.id, "/bin/true")...)
		return sample{"exec of /bin/true, ms": milliseconds(took)}, err
	}, c.remove}, nil
}
