// Command coverage runs the programs of CRIU's test suite, ZDTM, each in an instance of its own that is snapshotted, ended and
// restored in the middle of the program's work, and tells which of them find everything as it was.
//
// The suite is not part of this project: -zdtm names the folder with its programs (test/zdtm/static of CRIU 4.2), built
// statically. A program tells by itself which options it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"
)

func main() {
	programs := flag.String("zdtm", os.Getenv("ZDTM"), "`folder` with the built programs")
	vpsctl := flag.String("vpsctl", "bin/vpsctl", "the program under test")
	only := flag.String("run", "", "only the programs whose name matches this regular expression")
	passes := flag.String("passes", "internal/coverage/passes.txt", "`file` with the programs that must pass; new ones are added")
	out := flag.String("o", "", "put the report into this Markdown `file` too")
	workers := flag.Int("j", 2, "how many run at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := cover(ctx, *programs, *vpsctl, *only, *passes, *out, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func cover(ctx context.Context, folder, vpsctl, only, passes, out string, workers int) error {
	filter, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	list, err := find(folder, filter)
	if err != nil {
		return err
	}
	results, err := runAll(ctx, list, vpsctl, workers)
	if err != nil {
		return err
	}
	known, err := readPasses(passes)
	if err != nil {
		return err
	}
	text := report(results)
	fmt.Print(text)
	if out != "" {
		if err := putReport(out, text); err != nil {
			return err
		}
	}
	lost := settle(known, results)
	if err := writePasses(passes, known); err != nil {
		return err
	}
	if len(lost) > 0 {
		return fmt.Errorf("passed before, and do not now: %q", lost)
	}
	return nil
}

// runAll runs all programs, several at a time, and returns what came of them, by name.
func runAll(ctx context.Context, list []program, vpsctl string, workers int) (results []result, err error) {
	b, err := newBench(vpsctl)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	jobs, done := make(chan program), make(chan result)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(jobs)
		for _, p := range list {
			select {
			case jobs <- p:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for n := range workers {
		g.Go(func() error {
			place := b.place(fmt.Sprintf("zdtm%d", n))
			for p := range jobs {
				r, err := place.run(ctx, p)
				if err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				fmt.Fprintf(os.Stderr, "%-12s %s %s\n", r.verdict, r.name, r.why)
				done <- r
			}
			return nil
		})
	}
	go func() {
		err = g.Wait()
		close(done)
	}()
	for r := range done {
		results = append(results, r)
	}
	slices.SortFunc(results, func(a, b result) int { return compare(a.name, b.name) })
	return results, err
}
