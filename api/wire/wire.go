// Package wire converts what instances are said to be to and from the messages of the service. Encoding makes a message; decoding
// reads one, whose fields may all be missing.
package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"vps/api/vpsv1"
	"vps/config"
	"vps/dump/convert"
	"vps/ifvps/plane"
	"vps/instance"
)

// Each converts a list.
func Each[A, B any](list []A, one func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = one(a)
	}
	return out
}

// nanos is a time on the wire.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// text makes valid UTF-8 of what comes out of an instance.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// EncodeExit writes how an instance's init ended; nil: it has not.
func EncodeExit(e *instance.ExitStatus) *vpsv1.ExitStatus {
	if e == nil {
		return nil
	}
	return &vpsv1.ExitStatus{Code: int32(e.Code), Signal: e.Signal, Reason: e.Reason, Time: nanos(e.Time)}
}

// DecodeExit reads how an instance's init ended; nil: it has not.
func DecodeExit(e *vpsv1.ExitStatus) *instance.ExitStatus {
	if e == nil {
		return nil
	}
	return &instance.ExitStatus{Code: int(e.Code), Signal: e.Signal, Reason: e.Reason, Time: fromNanos(e.Time)}
}

// EncodeInfo writes what an instance is.
func EncodeInfo(i instance.Info) *vpsv1.Instance {
	return &vpsv1.Instance{
		Id:          i.ID,
		State:       string(i.State),
		Operation:   i.Operation,
		Fsroot:      text(i.FSRoot),
		Hostname:    text(i.Hostname),
		Init:        text(i.Init),
		Pid:         int32(i.PID),
		FirstUid:    int64(i.FirstUID),
		Created:     nanos(i.Created),
		Started:     nanos(i.Started),
		Processes:   int32(i.Processes),
		Threads:     int32(i.Threads),
		CpuNs:       i.CPUNanos,
		MemoryBytes: i.MemoryBytes,
		Runs:        int32(i.Runs),
		Restores:    int32(i.Restores),
		Restarts:    int32(i.Restarts),
		ExitStatus:  EncodeExit(i.ExitStatus),
		Saved:       []byte(i.Saved),

		MissingBytes: i.Missing,
		Lost:         text(i.Lost),
		Interfaces:   Each(i.Interfaces, encodeInterface),
		Parked:       i.Parked,
	}
}

// DecodeInfo reads what an instance is.
func DecodeInfo(i *vpsv1.Instance) instance.Info {
	info := instance.Info{
		ID:          i.GetId(),
		State:       instance.State(i.GetState()),
		Operation:   i.GetOperation(),
		FSRoot:      i.GetFsroot(),
		Hostname:    i.GetHostname(),
		Init:        i.GetInit(),
		PID:         int(i.GetPid()),
		FirstUID:    int(i.GetFirstUid()),
		Created:     fromNanos(i.GetCreated()),
		Started:     fromNanos(i.GetStarted()),
		Processes:   int(i.GetProcesses()),
		Threads:     int(i.GetThreads()),
		CPUNanos:    i.GetCpuNs(),
		MemoryBytes: i.GetMemoryBytes(),
		Runs:        int(i.GetRuns()),
		Restores:    int(i.GetRestores()),
		Restarts:    int(i.GetRestarts()),
		ExitStatus:  DecodeExit(i.GetExitStatus()),
		Saved:       string(i.GetSaved()),
		Missing:     i.GetMissingBytes(),
		Lost:        i.GetLost(),
		Parked:      i.GetParked(),
	}
	for _, n := range i.GetInterfaces() {
		info.Interfaces = append(info.Interfaces, decodeInterface(n))
	}
	return info
}

// encodeInterface writes an interface with its counters.
func encodeInterface(i instance.Interface) *vpsv1.Interface {
	return &vpsv1.Interface{
		Name: i.Name, Link: i.Link, Addresses: Each(i.Addresses, netip.Addr.String), In: encodeTraffic(i.In), Out: encodeTraffic(i.Out),
		Spoofed: i.Spoofed, Foreign: i.Foreign, Flooded: i.Flooded, Lost: i.Lost,
	}
}

// decodeInterface reads an interface with its counters.
func decodeInterface(i *vpsv1.Interface) instance.Interface {
	return instance.Interface{
		Name: i.GetName(), Link: i.GetLink(),
		Addresses: Each(i.GetAddresses(), func(s string) netip.Addr { a, _ := netip.ParseAddr(s); return a }),
		Counters: plane.Counters{
			In: decodeTraffic(i.GetIn()), Out: decodeTraffic(i.GetOut()),
			Spoofed: i.GetSpoofed(), Foreign: i.GetForeign(), Flooded: i.GetFlooded(), Lost: i.GetLost(),
		},
	}
}

// encodeTraffic writes a direction of one.
func encodeTraffic(t instance.Traffic) *vpsv1.Traffic {
	return &vpsv1.Traffic{Packets: t.Packets, Bytes: t.Bytes, Limited: t.Limited}
}

// decodeTraffic reads a direction of one.
func decodeTraffic(t *vpsv1.Traffic) instance.Traffic {
	return instance.Traffic{Packets: t.GetPackets(), Bytes: t.GetBytes(), Limited: t.GetLimited()}
}

// EncodeArgs writes what an instance may do.
func EncodeArgs(a instance.Arguments) *vpsv1.Arguments {
	return &vpsv1.Arguments{
		Networks: a.Networks, Allow: a.Allow, Deny: a.Deny, Nosys: a.Nosys,
		Resources: Each(a.Resources, func(r instance.Resource) *vpsv1.Resource {
			return &vpsv1.Resource{
				Name: r.Name, Flag: r.Flag, Current: r.Current, Soft: r.Soft, Hard: r.Hard,
				SoftHits: r.SoftHits, HardHits: r.HardHits,
			}
		}),
	}
}

// DecodeArgs reads what an instance may do.
func DecodeArgs(a *vpsv1.Arguments) instance.Arguments {
	return instance.Arguments{
		Networks: a.Networks, Allow: a.Allow, Deny: a.Deny, Nosys: a.Nosys,
		Resources: Each(a.Resources, func(r *vpsv1.Resource) instance.Resource {
			return instance.Resource{
				Name: r.Name, Flag: r.Flag, Current: r.Current, Soft: r.Soft, Hard: r.Hard,
				SoftHits: r.SoftHits, HardHits: r.HardHits,
			}
		}),
	}
}

// EncodeProcess writes a process of an instance.
func EncodeProcess(p instance.ProcessInfo) *vpsv1.Process {
	return &vpsv1.Process{
		Pid: int32(p.PID), Ppid: int32(p.PPID), HostPid: int32(p.HostPID), Uid: int64(p.UID), User: text(p.User),
		State: p.State, Threads: int32(p.Threads), CpuNs: p.CPUNanos, RssBytes: p.RSSBytes, Command: text(p.Command),
	}
}

// DecodeProcess reads a process of an instance.
func DecodeProcess(p *vpsv1.Process) instance.ProcessInfo {
	return instance.ProcessInfo{
		PID: int(p.Pid), PPID: int(p.Ppid), HostPID: int(p.HostPid), UID: int(p.Uid), User: p.User,
		State: p.State, Threads: int(p.Threads), CPUNanos: p.CpuNs, RSSBytes: p.RssBytes, Command: p.Command,
	}
}

// EncodeCheck writes whether a snapshot can be taken.
func EncodeCheck(r instance.CheckReport) *vpsv1.CheckReport {
	return &vpsv1.CheckReport{
		Ok: r.OK, Bytes: r.Bytes, FrozenNs: r.Frozen.Nanoseconds(), Copy: r.Copy,
		Blockers: Each(r.Blockers, func(b instance.Blocker) *vpsv1.Blocker {
			return &vpsv1.Blocker{Pid: int32(b.PID), Comm: text(b.Comm), Fd: int32(b.FD), Object: text(b.Object), Text: text(b.Text)}
		}),
	}
}

// DecodeCheck reads whether a snapshot can be taken.
func DecodeCheck(r *vpsv1.CheckReport) instance.CheckReport {
	return instance.CheckReport{
		OK: r.GetOk(), Bytes: r.GetBytes(), Frozen: time.Duration(r.GetFrozenNs()), Copy: r.GetCopy(),
		Blockers: Each(r.GetBlockers(), func(b *vpsv1.Blocker) instance.Blocker {
			return instance.Blocker{PID: int(b.Pid), Comm: b.Comm, FD: int(b.Fd), Object: b.Object, Text: b.Text}
		}),
	}
}

// EncodeEvent writes a change of an instance.
func EncodeEvent(e instance.Event) *vpsv1.Event {
	return &vpsv1.Event{Time: nanos(e.Time), Id: e.ID, State: string(e.State), What: e.What, ExitStatus: EncodeExit(e.ExitStatus)}
}

// DecodeEvent reads a change of an instance.
func DecodeEvent(e *vpsv1.Event) instance.Event {
	return instance.Event{
		Time: fromNanos(e.Time), ID: e.Id, State: instance.State(e.State), What: e.What,
		ExitStatus: DecodeExit(e.ExitStatus),
	}
}

// EncodeProgress writes how far a snapshot or restore is.
func EncodeProgress(p instance.Progress) *vpsv1.Progress {
	return &vpsv1.Progress{Phase: p.Phase, Bytes: p.Bytes, Total: p.Total, Warning: text(p.Warning)}
}

// DecodeProgress reads how far a snapshot or restore is.
func DecodeProgress(p *vpsv1.Progress) instance.Progress {
	return instance.Progress{Phase: p.GetPhase(), Bytes: p.GetBytes(), Total: p.GetTotal(), Warning: p.GetWarning()}
}

// EncodeExec writes a command that is to be run.
func EncodeExec(id string, s instance.ExecSpec) *vpsv1.ExecStart {
	bytes := func(s string) []byte { return []byte(s) }
	return &vpsv1.ExecStart{
		Id: id, Args: Each(s.Args, bytes), Env: Each(s.Env, bytes), Dir: []byte(s.Dir), User: s.User,
		Tty: s.TTY, Window: EncodeWindow(s.Rows, s.Cols), Stdin: s.Stdin, Detach: s.Detach,
	}
}

// DecodeExec reads a command that is to be run.
func DecodeExec(s *vpsv1.ExecStart) instance.ExecSpec {
	str := func(b []byte) string { return string(b) }
	rows, cols := DecodeWindow(s.GetWindow())
	return instance.ExecSpec{
		Args: Each(s.GetArgs(), str), Env: Each(s.GetEnv(), str), Dir: string(s.GetDir()), User: s.GetUser(),
		TTY: s.GetTty(), Rows: rows, Cols: cols, Stdin: s.GetStdin(), Detach: s.GetDetach(),
	}
}

// EncodeWindow writes the size of a terminal.
func EncodeWindow(rows, cols uint16) *vpsv1.Window {
	return &vpsv1.Window{Rows: uint32(rows), Cols: uint32(cols)}
}

// DecodeWindow reads the size of a terminal.
func DecodeWindow(w *vpsv1.Window) (rows, cols uint16) {
	return uint16(w.GetRows()), uint16(w.GetCols())
}

// DecodeConfig parses a configuration. None gives nil.
func DecodeConfig(c *vpsv1.Configuration) (*config.Config, error) {
	if c == nil {
		return nil, nil
	}
	return config.Parse(c.Name, strings.NewReader(c.Text))
}

// EncodeConfig writes a configuration, as its text; nil: none is given.
func EncodeConfig(c *config.Config) *vpsv1.Configuration {
	if c == nil {
		return nil
	}
	return &vpsv1.Configuration{Name: "configuration", Text: c.Text()}
}

// EncodeReport writes what a snapshot has cost.
func EncodeReport(r instance.SnapshotReport) *vpsv1.SnapshotReport {
	return &vpsv1.SnapshotReport{
		Bytes: r.Bytes, FrozenNs: r.Frozen.Nanoseconds(), TotalNs: r.Total.Nanoseconds(),
		Records: int32(r.Records), Processes: int32(r.Processes), Threads: int32(r.Threads),
		Phases: Each(r.Phases, func(p instance.Phase) *vpsv1.Phase { return &vpsv1.Phase{Name: p.Name, TookNs: p.Took.Nanoseconds()} }),
		Rounds: Each(r.Rounds, func(r instance.Round) *vpsv1.Round { return &vpsv1.Round{Bytes: r.Bytes, TookNs: r.Took.Nanoseconds()} }),

		StoppedNs: r.Stopped.Nanoseconds(),
	}
}

// DecodeReport reads what a snapshot has cost.
func DecodeReport(r *vpsv1.SnapshotReport) instance.SnapshotReport {
	return instance.SnapshotReport{
		Bytes: r.GetBytes(), Frozen: time.Duration(r.GetFrozenNs()), Total: time.Duration(r.GetTotalNs()),
		Records: int(r.GetRecords()), Processes: int(r.GetProcesses()), Threads: int(r.GetThreads()),
		Phases: Each(r.GetPhases(), func(p *vpsv1.Phase) instance.Phase {
			return instance.Phase{Name: p.GetName(), Took: time.Duration(p.GetTookNs())}
		}),
		Rounds: Each(r.GetRounds(), func(r *vpsv1.Round) instance.Round {
			return instance.Round{Bytes: r.GetBytes(), Took: time.Duration(r.GetTookNs())}
		}),
		Stopped: time.Duration(r.GetStoppedNs()),
	}
}

// EncodeAddresses writes the addresses that take the place of others.
func EncodeAddresses(all convert.Addresses) map[string]string {
	wire := make(map[string]string)
	for old, new := range all {
		wire[old.String()] = new.String()
	}
	return wire
}

// DecodeAddresses reads the addresses that take the place of others.
func DecodeAddresses(wire map[string]string) (convert.Addresses, error) {
	all := make(convert.Addresses)
	for from, to := range wire {
		old, err := netip.ParseAddr(from)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", instance.ErrInvalid, err)
		}
		if all[old], err = netip.ParseAddr(to); err != nil {
			return nil, fmt.Errorf("%w: %w", instance.ErrInvalid, err)
		}
	}
	return all, nil
}
