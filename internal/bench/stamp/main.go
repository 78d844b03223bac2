// Command stamp is the init whose first instruction the benchmarks time: it writes the time of day to the file
// /stamp (nanoseconds since 1970; CLOCK_REALTIME is the same in every namespace), then waits for SIGTERM.
package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	now := time.Now().UnixNano()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	// Complete under its name or not there at all: somebody polls for it.
	if err := os.WriteFile("/stamp.new", []byte(strconv.FormatInt(now, 10)), 0o644); err != nil {
		os.Exit(1)
	}
	if err := os.Rename("/stamp.new", "/stamp"); err != nil {
		os.Exit(1)
	}
	<-end
}
