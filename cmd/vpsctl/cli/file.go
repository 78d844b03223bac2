package cli

import (
	"fmt"
	"io/fs"
	"os"

	"vps/cmd/vpsctl/terminal"
	"vps/dump/atomicfile"
)

// Output opens what is to be written to: a file, which appears when it is whole, or the standard output for -. what is
// the thing to be written, with its article.
func (c *IO) Output(path, what string) (*atomicfile.File, error) {
	switch {
	case path == "-" && terminal.Is(c.Stdout):
		return nil, fmt.Errorf("%s is nothing for a terminal: give a FILE, or lead it into a pipe", what)
	case path == "-":
		return atomicfile.Existing(c.Stdout), nil
	case isSpecial(path):
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return atomicfile.Existing(f), nil
	}
	return atomicfile.Create(path)
}

// isSpecial reports whether path is there and is something to be written into rather than replaced: a pipe, a device.
func isSpecial(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeDevice) != 0
}
