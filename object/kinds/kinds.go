// Package kinds registers the kinds of open files that have packages of their own.
package kinds

import (
	"context"
	"os"

	"vps/object"
	"vps/object/datagram"
	"vps/object/event"
	"vps/object/file"
	"vps/object/pipe"
	"vps/object/tcp"
	"vps/object/tty"
	"vps/object/unixsock"
)

// NewDescriptors prepares a dump of open files of every kind, see [file.NewDescriptors].
func NewDescriptors(procs []object.Proc, init int, ext file.Externals, sink object.Sink) *file.Descriptors {
	return file.NewDescriptors(procs, init, ext, sink,
		unixsock.NewDumper, // first: what lies in queues can be of every kind
		datagram.NewDumper, tcp.NewDumper, pipe.NewDumper, event.NewDumper, tty.NewDumper)
}

// Options say how open files are restored.
type Options struct {
	file.Options
	Console    *os.File // master of the pty that is the console; nil: there is none
	ConsoleTTY int      // its index
}

// Restore makes all open files of a set, see [file.Restore]. The terminals are for who gives them to their sessions.
func Restore(ctx context.Context, m *object.Maker, set *object.Set, content object.Content, opt Options) (*file.Files, *tty.Restorer, error) {
	var ttys *tty.Restorer
	files, err := file.Restore(ctx, m, set, content, opt.Options,
		pipe.NewRestorer, event.NewRestorer, unixsock.NewRestorer, datagram.NewRestorer, tcp.NewRestorer,
		func(f *file.Files) file.Restorer {
			ttys = tty.NewRestorer(f, opt.Console, opt.ConsoleTTY)
			return ttys
		})
	return files, ttys, err
}
