// Command bench measures vpsctl beside its rivals, on the same work and in turn, and prints a table of medians
// and ratios; make bench runs it. runc takes part if it is installed, CRIU and gVisor's runsc if the variables
// CRIU and RUNSC name their programs. It needs root, and makes a network namespace of its own for all it does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == boxCommand {
		os.Exit(boxMain(os.Args[2:]))
	}
	if os.Geteuid() == 0 {
		if err := isolate(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
	n := flag.Int("n", 10, "rounds that count; one more before them does not")
	out := flag.String("o", "", "put the table into this Markdown `file` too, in place of the one that an earlier run put there")
	only := flag.String("run", "", "only the work whose name matches this regular expression")
	ours := flag.String("vpsctl", "bin/vpsctl", "the program to measure; empty for the rivals alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *n, *out, *only, *ours); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, rounds int, out, only, ours string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	filter, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if err := warmMemory(); err != nil {
		return err
	}
	l, err := newLab(ctx, ours)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()

	var results []result
	for _, w := range works {
		if !filter.MatchString(w.name) {
			continue
		}
		got, err := w.measure(l, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		results = append(results, got...)
	}
	text := report(l, rounds, results)
	fmt.Print(text)
	if out == "" {
		return nil
	}
	return putReport(out, text)
}

// warmMemory touches memory that the machine may never have used, and gives it back: the first touch costs
// ten times a later one on a virtual machine, and would fall on whoever is measured first.
func warmMemory() error {
	const size = 3 << 30
	m, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("warm %d bytes of memory: %w", size, err)
	}
	return syscall.Munmap(m)
}
