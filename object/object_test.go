package object

import (
	"errors"
	"testing"
)

func TestRefusal(t *testing.T) {
	for want, r := range map[string]Refusal{
		"pid 214 (nginx) fd 9: io_uring is not supported":             {PID: 214, Comm: "nginx", FD: 9, Object: "io_uring"},
		"pid 7 (x): its own pid namespace is not supported":           {PID: 7, Comm: "x", FD: -1, Object: "its own pid namespace"},
		"mount /data (ext4) is not supported":                         {FD: -1, Object: "mount /data (ext4)"},
		"pid 7 (x) fd 0: file /tmp/x: another file has this name now": {PID: 7, Comm: "x", Object: "file /tmp/x", Why: "another file has this name now"},
		"file /tmp/x: no longer there under this name":                {FD: -1, Object: "file /tmp/x", Why: "no longer there under this name"},
	} {
		if got := r.Error(); got != want || !errors.Is(&r, ErrUnsupported) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
