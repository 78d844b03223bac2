package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in a slot; the stub's code knows them too.
const (
	offState = 0  // u32: stateIdle, stateGo, stateDone
	offCount = 4  // u32: entries of the batch
	offMode  = 8  // u32: Mode
	offSpin  = 12 // u32: how often to look before sleeping; Heal: before giving the tracer up
	offLeft  = 16 // u32: entries not run, when done: not 0 means that the first of them failed
	offFrame = 24 // u64: Heal: the frame for rt_sigreturn

	headerSize = 64
	entrySize  = 64

	entryCall   = 0  // u32
	entryStore  = 4  // u32: offset in the slot that gets the result too; bit 31: go on after an error
	entryArgs   = 8  // 6 × u64
	entryResult = 56 // u64

	ignoreErrors = 1 << 31
)

const (
	stateIdle = iota
	stateGo
	stateDone
)

// Mode is what a stub does at the end of a batch.
type Mode uint32

const (
	Park   Mode = iota // wait for the next batch
	Loop               // begin again; after an error, wait
	Mortal             // wait; after an error, exit with status 127
	heal               // wait a moment, then go back to what was interrupted
)

// ErrGone says that the process ended in the middle of a batch.
var ErrGone = errors.New("the process has ended")

// Page is a slot as seen from our side.
type Page struct {
	mem     []byte
	address uint64
}

// Address is the slot's address in its stub.
func (p *Page) Address() uint64 { return p.address }

func (p *Page) state() *uint32 { return (*uint32)(unsafe.Pointer(&p.mem[offState])) }

// Start lets the stub run the batch, or, if the stub is not born yet, have it run at once.
func (p *Page) Start() {
	atomic.StoreUint32(p.state(), stateGo)
	futexWake(p.state())
}

// Done tells whether the batch has ended.
func (p *Page) Done() bool { return atomic.LoadUint32(p.state()) == stateDone }

// Wait waits for the end of the batch that was started. pidfd is the stub's process, so that its death is noticed;
// -1 if there is none yet.
func (p *Page) Wait(ctx context.Context, pidfd int) error {
	for range 2000 {
		if p.Done() {
			return nil
		}
		spinPause()
	}
	for !p.Done() {
		if err := ctx.Err(); err != nil {
			return err
		}
		futexWait(p.state(), stateGo, 20*time.Millisecond)
		if pidfd >= 0 && exited(pidfd) && !p.Done() {
			return ErrGone
		}
	}
	return nil
}

// Run starts the batch, waits for its end and returns the error of the call that failed, if one did.
func (b *Batch) Run(ctx context.Context, pidfd int) error {
	if b.err != nil {
		return b.err
	}
	b.seal()
	b.page.Start()
	return b.Wait(ctx, pidfd)
}

// Start seals the batch and lets the stub run it.
func (b *Batch) Start() error {
	if b.err != nil {
		return b.err
	}
	b.seal()
	b.page.Start()
	return nil
}

// Wait waits for the end of a batch that was started.
func (b *Batch) Wait(ctx context.Context, pidfd int) error {
	if err := b.page.Wait(ctx, pidfd); err != nil {
		if at := b.failed(); at != nil {
			return at
		}
		return fmt.Errorf("%s: %w", b.running(), err)
	}
	return b.Err()
}

func (b *Batch) seal() {
	binary.LittleEndian.PutUint32(b.page.mem[offCount:], uint32(len(b.what)))
	binary.LittleEndian.PutUint32(b.page.mem[offMode:], uint32(b.Mode))
	binary.LittleEndian.PutUint32(b.page.mem[offSpin:], b.Spin)
	binary.LittleEndian.PutUint32(b.page.mem[offLeft:], 0)
}

func (p *Page) setFrame(at uint64) { binary.LittleEndian.PutUint64(p.mem[offFrame:], at) }

func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func futexWake(word *uint32) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 1, 1<<30, 0, 0, 0)
}

func futexWait(word *uint32, seen uint32, limit time.Duration) {
	ts := unix.NsecToTimespec(int64(limit))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 0, uintptr(seen), uintptr(unsafe.Pointer(&ts)), 0, 0)
}
