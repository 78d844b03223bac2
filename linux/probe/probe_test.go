package probe

import (
	"context"
	"errors"
	"os"
	"testing"
)

func TestAllNamesEveryFeature(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range All(t.Context(), t.TempDir()) {
		if r.Name == "" || r.Cost == "" || seen[r.Name] {
			t.Errorf("entry %+v: has to have a name of its own and a cost", r)
		}
		seen[r.Name] = true
		t.Logf("%-28s %v", r.Name, r.Err)
	}
}

// TestWhatRootHas: what every kernel that can run this test as root is known to offer.
func TestWhatRootHas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	want := map[string]bool{"Linux 6.1": true, "clone3 set_tid": true, "pidfd_getfd": true, "kcmp": true}
	for _, r := range All(t.Context(), t.TempDir()) {
		if want[r.Name] && r.Err != nil {
			t.Errorf("%s: %v", r.Name, r.Err)
		}
	}
}

func TestAbandonedProbeSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range All(ctx, t.TempDir()) {
		if !errors.Is(r.Err, context.Canceled) {
			t.Errorf("%s: %v, want that it was not tried", r.Name, r.Err)
		}
	}
}
