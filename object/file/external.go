package file

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// restoreExternal makes an end whose other end was outside of the instance. There is none now: a reader comes to the end
// of what was left, a writer gets EPIPE.
func (r *Files) restoreExternal(s *remote.Script, file *dump.File) error {
	e := file.GetExternal()
	if e.GetType() == unix.S_IFIFO {
		return r.restorePipeEnd(s, file, e.GetPipe())
	}
	return fmt.Errorf("external %q of type %#o: %w", e.GetWhat(), e.GetType(), object.ErrUnsupported)
}
