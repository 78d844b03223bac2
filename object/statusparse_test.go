package object

import (
	"errors"
	"strings"
	"testing"
)

func TestStatusOfNamespaces(t *testing.T) {
	st, err := parseStatus([]byte("Name:\tx\nState:\tS (sleeping)\nPid:\t300\nNSpid:\t300\t7\t1\nNSpgid:\t300\t7\t1\nNSsid:\t0\t0\t0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, pgid, sid := st.Inside(); pid != 1 || pgid != 1 || sid != 0 {
		t.Errorf("inside: %d %d %d", pid, pgid, sid)
	}
	err = st.CheckLevel(2)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "pid 7 (x)") {
		t.Errorf("nested: %v", err)
	}
	if err := st.CheckLevel(3); err != nil {
		t.Errorf("own level: %v", err)
	}
}
