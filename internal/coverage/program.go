package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// program is one of the suite.
type program struct{ name, path string }

// find lists the programs in a folder.
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
		if info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.Ext(e.Name()) == "" && filter.MatchString(e.Name()) {
			list = append(list, program{e.Name(), filepath.Join(folder, e.Name())})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no program that is asked for", folder)
	}
	return list, nil
}

// required is an option in a program's help that is not in brackets, as in "  --dirname=string	directory name".
var required = regexp.MustCompile(`(?m)^  --(\w+)=(\w+)`)

// arguments are values for the options that a program's help says it needs.
func (p program) arguments(help string) []string {
	var args []string
	for _, m := range required.FindAllStringSubmatch(help, -1) {
		value := p.name + "." + m[1]
		switch {
		case m[1] == "pidfile":
			value = p.name + ".pid"
		case m[1] == "outfile":
			value = p.name + ".out"
		case m[2] != "string":
			value = "1"
		}
		// One that forks before it reads its options gives the help twice.
		if arg := "--" + m[1] + "=" + value; !slices.Contains(args, arg) {
			args = append(args, arg)
		}
	}
	return args
}
