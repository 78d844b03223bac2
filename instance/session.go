package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"vps/cell"
	"vps/console"
	"vps/instance/session"
)

// Exec runs a command in a running instance. ctx bounds its start; the caller closes the session. An *ExecError says that it is
// the command that cannot be run.
func (h *Host) Exec(ctx context.Context, id string, spec ExecSpec) (*Session, error) {
	s, err := h.exec(ctx, id, spec)
	h.audit(ctx, "exec", id, err)
	return s, err
}

func (h *Host) exec(ctx context.Context, id string, spec ExecSpec) (*Session, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return nil, fmt.Errorf("exec %s: no command: %w", id, ErrInvalid)
	}
	c, err := i.current("exec", Running)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	cfg, firstUID := i.cfg, i.rec.FirstUID
	i.mu.Unlock()
	run, err := session.Prepare(cfg, c.Init.PID, spec)
	if err != nil {
		return nil, fmt.Errorf("exec %s: %w: %w", id, ErrInvalid, err)
	}
	s, err := session.Start(ctx, c, run, firstUID+run.UID, spec.Stdin, spec.Detach)
	if _, named := errors.AsType[*ExecError](err); err != nil && !named {
		err = fmt.Errorf("exec %s: %w", id, err)
	}
	return s, err
}

// Logs reads what the instance's console has printed. The caller closes the reader; so does the end of ctx.
func (h *Host) Logs(ctx context.Context, id string, opt LogOptions) (io.ReadCloser, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	r, err := i.history(opt)
	if err != nil {
		return nil, fmt.Errorf("logs %s: %w", id, err)
	}
	context.AfterFunc(ctx, func() { r.Close() })
	return r, nil
}

func (i *instance) history(opt LogOptions) (*console.Reader, error) {
	i.mu.Lock()
	dead := i.dead
	i.mu.Unlock()
	o := console.Options{Tail: opt.Tail}
	if opt.Follow {
		o.Until = dead
	}
	return console.Open(filepath.Join(i.host.home.Instance(i.id), cell.HistoryFile), o)
}

// Console attaches to the console of an instance, whatever its state. The caller closes the session; so does the end of ctx.
func (h *Host) Console(ctx context.Context, id string) (*ConsoleSession, error) {
	c, err := h.console(ctx, id)
	h.audit(ctx, "console", id, err)
	return c, err
}

func (h *Host) console(ctx context.Context, id string) (*ConsoleSession, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &ConsoleSession{Master: i.console}
	if _, err := i.console(); err != nil {
		return nil, err
	}
	if c.Reader, err = i.history(LogOptions{Follow: true}); err != nil {
		return nil, fmt.Errorf("console %s: %w", id, err)
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// console is the master side of the console as it is now.
func (i *instance) console() (*os.File, error) {
	cl, err := i.current("console", Created, Running, Suspended, Snapshotting)
	if err != nil {
		return nil, err
	}
	if cl.Console == nil {
		return nil, fmt.Errorf("console %s: its configuration says CONSOLE = no: %w", i.id, ErrInvalid)
	}
	return cl.Console, nil
}
