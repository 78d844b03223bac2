package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// program is one of the suite.
type program struct {
	name, path string
	args       []string
}

// required is an option in a program's help that is not in brackets, as in "  --dirname=string	directory name".
var required = regexp.MustCompile(`(?m)^  --(\w+)=(\w+)`)

// find lists the programs in a folder: what can be run and says which options it needs.
func find(folder string, filter *regexp.Regexp) ([]program, error) {
	if folder == "" {
		return nil, errors.New("no folder with ZDTM's programs is given (-zdtm, or ZDTM in the environment)")
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var list []program
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || filepath.Ext(e.Name()) != "" || !filter.MatchString(e.Name()) {
			continue
		}
		p := program{name: e.Name(), path: filepath.Join(folder, e.Name())}
		help, _ := exec.Command(p.path, "--help").CombinedOutput() // its exit status is no help
		if !strings.Contains(string(help), "--pidfile") {
			continue
		}
		for _, m := range required.FindAllStringSubmatch(string(help), -1) {
			p.args = append(p.args, fmt.Sprintf("--%s=%s", m[1], p.value(m[1], m[2])))
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no program of ZDTM that is asked for", folder)
	}
	return list, nil
}

// value is what an option is given.
func (p program) value(option, kind string) string {
	switch option {
	case "pidfile":
		return p.name + ".pid"
	case "outfile":
		return p.name + ".out"
	}
	if kind != "string" {
		return "1"
	}
	return p.name + "." + option
}
