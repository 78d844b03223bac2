package tty

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// Ask notes a descriptor of each side of each terminal.
func (d *dumper) Ask(_ *remote.Batch, links []file.Link) (answer func(), more bool) {
	for _, l := range links {
		switch {
		case strings.HasSuffix(l.Text, "/ptmx"): // each is another one
			d.sides = append(d.sides, l)
		case strings.HasPrefix(l.Text, "/dev/pts/"), l.Text == "/dev/console", l.Text == "/dev/tty":
			if !d.seen[l.Text] {
				d.seen[l.Text] = true
				d.sides = append(d.sides, l)
			}
		}
	}
	return func() {}, false
}

// Busy tells which terminal holds more than could be put back.
func (d *dumper) Busy() error {
	for _, l := range d.sides {
		fd, err := l.Copy()
		if err != nil {
			return err
		}
		why := ""
		if file.Poll(fd, unix.POLLIN)&unix.POLLIN != 0 { // which lets what was written last come through
			if waiting, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err == nil && waiting >= maxInput {
				why = fullOutput
				if !strings.HasSuffix(l.Text, "/ptmx") {
					why = fullInput
				}
			}
		}
		unix.Close(fd)
		if why != "" {
			return fmt.Errorf("%w: %w", object.ErrBusy, l.Refusal("terminal "+l.Text, why))
		}
	}
	return nil
}

const (
	fullOutput = "its output is full and waits to be read"
	fullInput  = "its input is full and waits to be read"
)
