package main

import (
	"testing"
	"time"
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

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]int{
		"9": 9, "KILL": 9, "SIGKILL": 9, "hup": 1, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX": 64, "rtmax-1": 63,
		"": 0, "0": 0, "65": 0, "SIGNAL": 0, "RTMIN+31": 0, "RTMIN-1": 0, "RTMIN3x": 0, "-9": 0,
	} {
		got, err := parseSignal(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("size %d: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 5 * time.Second: "5s", 61 * time.Second: "1m1s", 25 * time.Hour: "1d1h", 90 * time.Minute: "1h30m",
	} {
		if got := since(time.Now().Add(-d)); got != want {
			t.Errorf("since %s: %s, want %s", d, got, want)
		}
	}
}
