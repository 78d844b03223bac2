package file

import (
	"fmt"
	"os"

	"vps/object"
	"vps/remote"
)

// Asker is a [Dumper] that asks each process for what only it can tell of its open files, before they are dumped.
type Asker interface {
	// Ask adds calls that may fail to a batch of a process. links are those of its /proc/PID/fd, by number.
	Ask(b *remote.Batch, links map[int]string) (answer func())
}

// Ask lets all kinds ask a process. What it returns is to be called when the batch has run.
func (d *Descriptors) Ask(b *remote.Batch, p object.Proc) (answer func() error, err error) {
	fds, err := descriptors(p.Host)
	if err != nil {
		return nil, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	links := make(map[int]string, len(fds))
	for _, fd := range fds {
		if links[fd], err = os.Readlink(Handle{host: p.Host, fd: fd}.path("fd")); err != nil {
			return nil, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
		}
	}
	var answers []func()
	for _, kind := range d.kinds {
		if asker, ok := kind.(Asker); ok {
			answers = append(answers, asker.Ask(b, links))
		}
	}
	return func() error {
		for _, answer := range answers {
			answer()
		}
		return nil
	}, nil
}
