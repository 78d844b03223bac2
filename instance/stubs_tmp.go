package instance

// Temporary method bodies, so that callers compile while the package is written.

import (
	"context"
	"errors"
	"io"
	"time"

	"vps/config"
)

var errLater = errors.New("not written yet")

type Host struct{}

// Open opens the host whose home opt names, takes over what runs, and undoes what is half made. One daemon per home: else ErrLocked.
func Open(ctx context.Context, opt Options) (*Host, error) { return &Host{}, nil }

// Close lets go of the instances, which go on.
func (h *Host) Close() error { return nil }

type Session struct {
	Stdin  io.WriteCloser // nil unless asked for; closing it is end of file
	Stdout io.Reader
	Stderr io.Reader // nil with a terminal
	PID    int       // inside
}

func (s *Session) Resize(rows, cols uint16) error        { return errLater }
func (s *Session) Signal(sig int) error                  { return errLater }
func (s *Session) Wait(ctx context.Context) (int, error) { return 0, errLater } // 128+n for a signal
func (s *Session) Close() error                          { return errLater }    // lets go; the command goes on, or is hung up if it has a terminal

type ConsoleSession struct{}

func (c *ConsoleSession) Read(p []byte) (int, error)     { return 0, errLater } // history, then live output; io.EOF when the instance is gone
func (c *ConsoleSession) Write(p []byte) (int, error)    { return 0, errLater }
func (c *ConsoleSession) Resize(rows, cols uint16) error { return errLater }
func (c *ConsoleSession) Close() error                   { return errLater }

// ExecError is a command that could not be run; Status is 126 if it was found and cannot be executed, else 127.
type ExecError struct {
	Command string
	Status  int
	Err     error
}

func (e *ExecError) Error() string { return e.Command + ": " + e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// StateError says that an operation does not fit an instance's state. It is an ErrState.
type StateError struct {
	ID, Operation string
	State         State
}

func (e *StateError) Error() string        { return e.Operation + " " + e.ID + ": it is " + string(e.State) }
func (e *StateError) Is(target error) bool { return target == ErrState }

var _ API = (*Host)(nil)

func (h *Host) List() []Info                               { return nil }
func (h *Host) Show(id string) (Info, error)               { return Info{}, errLater }
func (h *Host) Args(id string) (Arguments, error)          { return Arguments{}, errLater }
func (h *Host) Processes(id string) ([]ProcessInfo, error) { return nil, errLater }
func (h *Host) Create(ctx context.Context, id string, cfg *config.Config) error {
	return errLater
}

// Start runs an instance: one that was created, or one made from cfg; nil cfg: its file in DIR/etc, else the configuration it had last.
func (h *Host) Start(ctx context.Context, id string, cfg *config.Config) error { return errLater }

// Stop ends an instance: 0 timeout is its configuration's.
func (h *Host) Stop(ctx context.Context, id string, timeout time.Duration) error { return errLater }
func (h *Host) Restart(ctx context.Context, id string, timeout time.Duration) error {
	return errLater
}

// Remove forgets a dead instance.
func (h *Host) Remove(ctx context.Context, id string) error           { return errLater }
func (h *Host) Kill(ctx context.Context, id string, signal int) error { return errLater }
func (h *Host) Wait(ctx context.Context, id string) (ExitStatus, error) {
	return ExitStatus{}, errLater
}
func (h *Host) Events(ctx context.Context) <-chan Event { return nil }
func (h *Host) Logs(ctx context.Context, id string, opt LogOptions) (io.ReadCloser, error) {
	return nil, errLater
}
func (h *Host) Exec(ctx context.Context, id string, spec ExecSpec) (*Session, error) {
	return nil, errLater
}
func (h *Host) Console(ctx context.Context, id string) (*ConsoleSession, error) {
	return nil, errLater
}
func (h *Host) Suspend(ctx context.Context, id string) error { return errLater }
func (h *Host) Resume(ctx context.Context, id string) error  { return errLater }
func (h *Host) Abort(ctx context.Context, id string) error   { return errLater }
func (h *Host) Snapshot(ctx context.Context, id string, w io.Writer, opt SnapshotOptions, progress func(Progress)) (SnapshotReport, error) {
	return SnapshotReport{}, errLater
}
func (h *Host) Restore(ctx context.Context, id string, r io.Reader, opt RestoreOptions, progress func(Progress)) error {
	return errLater
}
func (h *Host) Check(ctx context.Context, id string) (CheckReport, error) {
	return CheckReport{}, errLater
}
