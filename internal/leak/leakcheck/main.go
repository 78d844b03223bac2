// Command leakcheck runs a command and fails if it left something behind on the machine:
// go run ./internal/leak/leakcheck COMMAND [ARG...]. Its exit status is the command's, or 1.
package main

import (
	"fmt"
	"os"
	"os/exec"

	"vps/internal/leak"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: leakcheck COMMAND [ARG...]")
		os.Exit(2)
	}
	os.Exit(leak.Run(exec.Command(os.Args[1], os.Args[2:]...)))
}
