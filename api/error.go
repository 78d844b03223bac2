package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"vps/api/vpsv1"
	"vps/config"
	"vps/instance"
)

// ErrUnavailable is the class of errors of a daemon that cannot be reached, or went away during a call.
var ErrUnavailable = errors.New("vpsd is not available")

// errEnding is what calls get that are under way when the daemon is told to end.
var errEnding = fmt.Errorf("%w: it was told to end (instances go on)", ErrUnavailable)

// classes are the errors that keep their meaning on the way to the client.
var classes = []struct {
	err  error
	code connect.Code
}{
	{instance.ErrNotFound, connect.CodeNotFound},
	{instance.ErrExists, connect.CodeAlreadyExists},
	{instance.ErrBusy, connect.CodeAborted},
	{instance.ErrState, connect.CodeFailedPrecondition},
	{instance.ErrInvalid, connect.CodeInvalidArgument},
	{context.Canceled, connect.CodeCanceled},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
	{ErrUnavailable, connect.CodeUnavailable},
}

// remoteError is an error of the daemon's: its whole text, and its class.
type remoteError struct {
	text  string
	class error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.class }

// toWire turns an error of the backend's into one that connect transmits.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*connect.Error](err); ok {
		return err
	}
	code := connect.CodeUnknown
	for _, c := range classes {
		if errors.Is(err, c.err) {
			code = c.code
		}
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		code = connect.CodeInvalidArgument
	}
	wire := connect.NewError(code, errors.New(strings.ToValidUTF8(err.Error(), "\uFFFD")))
	if failure, ok := errors.AsType[*instance.ExecError](err); ok {
		detail, e := connect.NewErrorDetail(&vpsv1.ExecFailure{
			Command: strings.ToValidUTF8(failure.Command, "\uFFFD"),
			Status:  int32(failure.Status),
		})
		if e == nil {
			wire.AddDetail(detail)
		}
	}
	return wire
}

// fromWire gives an error of a call its class again, and says what an error of the transport means.
func (c *Client) fromWire(err error) error {
	wire, ok := errors.AsType[*connect.Error](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return err
	case !connect.IsWireError(err):
		return c.transportError(err)
	}
	for _, d := range wire.Details() {
		m, e := d.Value()
		if failure, ok := m.(*vpsv1.ExecFailure); e == nil && ok {
			text := strings.TrimPrefix(wire.Message(), failure.Command+": ")
			return &instance.ExecError{Command: failure.Command, Status: int(failure.Status), Err: errors.New(text)}
		}
	}
	for _, class := range classes {
		if class.code == wire.Code() {
			return &remoteError{wire.Message(), class.err}
		}
	}
	if wire.Code() == connect.CodeUnimplemented {
		return fmt.Errorf("the daemon (version %s) does not know this call: restart it as version %s", c.daemonVersion(), c.version)
	}
	return &remoteError{text: wire.Message()}
}

// transportError says what to do about a call that got no answer.
func (c *Client) transportError(err error) error {
	for _, own := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, own) {
			return own
		}
	}
	if start, ok := errors.AsType[*StartError](err); ok {
		return start
	}
	if errors.Is(err, errNotRunning) {
		return errNotRunning
	}
	return fmt.Errorf("%w: it went away during the call (instances go on; try again, and see %s): %w", ErrUnavailable, logPath(c.home), err)
}
