package snapshot

import (
	"fmt"
	"time"

	"vps/object/memory"
	"vps/pager"
)

// Forecast is what a snapshot would cost.
type Forecast struct {
	Bytes  int64         // of the file, about
	Frozen time.Duration // about
	Copy   string        // how memory would be copied, and why
}

// What takes how long while an instance is frozen, and how much it takes in the file.
const (
	processTime, threadTime = 1500 * time.Microsecond, 150 * time.Microsecond
	processSize, threadSize = 32 << 10, 4 << 10
	bytesPerMillisecond     = 3 << 20
)

// Estimate tells what a snapshot taken now would cost.
func Estimate(src *Source) (Forecast, error) {
	var f Forecast
	procs, _, err := src.look()
	if err != nil {
		return f, err
	}
	defer procs.close()
	frozen, err := src.Group.Frozen()
	if err != nil {
		return f, err
	}
	tracking := canTrack()
	var inRounds, rest uint64
	for _, p := range procs {
		status := p.Status
		as, err := memory.ReadAddressSpace(p)
		if err != nil {
			continue
		}
		bytes, err := pager.Own(as.Space(uint64(p.PID)))
		if err != nil {
			continue
		}
		direct, err := writesDirectly(p)
		if err != nil {
			continue
		}
		if tracking == nil && !frozen && !direct && pager.Worth(bytes, status.Threads) {
			inRounds += bytes
		} else {
			rest += bytes
		}
		f.Bytes += processSize + int64(status.Threads)*threadSize
		f.Frozen += processTime + time.Duration(status.Threads)*threadTime
	}
	f.Bytes += int64(inRounds + rest)
	f.Frozen += time.Duration(min(inRounds, enough)+rest) * time.Millisecond / bytesPerMillisecond
	switch {
	case frozen:
		f.Copy = "while it is frozen, as it is now"
	case tracking != nil:
		f.Copy = fmt.Sprintf("while it is frozen: %v", tracking)
	case inRounds == 0:
		f.Copy = "while it is frozen: no process holds so much that rounds before would save time"
	default:
		f.Copy = fmt.Sprintf("in rounds: %d MiB while it runs; %d MiB, and what has changed, while it is frozen", inRounds>>20, rest>>20)
	}
	return f, nil
}
