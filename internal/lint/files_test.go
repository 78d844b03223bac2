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
