package terminal

import (
	"testing"
)

func TestEscape(t *testing.T) {
	for name, test := range map[string]struct {
		typed []string // as it arrives
		out   string
		found bool
	}{
		"at the beginning":  {[]string{"#."}, "", true},
		"after Enter":       {[]string{"ls\r#.rest"}, "ls\r", true},
		"key by key":        {[]string{"\r", "#", "."}, "\r", true},
		"within a line":     {[]string{"a#."}, "a#.", false},
		"stands for itself": {[]string{"\r##."}, "\r#.", false},
		"something else":    {[]string{"\r#x#."}, "\r#x#.", false},
		"then Enter":        {[]string{"\r#\r#."}, "\r#\r", true},
		"waits":             {[]string{"\r#"}, "\r", false},
	} {
		var e escape
		var out []byte
		var found bool
		for _, typed := range test.typed {
			b, f := e.filter([]byte(typed))
			out, found = append(out, b...), found || f
		}
		if string(out) != test.out || found != test.found {
			t.Errorf("%s: %q, %t; want %q, %t", name, out, found, test.out, test.found)
		}
	}
}
