// Package cli is what the verbs of vpsctl have in common: their streams, how they print, and how they fail.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vps/config"
	"vps/instance"
)

// IO is what a verb reads and writes.
type IO struct {
	Stdin, Stdout, Stderr *os.File
	JSON                  bool   // --json was given
	Home                  string // VPS_HOME or --home
}

// SignalError is the cause of a context that a signal ended.
type SignalError syscall.Signal

func (e SignalError) Error() string { return "interrupted" }

// Context ends when vpsctl is asked to. A second signal has its usual effect.
func Context(cmd *cobra.Command) context.Context {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		cancel(SignalError((<-signals).(syscall.Signal)))
		signal.Stop(signals)
	}()
	return ctx
}

// Fail says what was tried with which instance, and what to do about it. Nothing is said twice.
func Fail(ctx context.Context, verb, id string, err error) error {
	if err == nil {
		return nil
	}
	if cause, ok := errors.AsType[SignalError](context.Cause(ctx)); ok && errors.Is(err, context.Canceled) {
		err = cause
	}
	what := verb + " " + id + ": "
	text := err.Error()
	for _, said := range []string{what, what, verb + ": ", id + ": "} { // a daemon may say it in layers
		text = strings.TrimPrefix(text, said)
	}
	if text == instance.ErrNotFound.Error() {
		text += "; 'vpsctl list' shows those there are"
	} else if errors.Is(err, instance.ErrState) {
		text += next(verb, id, text)
	}
	return &verbError{text: what + text, err: err}
}

// next says which verb helps where one did not fit the state of an instance.
func next(verb, id, text string) string {
	switch state := instance.State(strings.TrimPrefix(text, "it is ")); {
	case state == instance.Suspended && verb == "stop":
		return fmt.Sprintf("; 'vpsctl resume %s' lets it go on, 'vpsctl abort %s' ends it", id, id)
	case state == instance.Suspended && verb != "suspend":
		return fmt.Sprintf("; 'vpsctl resume %s' lets it go on", id)
	case state == instance.Running && (verb == "rm" || verb == "restore" || verb == "abort"):
		return fmt.Sprintf("; 'vpsctl stop %s' ends it", id)
	case state == instance.Dead && verb != "resume" && verb != "abort":
		return fmt.Sprintf("; 'vpsctl start %s' starts it", id)
	}
	return ""
}

// verbError is an error of one verb, about one instance.
type verbError struct {
	text string
	err  error
}

func (e *verbError) Error() string { return e.text }
func (e *verbError) Unwrap() error { return e.err }

// StatusError is an exit status about which everything has been said.
type StatusError int

func (e StatusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Joined is errors.Join with vpsctl's name before every line but the first, which gets it from main.
func Joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	for n := 1; n < len(errs); n++ {
		errs[n] = fmt.Errorf("vpsctl: %w", errs[n])
	}
	return errors.Join(errs...)
}

// ConfigError gives every fault a line of its own.
func ConfigError(err error) error {
	faults := config.Errors(err)
	if len(faults) == 0 {
		return err
	}
	errs := make([]error, len(faults))
	for n, f := range faults {
		errs[n] = f
	}
	return Joined(errs)
}
