package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func manPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "man", "vps.conf.5"))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// TestManPageHasTheKeys compares the keys with the tags of the form NAME = value.
func TestManPageHasTheKeys(t *testing.T) {
	documented := make(map[string]bool)
	for _, tag := range tags(manPage(t)) {
		if key, _, ok := strings.Cut(tag, " = "); ok {
			documented[key] = true
		}
	}
	for _, k := range Keys() {
		tag := strings.NewReplacer("<", "", ">", "").Replace(k.Name)
		if !documented[tag] {
			t.Errorf("%s is not in vps.conf.5", k.Name)
		}
		delete(documented, tag)
	}
	for tag := range documented {
		t.Errorf("%s of vps.conf.5 is no key", tag)
	}
}

// TestManPageNamesWhatASnapshotDoesNotGive looks at the list of keys that are left at their defaults.
func TestManPageNamesWhatASnapshotDoesNotGive(t *testing.T) {
	_, after, _ := strings.Cut(manPage(t), ".SH SNAPSHOT FILES\n")
	section, _, _ := strings.Cut(after, "\n.SH ")
	words := strings.Fields(section)
	for _, k := range Keys() {
		name := k.Name
		if prefix, _, ok := strings.Cut(name, "<"); ok {
			name = prefix + "*"
		}
		if slices.Contains(words, name) != k.Host {
			t.Errorf("%s: left at its default: %v, which the section SNAPSHOT FILES does not have so", k.Name, k.Host)
		}
	}
}

func TestManPageExamplesAreValid(t *testing.T) {
	examples := strings.Split(manPage(t), "\n.EX\n")[1:]
	if len(examples) == 0 {
		t.Error("no examples")
	}
	for _, example := range examples {
		example, _, _ = strings.Cut(example, "\n.EE")
		text := strings.NewReplacer(`\(aq`, "'", `\-`, "-").Replace(example)
		if err := parse(t, text).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// tags returns the tags of a man(7) page's paragraphs as they are read, without their fonts.
func tags(page string) []string {
	var all []string
	lines := strings.Split(page, "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != ".TP" {
			continue
		}
		macro, rest, _ := strings.Cut(lines[i+1], " ")
		words, err := splitWords(rest)
		if err != nil {
			continue
		}
		separator := ""
		if macro == ".B" || macro == ".I" {
			separator = " "
		}
		all = append(all, strings.Join(words, separator))
	}
	return all
}
