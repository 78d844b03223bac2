package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// work is something that we and the rivals are measured at.
type work struct {
	name       string
	contenders func(*lab) ([]contender, error)
	goals      map[string]goal // by step
}

// contender is one who does the work. Contenders take turns, round by round.
type contender struct {
	name  string
	round func() (sample, error) // does the work once and returns what each step of it cost
	close func() error           // nil if there is nothing to undo
}

// sample maps steps to their cost, in the step's unit.
type sample map[string]float64

// goal is what a step shall cost us.
type goal struct {
	below     float64 // at most this much, 0 for no such goal
	faster    float64 // at most the rival's cost divided by this
	rival     string
	rivalStep string // what the rival's cost is that of; empty: the same step
}

// result is what one contender's steps cost.
type result struct {
	work, step, who string
	values          []float64
	goal            goal
}

const us = "vpsctl"

var works = []work{
	{"start", startContenders, map[string]goal{"to init's first instruction, ms": {below: 20, faster: 1, rival: "runc"}}},
	{"run", runContenders, nil},
	{"exec", execContenders, map[string]goal{"exec of /bin/true, ms": {below: 15}}},
	{"floor", floorContenders, nil},
	{"tiny", tinyContenders, map[string]goal{
		"tiny: dump, ms": {faster: 2, rival: "criu"}, "tiny: restore, ms": {faster: 2, rival: "criu"},
		"tiny: dump and restore, ms": {faster: 2, rival: "criu"}}},
	{"redis", redisContenders("redis"), map[string]goal{
		"redis: restore, ms": {faster: 3, rival: "criu"}}},
	{"redis 220 MB", redisContenders("redis 220 MB"), map[string]goal{
		"redis 220 MB: frozen, ms": {faster: 5, rival: "criu"}, "redis 220 MB: restore, ms": {faster: 2, rival: "criu"}}},
	{"100 processes", loadContenders("100 processes"), map[string]goal{
		"100 processes: dump, ms": {faster: 5, rival: "criu"}, "100 processes: restore, ms": {faster: 5, rival: "criu"}}},
	{"1,000 threads", loadContenders("1,000 threads"), map[string]goal{
		"1,000 threads: dump, ms": {faster: 3, rival: "criu"}, "1,000 threads: restore, ms": {faster: 3, rival: "criu"}}},
	{"2 GiB", loadContenders("2 GiB"), map[string]goal{
		"2 GiB: frozen, ms": {faster: 20, rival: "criu"}, "2 GiB: restore, ms": {faster: 2.5, rival: "criu"},
		"2 GiB: restored to running, lazy, ms": {below: 30}}},
	{gapWork, gapContenders, map[string]goal{
		gapSuspend: {below: 35}, gapCycle: {below: 200},
		gapLazy: {below: 200, faster: 3, rival: "criu", rivalStep: "gap: dump and restore, ms"}}},
	{"switch", switchContenders, map[string]goal{
		"switch: instance to instance, 1 GiB, ms": {faster: 1, rival: "bridge"}, "switch: instance to instance, round trip, µs": {faster: 1, rival: "bridge"},
		"switch: host to instance, 1 GiB, ms": {faster: 1, rival: "bridge"}, "switch: host to instance, round trip, µs": {faster: 1, rival: "bridge"}}},
	{"idle", idleContenders, map[string]goal{"idle instance beyond its processes, MiB": {below: 2}}},
}

// idOf is a name for an instance or a container of a work.
func idOf(work string) string {
	return strings.ToLower(strings.NewReplacer(" ", "-", ",", "").Replace(work))
}

// measure has every contender do the work once for nothing and then rounds times.
func (w work) measure(l *lab, rounds int) (results []result, err error) {
	contenders, err := w.contenders(l)
	defer func() {
		for _, c := range contenders {
			if c.close != nil {
				err = errors.Join(err, c.close())
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	for i := range rounds + 1 {
		for _, c := range contenders {
			if err := l.ctx.Err(); err != nil {
				return nil, err
			}
			s, err := c.round()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if i == 0 {
				continue
			}
			for step, value := range s {
				results = w.add(results, step, c.name, value)
			}
		}
	}
	order := func(r result) int {
		return slices.IndexFunc(contenders, func(c contender) bool { return c.name == r.who })
	}
	slices.SortStableFunc(results, func(a, b result) int {
		if a.step != b.step {
			return compareSteps(a.step, b.step)
		}
		return order(a) - order(b)
	})
	fmt.Fprintf(os.Stderr, "%s: done\n", w.name)
	return results, nil
}

func (w work) add(results []result, step, who string, value float64) []result {
	for i := range results {
		if results[i].step == step && results[i].who == who {
			results[i].values = append(results[i].values, value)
			return results
		}
	}
	return append(results, result{w.name, step, who, []float64{value}, w.goals[step]})
}

func compareSteps(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
