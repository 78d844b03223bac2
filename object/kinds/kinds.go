// Package kinds registers the kinds of open files that have packages of their own.
package kinds

import (
	"context"
	"os"

	"vps/kmem"
	"vps/object"
	"vps/object/datagram"
	"vps/object/event"
	"vps/object/file"
	"vps/object/inotify"
	"vps/object/ipc"
	"vps/object/namespace"
	"vps/object/pidfd"
	"vps/object/pipe"
	"vps/object/tcp"
	"vps/object/tty"
	"vps/object/unixsock"
)

// NewDescriptors prepares a dump of open files of every kind, see [file.NewDescriptors]. Without kernel, what only the kernel's memory
// tells is refused.
func NewDescriptors(procs []object.Proc, init int, ext file.Externals, sink object.Sink, kernel *kmem.Reader) *file.Descriptors {
	return file.NewDescriptors(procs, init, ext, sink,
		unixsock.NewDumper(kernel), // first: what lies in queues can be of every kind
		datagram.NewDumper,
		tcp.NewDumper,
		pipe.NewDumper,
		event.NewDumper,
		namespace.NewDumper,
		inotify.NewDumper,
		ipc.NewDumper(kernel),
		pidfd.NewDumper,
		tty.NewDumper)
}

// Options say how open files are restored.
type Options struct {
	file.Options
	Console    *os.File // master of the pty that is the console; nil: there is none
	ConsoleTTY int      // its index
}

// Restored is what [Restore] has made.
type Restored struct {
	*file.Files
	TTYs *tty.Restorer // for who gives them to their sessions
	IPC  *ipc.Restorer
}

// Restore makes all open files of a set, see [file.Restore], and the ipc namespace.
func Restore(ctx context.Context, m *object.Maker, set *object.Set, content object.Content, opt Options) (Restored, error) {
	var r Restored
	var err error
	r.Files, err = file.Restore(ctx, m, set, content, opt.Options,
		func(f *file.Files) file.Restorer {
			r.IPC = ipc.NewRestorer(f, content)
			return r.IPC
		},
		pipe.NewRestorer,
		event.NewRestorer,
		namespace.NewRestorer,
		inotify.NewRestorer,
		pidfd.NewRestorer,
		unixsock.NewRestorer,
		datagram.NewRestorer,
		tcp.NewRestorer,
		func(f *file.Files) file.Restorer {
			r.TTYs = tty.NewRestorer(f, opt.Console, opt.ConsoleTTY)
			return r.TTYs
		})
	return r, err
}
