// Command vpsctl manages the instances of a host, vpsctl(8). Run as vpsd it is the daemon that keeps them.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"vps/api"
)

// version is set by the linker.
var version = "devel"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitExec   = 125 // exec failed before there was a command
	exitSignal = 128 // added to the number of the signal that ended vpsctl
)

func main() {
	if filepath.Base(os.Args[0]) == api.Daemon {
		os.Exit(daemonMain(os.Args[1:]))
	}
	os.Exit(vpsctl(os.Args[1:]))
}

// vpsctl runs a command line and returns its exit status.
func vpsctl(args []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	defer a.close()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	a.warn()
	if err == nil {
		return exitOK
	}
	if status, ok := errors.AsType[statusError](err); ok {
		return int(status)
	}
	if errors.Is(err, syscall.EPIPE) { // whoever read the output has seen enough
		return exitFailed
	}
	fmt.Fprintf(a.stderr, "vpsctl: %s\n", strings.TrimRight(err.Error(), "\n"))
	if !a.parsed {
		fmt.Fprintf(a.stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return a.exitStatus(cmd.Name(), err)
}

// statusError is an exit status about which everything has been said.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
