package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"vps/account"
	"vps/api"
	"vps/instance"
	"vps/instance/home"
	"vps/internal/testimage"
)

// realHome is the base name of homes whose daemon is the real one.
const realHome = "real"

// TestRealSystem runs testdata/real: vpsctl and vpsd with instances that run busybox.
func TestRealSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runReal(t, "testdata/real", testimage.Build(t))
}

// runReal runs the scripts in dir with real daemons, and instances whose root is below root.
func runReal(t *testing.T, dir, root string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, realHome)
			env.Setenv("VPS_HOME", home)
			env.Setenv("ROOT", root)
			env.Setenv("TZ", "UTC")
			env.Defer(func() {
				removeInstances(t, home)
				stopDaemons(t, env.WorkDir)
				removeCgroups(t, home)
			})
			return os.MkdirAll(filepath.Join(home, "etc"), 0o755)
		},
		Cmds: commands(),
	})
}

// removeInstances ends what a script left running.
func removeInstances(t *testing.T, dir string) {
	at, err := home.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := api.Dial(at, version)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	list, err := c.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, i := range list {
		if i.State == instance.Suspended {
			err = c.Abort(ctx, i.ID)
		} else if i.State != instance.Dead {
			err = c.Stop(ctx, i.ID, time.Second)
		}
		if err == nil {
			err = c.Remove(ctx, i.ID)
		}
		if err != nil {
			t.Errorf("end %s: %v", i.ID, err)
		}
	}
}

func removeCgroups(t *testing.T, home string) {
	tree, err := account.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	sum := sha256.Sum256([]byte(filepath.Join(home, "state")))
	if err := tree.RemoveHome(ctx, hex.EncodeToString(sum[:4])); err != nil {
		t.Error(err)
	}
}
