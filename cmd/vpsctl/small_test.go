package main

import (
	"testing"
)

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
