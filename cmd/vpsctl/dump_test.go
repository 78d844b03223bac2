package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vps/dump"
	"vps/internal/dumptest"
	"vps/internal/testimage"
)

// TestDumpScripts runs testdata/dump: the verbs below dump, on small files.
func TestDumpScripts(t *testing.T) {
	files := dumpSamples(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/dump",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("VPS_HOME", filepath.Join(env.WorkDir, "home"))
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), content, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: commands(),
	})
}

// dumpSamples are the files that the scripts find.
func dumpSamples(t *testing.T) map[string][]byte {
	t.Helper()
	sample := dumptest.Sample(t, dump.Plain)
	broken := bytes.Clone(sample)
	broken[bytes.Index(broken, bytes.Repeat([]byte("m"), dumptest.PageSize))] ^= 1
	newer, err := os.ReadFile("../../dump/testdata/format-1.3.vps")
	dumptest.Must(t, err)
	key := dump.Key{Type: dump.Type_TYPE_MEMORY, ID: 5}
	return map[string][]byte{
		"sample.vps": sample, "broken.vps": broken, "cut.vps": sample[:len(sample)-1], "newer.vps": newer,
		"other.vps": dumptest.SampleWith(t, dump.Plain, func(w *dump.Writer) {
			dumptest.Must(t, w.Put(4, &dump.File{Id: 4, Pos: 20, Kind: &dump.File_Memory{Memory: 5}}))
			dumptest.Must(t, w.Put(8, &dump.Process{Pid: 8, Ppid: 1}))
			dumptest.Must(t, w.Put(8, &dump.Thread{Tid: 8, Pid: 8, Comm: "cat"}))
			dumptest.Must(t, w.WritePages(dumptest.MM(1), []dump.Range{dumptest.Pages(4, 1)}, dumptest.Constant('x')))
		}),
		"sparse.vps": dumptest.Write(t, dump.Zstd, func(w *dump.Writer) {
			dumptest.Must(t, w.Put(5, &dump.Memory{Id: 5, Size: 1 << 40}))
			dumptest.Must(t, w.WritePages(key, []dump.Range{dumptest.Pages(1, 1)}, dumptest.Constant('s')))
		}),
	}
}

// TestRealDumps runs testdata/realdump: snapshots of real instances, converted and restored, or opened by a debugger.
func TestRealDumps(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	opts := []testimage.Option{testimage.Python()}
	for _, name := range []string{"check.py", "threads.py"} {
		program, err := os.ReadFile(filepath.Join("testdata/realdump", name))
		dumptest.Must(t, err)
		opts = append(opts, testimage.File("/"+name, string(program), 0o644))
	}
	runReal(t, "testdata/realdump", testimage.Build(t, opts...))
}
