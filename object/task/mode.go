package task

import (
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// speculation lists what PR_SET_SPECULATION_CTRL controls (prctl(2)), with what a thread sets that is not so by itself.
var speculation = []struct{ which, set int64 }{
	{unix.PR_SPEC_STORE_BYPASS, unix.PR_SPEC_DISABLE | unix.PR_SPEC_FORCE_DISABLE | unix.PR_SPEC_DISABLE_NOEXEC},
	{unix.PR_SPEC_INDIRECT_BRANCH, unix.PR_SPEC_DISABLE | unix.PR_SPEC_FORCE_DISABLE},
	{unix.PR_SPEC_L1D_FLUSH, unix.PR_SPEC_ENABLE},
}

// askModes asks a thread for how the processor treats it.
func askModes(b *remote.Batch) func(t *dump.Thread) {
	tscAt, tsc := object.Space[int32](b)
	b.Try("get use of the time stamp counter", unix.SYS_PRCTL, unix.PR_GET_TSC, tscAt, 0, 0, 0)
	mce := b.Try("get machine check policy", unix.SYS_PRCTL, unix.PR_MCE_KILL_GET, 0, 0, 0, 0)
	var controls []remote.Result
	for _, s := range speculation {
		controls = append(controls, b.Try("get speculation", unix.SYS_PRCTL, unix.PR_GET_SPECULATION_CTRL, s.which, 0, 0, 0))
	}
	return func(t *dump.Thread) {
		t.TscDisable = tsc() == unix.PR_TSC_SIGSEGV
		if v, err := b.Value(mce); err == nil {
			t.MceKill = uint32(unix.PR_MCE_KILL_DEFAULT - v)
		}
		for i, s := range speculation {
			if v, err := b.Value(controls[i]); err == nil && v&unix.PR_SPEC_PRCTL != 0 && v&s.set != 0 {
				t.Speculation = append(t.Speculation, uint32(s.which), uint32(v&s.set))
			}
		}
	}
}

// restoreModes sets what [AskThread] has found of that. Another processor need not know how to.
func restoreModes(b *remote.Batch, t *dump.Thread) {
	if t.GetTscDisable() {
		b.Call("forbid the time stamp counter", unix.SYS_PRCTL, unix.PR_SET_TSC, unix.PR_TSC_SIGSEGV, 0, 0, 0)
	}
	if kill := t.GetMceKill(); kill == 1 || kill == 2 {
		b.Try("set machine check policy", unix.SYS_PRCTL, unix.PR_MCE_KILL, unix.PR_MCE_KILL_SET, unix.PR_MCE_KILL_DEFAULT-kill, 0, 0)
	}
	for list := t.GetSpeculation(); len(list) >= 2; list = list[2:] {
		b.Try("set speculation", unix.SYS_PRCTL, unix.PR_SET_SPECULATION_CTRL, list[0], list[1], 0, 0)
	}
}
