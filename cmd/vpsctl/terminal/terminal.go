// Package terminal hands the user's terminal to something in an instance for a while.
package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// Terminal is the user's, while something in an instance has it.
type Terminal struct {
	in, out *os.File
	before  *term.State
	once    sync.Once

	alternate bool // the other side has switched to the alternate screen
}

// How [Terminal.CopyInput] ends.
var (
	ErrDetached = errors.New("detached") // the user typed the escape sequence
	ErrHungUp   = errors.New("the terminal was hung up")
)

// Open makes the terminal raw, so that all that is typed goes to the instance. Restore has to be called.
func Open(in, out *os.File) (*Terminal, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("set terminal raw: %w", err)
	}
	return &Terminal{in: in, out: out, before: before}, nil
}

// Restore makes the terminal what it was. It may be called more than once.
func (t *Terminal) Restore() {
	t.once.Do(func() {
		// What a program inside turned on and cannot turn off any more: mouse reports, bracketed paste, attributes.
		reset := "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m"
		if t.alternate {
			reset = "\x1b[?1049l" + reset
		}
		if term.IsTerminal(int(t.out.Fd())) {
			io.WriteString(t.out, reset)
		}
		if err := term.Restore(int(t.in.Fd()), t.before); err != nil {
			fmt.Fprintf(os.Stderr, "vpsctl: restore terminal: %v; try 'stty sane'\n", err)
		}
	})
}

// Write shows what comes from the instance.
func (t *Terminal) Write(p []byte) (int, error) {
	on, off := bytes.LastIndex(p, []byte("\x1b[?1049h")), bytes.LastIndex(p, []byte("\x1b[?1049l"))
	if on != off {
		t.alternate = on > off
	}
	return t.out.Write(p)
}

// CopyInput gives to what is typed, until the escape sequence: ErrDetached.
func (t *Terminal) CopyInput(to io.Writer) error {
	var e escape
	b := make([]byte, 4096)
	for {
		n, err := t.in.Read(b)
		out, found := e.filter(b[:n])
		if len(out) > 0 {
			if _, err := to.Write(out); err != nil {
				return err
			}
		}
		switch {
		case found:
			return ErrDetached
		case err == io.EOF:
			return ErrHungUp
		case err != nil:
			return err
		}
	}
}

// Size is the size of a terminal, in characters; 0 if f is none.
func Size(f *os.File) (rows, cols uint16) {
	w, h, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return uint16(h), uint16(w)
}

// FollowSize calls resize with the size of a terminal, now and whenever it changes, until stop is called.
func FollowSize(f *os.File, resize func(rows, cols uint16) error) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for range changed {
			// An error means that the other side has gone, which shows where its output is read.
			_ = resize(Size(f))
		}
	}()
	changed <- syscall.SIGWINCH
	return func() {
		signal.Stop(changed)
		close(changed)
	}
}

// Is reports whether f is a terminal.
func Is(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
