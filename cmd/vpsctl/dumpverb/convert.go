package dumpverb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"vps/cmd/vpsctl/cli"
	"vps/config"
	"vps/dump"
	"vps/dump/convert"
)

func (a verbs) dumpConvertCmd() *cobra.Command {
	var compress string
	var dropPages bool
	var change identity
	var readdress []string
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Write a snapshot file anew",
		Long: "convert checks every byte of the snapshot IN and writes a copy to OUT; - is standard input or output. What was\n" +
			"replaced or withdrawn while the snapshot was taken is not in the copy. A copy without pages is one to be looked at:\n" +
			"restore refuses it. --env and --set change the copy of the configuration in the snapshot, which is used when the\n" +
			"host that restores it has none of that name; programs that run in the snapshot keep the environment they have.",
		Example: "  vpsctl dump convert --compress zstd web.vps small.vps\n" +
			"  vpsctl dump convert --name web2 --hostname web2.example web.vps web2.vps\n" +
			"  vpsctl dump convert --drop-pages web.vps report.vps",
		Args: cobra.ExactArgs(2),
		PreRunE: func(*cobra.Command, []string) error {
			if compress != "" && !slices.Contains(compressions, compress) {
				return fmt.Errorf("--compress is none or zstd, not %q", compress)
			}
			var err error
			if change.addresses, err = cli.Addresses(readdress); err != nil {
				return err
			}
			return change.check()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cli.Context(cmd)
			o := convert.Options{WithoutPages: dropPages, Edit: change.edit}
			return failDump(ctx, "convert", args[0], a.convert(ctx, args[0], args[1], compress, o))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&compress, "compress", "", "store pages by `CODEC`, none or zstd (default: as they are)")
	flags.BoolVar(&dropPages, "drop-pages", false, "leave out memory and the content of files in it")
	flags.StringVar(&change.name, "name", "", "give the instance another `NAME`")
	flags.StringVar(&change.hostname, "hostname", "", "give it another host `NAME`")
	flags.StringArrayVar(&change.env, "env", nil, "set a variable `NAME=VALUE` of its configuration's environment; NAME= takes it away")
	flags.StringArrayVar(&readdress, "readdress", nil, "give it another network address, `OLD=NEW`; once for each")
	flags.StringArrayVar(&change.set, "set", nil, "set a key of its configuration, `KEY=VALUE`; KEY= takes it away")
	cmd.RegisterFlagCompletionFunc("compress", cobra.FixedCompletions(compressions, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// compressions are the values of --compress.
var compressions = []string{dump.Plain.String(), dump.Zstd.String()}

func (a verbs) convert(ctx context.Context, in, out, compress string, o convert.Options) (err error) {
	s, err := openSnapshot(in, a.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	o.Codec = usualCodec(s.Snapshot)
	if compress != "" {
		o.Codec = dump.Plain
		if compress == dump.Zstd.String() {
			o.Codec = dump.Zstd
		}
	}
	file, err := a.Output(out, "a snapshot")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Discard()) }()
	p := a.Progress("convert", in)
	defer p.End()
	o.Progress = p.Bytes("pages")
	if err := convert.Snapshot(ctx, file, s.Snapshot, o); err != nil {
		return err
	}
	return file.Commit()
}

// usualCodec is zstd if any pages are compressed.
func usualCodec(s *dump.Snapshot) dump.Codec {
	if slices.ContainsFunc(s.Frames(), func(f *dump.Frame) bool { return f.Codec == dump.Zstd }) {
		return dump.Zstd
	}
	return dump.Plain
}

// identity is what a copy is to be called, and to find, other than its source. What is empty stays as it is.
type identity struct {
	name, hostname string
	env            []string // NAME=VALUE
	set            []string // KEY=VALUE, keys of the configuration
	addresses      convert.Addresses
}

// check tells what is wrong with it whatever it is applied to.
func (i *identity) check() error { return i.editInstance(new(dump.Instance)) }

// edit changes the records that say it.
func (i *identity) edit(m proto.Message) error {
	switch m := m.(type) {
	case *dump.Header:
		if i.name != "" {
			m.Instance = i.name
		}
	case *dump.Instance:
		return i.editInstance(m)
	}
	return i.addresses.Edit(m)
}

func (i *identity) editInstance(m *dump.Instance) error {
	changes := i.settings()
	if len(changes) == 0 && len(i.env) == 0 && len(i.addresses) == 0 {
		return nil
	}
	c, err := config.Parse("the snapshot's configuration", strings.NewReader(m.GetConfig()))
	if err != nil {
		return cli.ConfigError(err)
	}
	for _, v := range i.env {
		if c, err = withVariable(c, v); err != nil {
			return fmt.Errorf("--env %s: %w", v, err)
		}
	}
	for _, kv := range changes {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("--set %s: it is KEY=VALUE", kv)
		}
		if c, err = c.With(key, value); err != nil {
			return cli.ConfigError(err)
		}
	}
	c = c.Readdress(i.addresses)
	if i.name != "" {
		m.Name = i.name
	}
	if i.hostname != "" {
		m.Hostname = i.hostname
	}
	if m.GetConfig() != "" || len(i.env)+len(i.set) > 0 {
		m.Config = c.Text()
	}
	return nil
}

// settings are the keys of the configuration that change with all this.
func (i *identity) settings() []string {
	changes := slices.Clone(i.set)
	if i.name != "" {
		changes = append(changes, "NAME="+i.name)
	}
	if i.hostname != "" {
		changes = append(changes, "HOSTNAME="+i.hostname)
	}
	return changes
}

// withVariable returns a copy of c with a variable, NAME=VALUE, in place of one of that name.
func withVariable(c *config.Config, variable string) (*config.Config, error) {
	name, value, ok := strings.Cut(variable, "=")
	if !ok {
		return nil, errors.New("it is NAME=VALUE")
	}
	changed := *c
	changed.Env = slices.DeleteFunc(slices.Clone(c.Env), func(v string) bool { return strings.HasPrefix(v, name+"=") })
	if value == "" {
		return &changed, nil
	}
	return changed.With(fmt.Sprintf("ENV_%d", len(changed.Env)), variable)
}
