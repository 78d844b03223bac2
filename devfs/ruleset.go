package devfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ErrNoRuleset says that a file has no ruleset of a name.
var ErrNoRuleset = errors.New("no such ruleset")

// DefaultName is the name under which files include the ruleset of [Default],
// unless they have one of that name themselves.
const DefaultName = "default"

// A Ruleset is a list of rules, applied in order to each name in /dev; at
// first everything is hidden. It is read-only once made.
type Ruleset struct {
	Name  string
	rules []rule
}

// A rule changes the view of the names that match its pattern, path.Match.
type rule struct {
	pattern  string
	hide     bool
	unhide   bool
	mode     *fs.FileMode
	readOnly *bool
}

// A view is what becomes of one name.
type view struct {
	shown    bool
	mode     *fs.FileMode // nil: as on the host
	readOnly bool
}

func (r *Ruleset) view(name string) (v view) {
	for _, rule := range r.rules {
		// The pattern was checked when it was parsed.
		if ok, err := path.Match(rule.pattern, name); !ok || err != nil {
			continue
		}
		switch {
		case rule.hide:
			v.shown = false
		case rule.unhide:
			v.shown = true
		}
		if rule.mode != nil {
			v.mode = rule.mode
		}
		if rule.readOnly != nil {
			v.readOnly = *rule.readOnly
		}
	}
	return v
}

// Default returns the ruleset that shows what programs expect everywhere, and
// nothing that reaches hardware or the host.
func Default() *Ruleset {
	r := &Ruleset{Name: DefaultName}
	for _, name := range []string{
		"null", "zero", "full", "random", "urandom", "tty",
		"console", "pts", "ptmx", "fd", "stdin", "stdout", "stderr",
	} {
		r.rules = append(r.rules, rule{pattern: name, unhide: true})
	}
	return r
}

// Load reads the ruleset of a name from a file such as /etc/vps/devfs.rules:
//
//	# comment
//	[name]
//	add include default
//	add path net/tun unhide mode 0666
//	add path 'sd*' unhide ro
//	add path sda hide
//
// A pattern is relative to /dev, its * and ? match no slash. An action is
// hide, unhide, mode OCTAL, ro or rw; a rule may have several. "add hide" is
// "add path * hide". A ruleset may be included before it is defined.
//
// Without the file there still is the default ruleset. Errors name file and
// line; that of a name that the file does not have wraps ErrNoRuleset.
func Load(file, name string) (*Ruleset, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) && name == DefaultName {
		return Default(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read devfs rulesets: %w", err)
	}
	defer f.Close()
	return Parse(f, file, name)
}

// Parse is Load for a text; file is what errors call it.
func Parse(text io.Reader, file, name string) (*Ruleset, error) {
	p := parser{file: file, sets: make(map[string][]line)}
	if err := p.scan(text); err != nil {
		return nil, err
	}
	if _, ok := p.sets[name]; !ok && name != DefaultName {
		known := append(slices.Sorted(maps.Keys(p.sets)), DefaultName)
		return nil, fmt.Errorf("%s: %w: %q (there is: %s)", file, ErrNoRuleset, name, strings.Join(known, ", "))
	}
	rules, err := p.expand(name, nil)
	if err != nil {
		return nil, err
	}
	return &Ruleset{Name: name, rules: rules}, nil
}

// A parser holds the rulesets of one file.
type parser struct {
	file string
	sets map[string][]line
}

// A line is a rule, or the name of a ruleset to be put in its place.
type line struct {
	number  int
	rule    rule
	include string
}

func (p *parser) errorf(number int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", p.file, number, fmt.Errorf(format, args...))
}

// scan checks every line of the file, also of rulesets that are not asked for.
func (p *parser) scan(text io.Reader) error {
	s := bufio.NewScanner(text)
	set := ""
	number := 0
	for s.Scan() {
		number++
		content, _, _ := strings.Cut(s.Text(), "#")
		content = strings.TrimSpace(content)
		switch {
		case content == "":
		case strings.HasPrefix(content, "["):
			set = strings.TrimSpace(strings.Trim(content, "[]"))
			if set == "" || !strings.HasSuffix(content, "]") {
				return p.errorf(number, "malformed name of a ruleset: %s", content)
			}
			if _, ok := p.sets[set]; ok {
				return p.errorf(number, "ruleset %q is defined twice", set)
			}
			p.sets[set] = nil
		case set == "":
			return p.errorf(number, "rule before the first [name]")
		default:
			l, err := parseLine(strings.Fields(content))
			if err != nil {
				return p.errorf(number, "%w", err)
			}
			l.number = number
			p.sets[set] = append(p.sets[set], l)
		}
	}
	if err := s.Err(); err != nil {
		return p.errorf(number+1, "%w", err)
	}
	return nil
}

// expand replaces includes; path is how it got here.
func (p *parser) expand(name string, path []string) ([]rule, error) {
	if _, ok := p.sets[name]; !ok && name == DefaultName {
		return Default().rules, nil
	}
	path = append(path, name)
	var rules []rule
	for _, l := range p.sets[name] {
		if l.include == "" {
			rules = append(rules, l.rule)
			continue
		}
		if slices.Contains(path, l.include) {
			return nil, p.errorf(l.number, "ruleset includes itself: %s", strings.Join(append(path, l.include), " > "))
		}
		if _, ok := p.sets[l.include]; !ok && l.include != DefaultName {
			return nil, p.errorf(l.number, "include: %w: %q", ErrNoRuleset, l.include)
		}
		included, err := p.expand(l.include, path)
		if err != nil {
			return nil, err
		}
		if rules = append(rules, included...); len(rules) > maxRules {
			return nil, p.errorf(l.number, "more than %d rules", maxRules)
		}
	}
	return rules, nil
}

// maxRules bounds what includes of includes may grow to.
const maxRules = 10_000

func parseLine(words []string) (l line, err error) {
	if words[0] != "add" {
		return l, fmt.Errorf("unknown word %q; a rule begins with add", words[0])
	}
	words = words[1:]
	if len(words) > 0 && words[0] == "include" {
		if len(words) != 2 {
			return l, errors.New("include wants one name")
		}
		l.include = words[1]
		return l, nil
	}
	l.rule.pattern = "*"
	if len(words) > 0 && words[0] == "path" {
		if len(words) < 2 {
			return l, errors.New("path wants a pattern")
		}
		if l.rule.pattern, err = parsePattern(words[1]); err != nil {
			return l, err
		}
		words = words[2:]
	}
	return l, l.rule.parseActions(words)
}

func parsePattern(word string) (string, error) {
	pattern := word
	if n := len(word); n >= 2 && (word[0] == '\'' || word[0] == '"') && word[n-1] == word[0] {
		pattern = word[1 : n-1]
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return "", fmt.Errorf("malformed pattern %s", word)
	}
	if !fs.ValidPath(pattern) || pattern == "." {
		return "", fmt.Errorf("pattern %s is not of a name below /dev", word)
	}
	return pattern, nil
}

func (r *rule) parseActions(words []string) error {
	if len(words) == 0 {
		return errors.New("rule without an action")
	}
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch word {
		case "hide":
			r.hide = true
		case "unhide":
			r.unhide = true
		case "ro", "rw":
			readOnly := word == "ro"
			r.readOnly = &readOnly
		case "mode":
			if len(words) == 0 {
				return errors.New("mode wants an octal number")
			}
			n, err := strconv.ParseUint(words[0], 8, 32)
			if err != nil || n > 0o777 {
				return fmt.Errorf("mode %q is not an octal number up to 777", words[0])
			}
			mode := fs.FileMode(n)
			r.mode = &mode
			words = words[1:]
		default:
			return fmt.Errorf("unknown action %q; there are hide, unhide, mode, ro, rw", word)
		}
	}
	if r.hide && r.unhide {
		return errors.New("a rule cannot hide and unhide")
	}
	return nil
}
