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
	"vps/cmd/vpsctl/cli"
	"vps/cmd/vpsctl/daemon"
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

// daemonMain is the program vpsd.
func daemonMain(args []string) int {
	cmd := daemon.Command(version)
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "vpsd: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func main() {
	if filepath.Base(os.Args[0]) == api.Daemon {
		os.Exit(daemonMain(os.Args[1:]))
	}
	os.Exit(vpsctl(os.Args[1:]))
}

// vpsctl runs a command line and returns its exit status.
func vpsctl(args []string) int {
	a := &app{IO: cli.IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}}
	defer a.close()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	a.warn()
	if err == nil {
		return exitOK
	}
	if status, ok := errors.AsType[cli.StatusError](err); ok {
		return int(status)
	}
	if errors.Is(err, syscall.EPIPE) { // whoever read the output has seen enough
		return exitFailed
	}
	fmt.Fprintf(a.Stderr, "vpsctl: %s\n", strings.TrimRight(err.Error(), "\n"))
	if !a.parsed {
		fmt.Fprintf(a.Stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return a.exitStatus(cmd.Name(), err)
}
