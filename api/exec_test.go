package api_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"vps/api"
	"vps/api/apitest"
	"vps/instance"
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

// execute runs a command to its end.
func execute(t *testing.T, c *api.Client, spec instance.ExecSpec, stdin string) (status int, stdout, stderr string) {
	t.Helper()
	x, err := c.Exec(t.Context(), "web", spec)
	must(t, err)
	defer x.Close()
	go func() {
		io.Copy(x, strings.NewReader(stdin))
		x.CloseWrite()
	}()
	var out, errs bytes.Buffer
	status, err = x.Copy(&out, &errs)
	must(t, err)
	return status, out.String(), errs.String()
}

func TestExecStatusAndStreams(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB: more than pipes and windows hold
	for name, test := range map[string]struct {
		spec          instance.ExecSpec
		stdin         string
		status        int
		stdout, stder string
	}{
		"true":      {spec: instance.ExecSpec{Args: sh("exit 0")}},
		"status":    {spec: instance.ExecSpec{Args: sh("exit 42")}, status: 42},
		"signal":    {spec: instance.ExecSpec{Args: sh("kill -9 $$")}, status: 137},
		"streams":   {spec: instance.ExecSpec{Args: sh("echo out; echo err >&2")}, stdout: "out\n", stder: "err\n"},
		"stdin":     {spec: instance.ExecSpec{Args: []string{"/bin/cat"}, Stdin: true}, stdin: big, stdout: big},
		"no stdin":  {spec: instance.ExecSpec{Args: []string{"/bin/cat"}}, stdin: "lost"},
		"env, dir":  {spec: instance.ExecSpec{Args: sh("echo $A; pwd"), Env: []string{"A=b\xff"}, Dir: "/usr"}, stdout: "b\xff\n/usr\n"},
		"terminal":  {spec: instance.ExecSpec{Args: sh("stty size"), TTY: true, Rows: 33, Cols: 99}, stdout: "33 99\r\n"},
		"left":      {spec: instance.ExecSpec{Args: sh("sleep 1000 & echo $!")}},
		"no reader": {spec: instance.ExecSpec{Args: sh("exit 3"), Stdin: true}, stdin: big, status: 3},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := execute(t, c, test.spec, test.stdin)
			if name == "left" {
				execute(t, c, instance.ExecSpec{Args: sh("kill " + stdout)}, "")
				stdout = ""
			}
			if status != test.status || stdout != test.stdout || stderr != test.stder {
				t.Errorf("status %d, stdout %.80q (%d bytes), stderr %.80q", status, stdout, len(stdout), stderr)
			}
		})
	}
}

// TestSignalPassesStdin: a command that reads nothing still gets its signals.
func TestSignalPassesStdin(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	x, err := c.Exec(t.Context(), "web", instance.ExecSpec{Args: sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"), Stdin: true})
	must(t, err)
	defer x.Close()
	go x.Write(make([]byte, 1<<20))
	ready := writer(func([]byte) { must(t, x.Signal(15)) })
	status, err := x.Copy(ready, io.Discard)
	if err != nil || status != 7 {
		t.Errorf("status %d, %v; want 7", status, err)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestResize(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	x, err := c.Exec(t.Context(), "web", instance.ExecSpec{Args: sh("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"), TTY: true, Rows: 5, Cols: 5})
	must(t, err)
	defer x.Close()
	var out strings.Builder
	_, err = x.Copy(writer(func(p []byte) {
		if out.Len() == 0 {
			must(t, x.Resize(40, 80))
		}
		out.Write(p)
	}), io.Discard)
	if err != nil || out.String() != "ready\r\n40 80\r\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestExecEndsWithItsClient(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	ctx, cancel := context.WithCancel(t.Context())
	x, err := c.Exec(ctx, "web", instance.ExecSpec{Args: sh("echo ready; exec sleep 1000")})
	must(t, err)
	defer x.Close()
	if _, err := x.Copy(writer(func([]byte) { cancel() }), io.Discard); err != context.Canceled {
		t.Errorf("%v", err)
	}
}
