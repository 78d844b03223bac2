package file

import (
	"vps/object"
	"vps/remote"
)

// Number is that of the descriptor in its process.
func (h Handle) Number() int { return h.fd }

// Asker is a [Dumper] that looks at the descriptors of each process before anything is written.
type Asker interface {
	// Ask adds calls that may fail to a batch of a process, for what only that can tell of its descriptors. more says that
	// there was not room for all: it is to be called again, after answer.
	Ask(b *remote.Batch, links []Link) (answer func(), more bool)
	// Busy tells, when all processes have been asked, what cannot be dumped at the moment: [object.ErrBusy].
	Busy() error
}

// Ask lets all kinds ask a process. What it returns is to be called when the batch has run; if more is to be asked, Ask is
// to be called again then.
func (d *Descriptors) Ask(b *remote.Batch, p object.Proc) (answer func() error, more bool, err error) {
	links, err := d.links(p)
	if err != nil {
		return nil, false, err
	}
	var answers []func()
	for _, kind := range d.kinds {
		if asker, ok := kind.(Asker); ok {
			answer, again := asker.Ask(b, links)
			answers, more = append(answers, answer), more || again
		}
	}
	return func() error {
		for _, answer := range answers {
			answer()
		}
		return nil
	}, more, nil
}

// Busy tells, when all processes have been asked, what cannot be dumped at the moment: [object.ErrBusy].
func (d *Descriptors) Busy() error {
	for _, kind := range d.kinds {
		if asker, ok := kind.(Asker); ok {
			if err := asker.Busy(); err != nil {
				return err
			}
		}
	}
	return nil
}
