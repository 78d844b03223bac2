package ifvps

import (
	"testing"
	"time"

	"vps/internal/nettest"
)

// TestHold: a peer whose packets were kept has lost nothing.
func TestHold(t *testing.T) {
	w := newWorld(t)
	a := w.guest(t, spec("a", "192.0.2.10", "2001:db8::10"))
	b := w.guest(t, spec("b", "192.0.2.11", "2001:db8::11"))
	for _, to := range []string{"192.0.2.10", "2001:db8::10"} {
		for name, from := range map[string]*nettest.Place{"outside": w.outside, "instance": b.Place} {
			t.Run(name+" "+to, func(t *testing.T) {
				c, err := from.Dial(to, 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				before := from.Losses() + a.Losses()
				nettest.Exchange(t, c, func() {
					for range 5 {
						time.Sleep(20 * time.Millisecond)
						if err := a.Hold(); err != nil {
							t.Error(err)
						}
						if err := a.Silence(); err != nil {
							t.Error(err)
						}
						counters := a.Counters()[0]
						time.Sleep(50 * time.Millisecond)
						if now := a.Counters()[0]; now.In != counters.In {
							t.Errorf("packets have come through a closed gate: %+v, then %+v", counters.In, now.In)
						}
						if err := a.Release(); err != nil {
							t.Error(err)
						}
					}
				})
				if n := from.Losses() + a.Losses() - before; n > 0 {
					t.Errorf("%d segments were sent again", n)
				}
			})
		}
	}
	if c := a.Counters()[0]; c.Lost != 0 {
		t.Errorf("%d packets were lost", c.Lost)
	}
}
