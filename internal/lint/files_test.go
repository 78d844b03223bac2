package lint

import (
	"bytes"
	"go/format"
	"regexp"
	"testing"
)

// maxLines is what a file may hold that a person wrote; tests with their tables may be longer.
const maxLines = 500

func TestFilesAreShort(t *testing.T) {
	for _, f := range source(t) {
		if n := bytes.Count(f.content, []byte("\n")); n > maxLines && !f.isTest() && !f.isGenerated() {
			t.Errorf("%s has %d lines, more than %d: where is its seam?", f.name, n, maxLines)
		}
	}
}

// maxPackage is what the files of a package may hold together, without tests and what is generated.
const maxPackage = 2000

// large are the packages that hold more, each with the lines that it may not exceed and the reason. The list shrinks: a package that
// has come below maxPackage is taken off.
var large = map[string]struct {
	most int
	why  string
}{
	"instance":       {2550, "all verbs of a host are methods of Host, over one state machine with one lock"},
	"object/file":    {2500, "the files without a name wait to be a package of their own"},
	"restore":        {2450, "the order in which an instance is put together is one order"},
	"remote":         {2250, "a remote syscall, its batch and its ptrace know each other's registers"},
	"internal/bench": {2200, "contenders of every work share one lab"},
	"cell":           {2250, "the keeper and who speaks with it share one protocol"},
	"object/tcp":     {2250, "a connection and its peer of the same snapshot are put together at once"},
	"config":         {2200, "every variable of a configuration is parsed here"},
}

func TestPackagesAreSmall(t *testing.T) {
	lines := make(map[string]int)
	for _, f := range source(t) {
		if !f.isTest() && !f.isGenerated() {
			lines[f.dir()] += bytes.Count(f.content, []byte("\n"))
		}
	}
	for dir, n := range lines {
		allowed, isLarge := large[dir]
		switch {
		case isLarge && n > allowed.most:
			t.Errorf("package %s has grown to %d lines, more than %d: which noun of it stands by itself?", dir, n, allowed.most)
		case isLarge && n <= maxPackage:
			t.Errorf("package %s has %d lines only: take it off the list of large ones", dir, n)
		case !isLarge && n > maxPackage:
			t.Errorf("package %s has %d lines, more than %d: which noun of it stands by itself?", dir, n, maxPackage)
		}
	}
	for dir := range large {
		if lines[dir] == 0 {
			t.Errorf("package %s, on the list of large ones, is not there", dir)
		}
	}
}

func TestFilesAreFormatted(t *testing.T) {
	for _, f := range source(t) {
		want, err := format.Source(f.content)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
		} else if !bytes.Equal(f.content, want) {
			t.Errorf("%s is not as gofmt writes it", f.name)
		}
	}
}

func TestPackagesHaveDocs(t *testing.T) {
	documented := make(map[string]bool)
	for _, f := range source(t) {
		if !f.isTest() && !f.isGenerated() {
			documented[f.dir()] = documented[f.dir()] || f.syntax.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

func TestNothingIsLeftOpen(t *testing.T) {
	open := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	for _, f := range source(t) {
		if f.isGenerated() {
			continue
		}
		for _, group := range f.syntax.Comments {
			if word := open.FindString(group.Text()); word != "" {
				t.Errorf("%s:%d: a comment says %s: do it, or file it", f.name, f.line(group), word)
			}
		}
	}
}
