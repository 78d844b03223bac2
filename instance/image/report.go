package image

import (
	"time"
)

// Progress tells how far a snapshot or restore is, or what a restore that is forced passes over.
type Progress struct {
	Phase   string `json:"phase"`
	Bytes   int64  `json:"bytes"`
	Total   int64  `json:"total"` // 0 if not known
	Warning string `json:"warning,omitempty"`
}

// Report is what a snapshot cost.
type Report struct {
	Bytes     int64         `json:"bytes"`
	Frozen    time.Duration `json:"frozen_ns"`
	Total     time.Duration `json:"total_ns"`
	Records   int           `json:"records"`
	Processes int           `json:"processes"`
	Threads   int           `json:"threads"`
	Phases    []Phase       `json:"phases,omitempty"` // of the frozen time
	Rounds    []Round       `json:"rounds,omitempty"` // before it
	Stopped   time.Duration `json:"stopped_ns"`       // for which a process stood still, at most, so that rounds could begin
}

// Round is memory that was copied while the instance ran.
type Round struct {
	Bytes uint64        `json:"bytes"`
	Took  time.Duration `json:"took_ns"`
}

// Phase is a part of the time that an operation takes.
type Phase struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// Blocker is what stands in the way of a snapshot.
type Blocker struct {
	PID    int    `json:"pid,omitempty"`
	Comm   string `json:"comm,omitempty"`
	FD     int    `json:"fd"` // -1: not a descriptor
	Object string `json:"object"`
	Text   string `json:"text"`
}

// CheckReport tells whether an instance can be snapshotted now.
type CheckReport struct {
	OK       bool          `json:"ok"`
	Blockers []Blocker     `json:"blockers,omitempty"`
	Bytes    int64         `json:"bytes"`     // estimated size of the file
	Frozen   time.Duration `json:"frozen_ns"` // estimated
	Copy     string        `json:"copy"`      // how memory would be copied, and why
}
