package dumpverb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/debug/core"
	"vps/dump"
	"vps/dump/show"
)

func (a verbs) dumpExtractCmd() *cobra.Command {
	var out string
	cmd := a.JSONFlag(&cobra.Command{
		Use:   "extract FILE PID|TYPE:ID",
		Short: "Take one thing out of a snapshot file",
		Long: "extract writes the core file of a process, core(5), for a debugger. What the process has not changed of the files\n" +
			"that it maps is not in a snapshot: gdb finds it in the instance's files, with set sysroot. With TYPE:ID, as showdump\n" +
			"has them, it writes a record: as JSON with --json, else its protobuf message, or the content of a MEMORY.",
		Example: "  vpsctl dump extract web.vps 214 -o core\n  gdb -ex 'set sysroot /srv/vps/web' /srv/vps/web/usr/sbin/nginx core\n" +
			"  vpsctl dump extract --json web.vps process:214",
		Args: cobra.ExactArgs(2),
		PreRunE: func(_ *cobra.Command, args []string) error {
			_, _, err := parseItem(args[1])
			return err
		},
		ValidArgsFunction: a.completeItem,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cli.Context(cmd)
			return failDump(ctx, "extract", args[0], a.extract(ctx, args[0], args[1], out))
		},
	})
	cmd.Flags().StringVarP(&out, "output", "o", "-", "write to `FILE` instead of the standard output")
	return cmd
}

// parseItem reads what is to be extracted: a process if pid is not 0, else a record.
func parseItem(text string) (pid uint32, key dump.Key, err error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil && n > 0 {
		return uint32(n), key, nil
	}
	if key, err = dump.ParseKey(text); err != nil {
		return 0, key, fmt.Errorf("%q is neither a PID nor the TYPE:ID of a record", text)
	}
	return 0, key, nil
}

func (a verbs) extract(ctx context.Context, path, item, out string) (err error) {
	pid, key, err := parseItem(item)
	if err != nil {
		return err
	}
	s, err := openSnapshot(path, a.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if pid != 0 && a.JSON {
		key, pid = dump.Key{Type: dump.Type_TYPE_PROCESS, ID: uint64(pid)}, 0
	}
	if a.JSON && out == "-" {
		return extractJSON(a.Stdout, s.Snapshot, key)
	}
	file, err := a.Output(out, "what is extracted")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Discard()) }()
	switch {
	case pid != 0:
		err = core.Write(ctx, file, s.Snapshot, pid)
	case a.JSON:
		err = extractJSON(file, s.Snapshot, key)
	case key.Type == dump.Type_TYPE_MEMORY:
		err = extractMemory(ctx, file.File, s.Snapshot, key)
	default:
		err = extractRecord(file, s.Snapshot, key)
	}
	if err != nil {
		return err
	}
	return file.Commit()
}

func extractRecord(w io.Writer, s *dump.Snapshot, key dump.Key) error {
	rec, err := s.Record(key)
	if err != nil {
		return err
	}
	_, err = w.Write(rec.Payload())
	return err
}

func extractJSON(w io.Writer, s *dump.Snapshot, key dump.Key) error {
	rec, err := s.Record(key)
	if err != nil {
		return err
	}
	m, err := rec.Message()
	if err != nil {
		return err
	}
	message, err := show.Message(m)
	if err != nil {
		return err
	}
	return cli.DocumentTo(w, "record", struct {
		Type    string          `json:"type"`
		ID      uint64          `json:"id,string"`
		Message json.RawMessage `json:"message"`
	}{dump.TypeName(key.Type), key.ID, message})
}

// extractMemory writes the content of a Memory record: a file in memory. What was never written is a hole, if w is a file.
func extractMemory(ctx context.Context, w *os.File, s *dump.Snapshot, key dump.Key) error {
	m, err := dump.Get[*dump.Memory](s, key.ID)
	if err != nil {
		return err
	}
	if m.GetSize() > math.MaxInt64 {
		return fmt.Errorf("record %s: a size of %d bytes is not possible", key, m.GetSize())
	}
	info, err := w.Stat()
	if err != nil {
		return err
	}
	c := content{ctx: ctx, w: w, sparse: info.Mode().IsRegular() && info.Size() == 0, buf: make([]byte, 256<<10)}
	for _, e := range s.Extents(key) {
		end := min(e.End, m.GetSize())
		if e.Frame == dump.Zero || e.Start >= end {
			continue
		}
		if err := c.zeros(e.Start); err != nil {
			return err
		}
		for c.at < end {
			pages := c.buf[:min(uint64(len(c.buf)), e.End-c.at)]
			if err := s.ReadPages(key, c.at, pages); err != nil {
				return err
			}
			if err := c.write(pages[:min(uint64(len(pages)), end-c.at)]); err != nil {
				return err
			}
		}
	}
	if c.sparse {
		return w.Truncate(int64(m.GetSize()))
	}
	return c.zeros(m.GetSize())
}

// content is a file that is being written from its begin.
type content struct {
	ctx    context.Context
	w      *os.File
	sparse bool // holes can be left
	at     uint64
	buf    []byte
}

func (c *content) write(b []byte) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	n, err := c.w.Write(b)
	c.at += uint64(n)
	return err
}

// zeros goes on to an offset.
func (c *content) zeros(to uint64) error {
	if c.sparse {
		c.at = to
		_, err := c.w.Seek(int64(to), io.SeekStart)
		return err
	}
	for c.at < to {
		part := c.buf[:min(uint64(len(c.buf)), to-c.at)]
		clear(part)
		if err := c.write(part); err != nil {
			return err
		}
	}
	return nil
}

// completeItem offers the processes and records of the snapshot that was named.
func (a verbs) completeItem(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 || args[0] == "-" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	s, err := dump.OpenFile(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer s.Close()
	var items []string
	for _, k := range s.Keys() {
		if k.Type == dump.Type_TYPE_PROCESS {
			items = append(items, strconv.FormatUint(k.ID, 10))
		}
		items = append(items, fmt.Sprintf("%s:%d", dump.TypeName(k.Type), k.ID))
	}
	return items, cobra.ShellCompDirectiveNoFileComp
}
