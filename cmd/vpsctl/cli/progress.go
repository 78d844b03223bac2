package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"vps/cmd/vpsctl/terminal"
	"vps/instance"
)

// Progress is a line on a terminal that tells how far long work is. Elsewhere it is nothing.
type Progress struct {
	out   *os.File // nil: no terminal
	warn  io.Writer
	title string
	last  time.Time
	shown bool
}

const progressInterval = 100 * time.Millisecond

// Progress begins such a line. The caller ends it.
func (c *IO) Progress(verb, id string) *Progress {
	p := &Progress{title: verb + " " + id, warn: c.Stderr}
	if terminal.Is(c.Stderr) {
		p.out = c.Stderr
	}
	return p
}

const eraseLine = "\r\x1b[K"

// Show tells how far it is now. A warning is printed in any case.
func (p *Progress) Show(now instance.Progress) {
	if now.Warning != "" {
		p.End()
		fmt.Fprintf(p.warn, "vpsctl: %s: passed over: %s\n", p.title, Printable(now.Warning))
		return
	}
	if p.out == nil || time.Since(p.last) < progressInterval {
		return
	}
	p.last, p.shown = time.Now(), true
	of := ""
	if now.Total > 0 {
		of = fmt.Sprintf(" of %s", Size(uint64(now.Total)))
	}
	fmt.Fprintf(p.out, "%s%s: %s, %s%s", eraseLine, p.title, now.Phase, Size(uint64(now.Bytes)), of)
}

// End takes the line away.
func (p *Progress) End() {
	if p.shown {
		fmt.Fprint(p.out, eraseLine)
		p.shown = false
	}
}

// Bytes shows how far work on bytes is.
func (p *Progress) Bytes(phase string) func(done, total uint64) {
	return func(done, total uint64) {
		p.Show(instance.Progress{Phase: phase, Bytes: int64(done), Total: int64(total)})
	}
}
