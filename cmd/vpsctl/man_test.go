package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vps/cmd/vpsctl/cli"
)

// TestManPage holds vpsctl(8) against the commands: each has its paragraph, in which its options are, and no others.
func TestManPage(t *testing.T) {
	commands := leaves((&app{IO: cli.IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}}).root(), "")
	paragraphs := manParagraphs(t, commands)
	option := regexp.MustCompile(`--[a-z]+(-[a-z]+)*`)
	for path, cmd := range commands {
		text, ok := paragraphs[path]
		if !ok {
			t.Errorf("%s is not in vpsctl.8", path)
			continue
		}
		documented := option.FindAllString(text, -1)
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			short := f.Shorthand != "" && strings.Contains(text, "-"+f.Shorthand+" ") // as exec has it
			if f.Name != "help" && f.Name != "home" && !f.Hidden && !short && !slices.Contains(documented, "--"+f.Name) {
				t.Errorf("%s: --%s is not in vpsctl.8", path, f.Name)
			}
		})
		for _, name := range documented {
			if cmd.Flags().Lookup(name[2:]) == nil {
				t.Errorf("%s has no %s, as vpsctl.8 says", path, name)
			}
		}
	}
}

// leaves are the commands below cmd that do something, by what is typed.
func leaves(cmd *cobra.Command, path string) map[string]*cobra.Command {
	found := make(map[string]*cobra.Command)
	for _, sub := range cmd.Commands() {
		if sub.Hidden || sub.Name() == "help" {
			continue
		}
		name := strings.TrimSpace(path + " " + sub.Name())
		if !sub.HasSubCommands() {
			found[name] = sub
		}
		for n, c := range leaves(sub, name) {
			found[n] = c
		}
	}
	return found
}

// manParagraphs are those of vpsctl(8) that begin with a command, without fonts, by the command.
func manParagraphs(t *testing.T, commands map[string]*cobra.Command) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../man/vpsctl.8")
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\-`, "-", `\fI`, "", `\fP`, "", `"`, "")
	macro := regexp.MustCompile(`^\.(B|I|BR|BI|RI|IR|RB)? `)
	paragraphs := make(map[string]string)
	current := ""
	lines := strings.Split(string(page), "\n")
	for i, line := range lines {
		text := macro.ReplaceAllString(plain.Replace(line), "")
		if strings.HasPrefix(line, ".SH") || strings.HasPrefix(line, ".SS") || strings.HasPrefix(line, ".PP") {
			current = ""
		}
		if i > 0 && lines[i-1] == ".TP" {
			words := strings.Fields(text)
			for n := min(2, len(words)); n > 0; n-- { // "dump diff" before "dump"
				if path := strings.Join(words[:n], " "); commands[path] != nil {
					current = path
					break
				}
			}
		}
		if current != "" {
			paragraphs[current] += text + "\n"
		}
	}
	return paragraphs
}
