package main

import (
	"fmt"
	"strconv"
)

// redisKeys is how many keys the Redis of a work holds, with values of 100 bytes: some 20 and 220 MB.
var redisKeys = map[string]int{"redis": 100_000, "redis 220 MB": 1_100_000, gapWork: 1_100_000}

const fillScript = `for i = 1, tonumber(ARGV[1]) do redis.call('SET', 'key:' .. i, string.rep(i .. ';', 100):sub(1, 100)) end`

// asker sends one command to a Redis through redis-cli.
type asker func(command ...string) (string, error)

// fillRedis waits until the server answers, then gives it its keys.
func (l *lab) fillRedis(ask asker, keys int) error {
	err := l.waitFor("redis", func() (bool, error) {
		answer, err := ask("PING")
		return err == nil && answer == "PONG", nil
	})
	if err != nil {
		return err
	}
	_, err = ask("EVAL", fillScript, "0", strconv.Itoa(keys))
	return err
}

// checkRedis verifies that all keys are there and that the server takes another one.
func checkRedis(ask asker, keys int) error {
	for _, c := range []struct {
		command []string
		want    string
	}{
		{[]string{"DBSIZE"}, strconv.Itoa(keys)},
		{[]string{"STRLEN", "key:77777"}, "100"},
		{[]string{"SET", "key:1", "new"}, "OK"},
	} {
		got, err := ask(c.command...)
		if err != nil {
			return err
		}
		if got != c.want {
			return fmt.Errorf("redis answers %q to %q, want %q", got, c.command, c.want)
		}
	}
	return nil
}
