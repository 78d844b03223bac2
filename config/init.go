package config

import (
	"strconv"
	"strings"
)

const (
	maxArgs     = 256      // arguments, and variables
	maxArgBytes = 16 << 10 // of all arguments, and of one variable
)

// program is a path inside the instance with arguments.
var program = codec[[]string]{
	parse: func(s string) ([]string, error) {
		args, err := splitWords(s)
		switch {
		case err != nil:
			return nil, err
		case len(args) == 0:
			return nil, fault("no program")
		case len(args) > maxArgs || len(strings.Join(args, "")) > maxArgBytes:
			return nil, fault("more than %d arguments or %d bytes", maxArgs, maxArgBytes)
		}
		args[0], err = absolute(args[0])
		return args, err
	},
	format: joinWords,
}

func env(c *Config) *[]string { return &c.Env }

// environment is the access to ENV, which holds several variables. They are written as ENV_<n>.
var environment = access{
	set: func(c *Config, _, value string) error {
		vars, err := splitWords(value)
		for i := 0; i < len(vars) && err == nil; i++ {
			err = c.addVariable(vars[i])
		}
		return err
	},
	get:   func(*Config) []assignment { return nil },
	reset: reset(env),
}

// variable is the access to ENV_<n>, which holds one variable, taken as it stands.
var variable = access{
	set: func(c *Config, _, value string) error { return c.addVariable(value) },
	get: func(c *Config) []assignment {
		var all []assignment
		for i, v := range c.Env {
			all = append(all, assignment{strconv.Itoa(i), v})
		}
		return all
	},
	reset: reset(env),
}

func (c *Config) addVariable(v string) error {
	name, _, ok := strings.Cut(v, "=")
	switch {
	case !ok || name == "" || !only(name, "_") || '0' <= name[0] && name[0] <= '9':
		return fault("%s is no NAME=value", shown(v))
	case len(v) > maxArgBytes:
		return fault("%s has more than %d bytes", shown(name), maxArgBytes)
	case len(c.Env) == maxArgs:
		return fault("more than %d variables", maxArgs)
	}
	for _, other := range c.Env {
		if strings.HasPrefix(other, name+"=") {
			return fault("variable %s is set twice", name)
		}
	}
	c.Env = append(c.Env, v)
	return nil
}
