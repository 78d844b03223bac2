package cli

import (
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 1<<64 - 1: "16.0 EiB"} {
		if got := Size(n); got != want {
			t.Errorf("size %d: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 5 * time.Second: "5s", 61 * time.Second: "1m1s", 25 * time.Hour: "1d1h", 90 * time.Minute: "1h30m",
	} {
		if got := Since(time.Now().Add(-d)); got != want {
			t.Errorf("since %s: %s, want %s", d, got, want)
		}
	}
}
