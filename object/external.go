package object

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// restoreExternal makes an end whose other end was outside of the instance. There is none now: a reader comes to the end
// of what was left, a writer gets EPIPE, a terminal is hung up.
func (r *Files) restoreExternal(s *remote.Script, file *dump.File) error {
	e := file.GetExternal()
	switch e.GetType() {
	case unix.S_IFIFO:
		return r.restorePipeEnd(s, file, e.GetPipe())
	case unix.S_IFCHR:
		r.hungUpTTY(s, r.fds[file.GetId()], file.GetFlags())
		return nil
	}
	return fmt.Errorf("external %q of type %#o: %w", e.GetWhat(), e.GetType(), ErrUnsupported)
}
