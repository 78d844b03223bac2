// Package api is the management interface of a host: one service, defined in vps.proto, its server and its client.
//
// The server answers on a Unix socket in the host's run directory, HTTP/2 without TLS, to root only. [Dial] gives a
// client, and starts the daemon if none runs.
package api

import (
	"context"
	"io"
	"time"

	"vps/config"
	"vps/instance"
)

// Backend is what the server needs of a host. [Local] makes one of an [instance.Host].
type Backend interface {
	List() []instance.Info
	Show(id string) (instance.Info, error)
	Args(id string) (instance.Arguments, error)
	Processes(id string) ([]instance.ProcessInfo, error)
	Check(ctx context.Context, id string) (instance.CheckReport, error)

	Create(ctx context.Context, id string, cfg *config.Config) error
	Start(ctx context.Context, id string, cfg *config.Config) error
	Stop(ctx context.Context, id string, timeout time.Duration) error
	Restart(ctx context.Context, id string, timeout time.Duration) error
	Remove(ctx context.Context, id string) error
	Kill(ctx context.Context, id string, signal int) error
	Wait(ctx context.Context, id string) (instance.ExitStatus, error)
	Suspend(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Abort(ctx context.Context, id string) error

	AllowNetworks(ctx context.Context, id, networks string, remove bool) error
	MoveInterface(ctx context.Context, id, name, inside string) error
	Park(ctx context.Context, id string) error
	Release(ctx context.Context, id string) error

	Events(ctx context.Context) <-chan instance.Event
	Logs(ctx context.Context, id string, opt instance.LogOptions) (io.ReadCloser, error)
	Exec(ctx context.Context, id string, spec instance.ExecSpec) (*Session, error)
	Console(ctx context.Context, id string) (Terminal, error)

	Snapshot(ctx context.Context, id string, w io.Writer, opt instance.SnapshotOptions, progress func(instance.Progress)) (instance.SnapshotReport, error)
	Restore(ctx context.Context, id string, r io.Reader, opt instance.RestoreOptions, progress func(instance.Progress)) error
}

// Session is a command that runs in an instance.
type Session struct {
	PID     int            // inside
	Stdin   io.WriteCloser // nil unless asked for; closing it is end of file
	Stdout  io.Reader
	Stderr  io.Reader // nil with a terminal
	Control           // of the command
}

// Control is what can be done to a command besides reading and writing.
type Control interface {
	Resize(rows, cols uint16) error
	Signal(signal int) error
	Wait(ctx context.Context) (status int, err error) // 128 + signal if a signal ended it
	Close() error                                     // lets go of it
}

// Terminal is an instance's console: reading gives the history, then what comes, and io.EOF when the instance is gone.
type Terminal interface {
	io.ReadWriteCloser
	Resize(rows, cols uint16) error
}

// Local is the backend that is the host itself.
func Local(host *instance.Host) Backend { return local{host} }

type local struct{ *instance.Host }

func (l local) Exec(ctx context.Context, id string, spec instance.ExecSpec) (*Session, error) {
	s, err := l.Host.Exec(ctx, id, spec)
	if err != nil {
		return nil, err
	}
	return &Session{PID: s.PID, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Control: s}, nil
}

func (l local) Console(ctx context.Context, id string) (Terminal, error) {
	t, err := l.Host.Console(ctx, id)
	if err != nil {
		return nil, err
	}
	return t, nil
}
