package remote

import (
	"context"
	"sync/atomic"
)

// Settle waits until the stub is idle, after the process of ours that gave it a batch has died. pidfd is the stub's.
func (p *Page) Settle(ctx context.Context, pidfd int) error {
	if atomic.LoadUint32(p.state()) != stateGo {
		return nil
	}
	return p.Wait(ctx, pidfd)
}
