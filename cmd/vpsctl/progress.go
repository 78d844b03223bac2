package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"vps/instance"
)

// progress is a line on a terminal that tells how far long work is. Elsewhere it is nothing.
type progress struct {
	out   *os.File // nil: no terminal
	warn  io.Writer
	title string
	last  time.Time
	shown bool
}

const progressInterval = 100 * time.Millisecond

func (a *app) progress(verb, id string) *progress {
	p := &progress{title: verb + " " + id, warn: a.stderr}
	if isTerminal(a.stderr) {
		p.out = a.stderr
	}
	return p
}

const eraseLine = "\r\x1b[K"

func (p *progress) show(now instance.Progress) {
	if now.Warning != "" {
		p.end()
		fmt.Fprintf(p.warn, "vpsctl: %s: passed over: %s\n", p.title, printable(now.Warning))
		return
	}
	if p.out == nil || time.Since(p.last) < progressInterval {
		return
	}
	p.last, p.shown = time.Now(), true
	of := ""
	if now.Total > 0 {
		of = fmt.Sprintf(" of %s", size(uint64(now.Total)))
	}
	fmt.Fprintf(p.out, "%s%s: %s, %s%s", eraseLine, p.title, now.Phase, size(uint64(now.Bytes)), of)
}

// end takes the line away.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.out, eraseLine)
		p.shown = false
	}
}
