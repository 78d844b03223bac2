package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxSize   = 1 << 20  // bytes of a file
	maxKey    = 300      // bytes of a key
	maxValue  = 64 << 10 // bytes of a value
	maxErrors = 100      // reported of one file
	blank     = " \t"    // between the parts of a line
)

// Parse reads a configuration from r; name is what messages call it. Keys that are not set have their defaults.
// The error joins one [Error] for each fault. That NAME and FSROOT are set is left to [Config.Validate].
func Parse(name string, r io.Reader) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: read %s: %w", name, err)
	}
	c := Default("")
	c.file, c.lines = name, make(map[string]int)
	if len(data) > maxSize {
		return nil, c.Errorf("", "more than %d bytes", maxSize)
	}
	var errs []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if err := c.parseLine(strings.Trim(string(line), blank+"\r\n"), number); err != nil {
			errs = append(errs, err)
		}
		if len(errs) == maxErrors {
			errs = append(errs, c.Errorf("", "more errors are not shown"))
			break
		}
	}
	errs = append(errs, c.clashes()...)
	if len(errs) == 0 && len(c.Text()) > maxSize {
		errs = append(errs, c.Errorf("", "more than %d bytes when written out", maxSize))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) parseLine(line string, number int) error {
	written, value, err := splitLine(line)
	if written == "" && err == nil {
		return nil
	}
	var k *key
	var arg string
	if err == nil {
		k, arg, err = lookup(written)
	}
	if err == nil {
		written = k.with(arg)
		if first, ok := c.lines[written]; ok {
			err = fault("set twice, in line %d and line %d", first, number)
		} else {
			c.lines[written] = number
			err = k.set(c, arg, value)
		}
	}
	if err == nil {
		return nil
	}
	e := c.locate(written, err)
	e.Line = number
	return e
}

// splitLine takes a line apart. An empty line or a comment has no key.
func splitLine(line string) (key, value string, err error) {
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	if err := checkText(line); err != nil {
		return "", "", err
	}
	key, rest, ok := strings.Cut(line, "=")
	key = strings.TrimRight(key, blank)
	switch {
	case !ok:
		return "", "", fault("%s has no =", shown(line)).hint("a line is NAME = value")
	case len(key) > maxKey:
		return "", "", fault("%s has more than %d bytes", shown(key), maxKey)
	case key == "" || strings.ContainsAny(key, blank+`'"#`):
		return "", "", fault("%s is no key", shown(key)).hint("a line is NAME = value")
	}
	value, err = unquote(strings.TrimLeft(rest, blank))
	return key, value, err
}

// unquote takes the value off the front of what stands after "=". Only a comment may follow it.
func unquote(s string) (string, error) {
	var value, rest string
	if s != "" && (s[0] == '\'' || s[0] == '"') {
		n, ok := 0, false
		if value, n, ok = quoted(s); !ok {
			return "", fault("no closing %c", s[0])
		}
		rest = s[n:]
		if rest != "" && !strings.ContainsAny(rest[:1], blank) {
			return "", fault("%s right after the closing %c", shown(rest), s[0]).hint("quote the whole value")
		}
	} else {
		n := strings.IndexAny(s, blank)
		if n < 0 {
			n = len(s)
		}
		value, rest = s[:n], s[n:]
		if strings.HasPrefix(value, "#") {
			value = ""
		}
		if strings.ContainsAny(value, `'"`) {
			return "", fault("a quote inside %s", shown(value)).hint("quote the whole value")
		}
	}
	rest = strings.TrimLeft(rest, blank)
	switch {
	case value == "":
		return "", fault("no value").hint("leave the line out to have the default")
	case len(value) > maxValue:
		return "", fault("a value of more than %d bytes", maxValue)
	case rest != "" && rest[0] != '#':
		return "", fault("%s after the value", shown(rest)).hint("a value with white space has to be quoted")
	}
	return value, nil
}

// checkText refuses what cannot stand in a line.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fault("not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\t' {
			return fault("control character %U", r)
		}
	}
	return nil
}
