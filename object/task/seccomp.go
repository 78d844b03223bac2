package task

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// SeccompFilter is a filter of a thread, as PTRACE_SECCOMP_GET_FILTER and PTRACE_SECCOMP_GET_METADATA give it (ptrace(2)).
type SeccompFilter struct {
	Program []byte // struct sock_filter[]
	Flags   uint32 // SECCOMP_FILTER_FLAG_LOG
}

const (
	sockFilterSize   = 8
	seccompMaxLength = 4096 // BPF_MAXINSNS
	// seccompMaxChain bounds a chain; the kernel's own bound is 32768 instructions with 4 more per filter.
	seccompMaxChain = 32768 / 5
)

// Seccomps makes records of the filters of all threads of an instance: what threads have in common, because they inherited
// it or were synchronized, is one record.
type Seccomps struct {
	base    int // filters at the bottom of every chain that are the manager's
	ids     map[seccompKey]uint64
	records []*dump.Seccomp
}

type seccompKey struct {
	parent  uint64
	flags   uint32
	program string
}

// NewSeccomps begins with no filters. The base filters at the bottom of every chain are left out.
func NewSeccomps(base int) *Seccomps {
	return &Seccomps{base: base, ids: make(map[seccompKey]uint64)}
}

// Add takes a thread's filters, the oldest first, and sets the thread's reference to the newest of them.
func (s *Seccomps) Add(t *dump.Thread, filters []SeccompFilter) error {
	if len(filters) < s.base && t.GetSeccompMode() == unix.SECCOMP_MODE_FILTER {
		return fmt.Errorf("pid %d (%s): %d seccomp filters, the manager's alone are %d", t.GetTid(), t.GetComm(), len(filters), s.base)
	}
	parent := uint64(0)
	for _, f := range filters[min(s.base, len(filters)):] {
		if notifies(f.Program) {
			return &object.Refusal{PID: int(t.GetTid()), Comm: t.GetComm(), FD: -1, Object: "a seccomp filter that asks a supervisor"}
		}
		key := seccompKey{parent, f.Flags, string(f.Program)}
		id, ok := s.ids[key]
		if !ok {
			id = uint64(len(s.records) + 1)
			s.ids[key] = id
			s.records = append(s.records, &dump.Seccomp{Id: id, Parent: parent, Flags: f.Flags, Program: slices.Clone(f.Program)})
		}
		parent = id
	}
	t.Seccomp = parent
	return nil
}

// Records returns the filters, each after its parent.
func (s *Seccomps) Records() []*dump.Seccomp { return s.records }

// notifies tells whether a program can answer SECCOMP_RET_USER_NOTIF.
func notifies(program []byte) bool {
	for i := 0; i+sockFilterSize <= len(program); i += sockFilterSize {
		code, k := binary.LittleEndian.Uint16(program[i:]), binary.LittleEndian.Uint32(program[i+4:])
		if code == unix.BPF_RET|unix.BPF_K && k&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_USER_NOTIF {
			return true
		}
	}
	return false
}

// SeccompChain returns a thread's filters, the oldest first, out of hostile records.
func SeccompChain(t *dump.Thread, records map[uint64]*dump.Seccomp) ([]*dump.Seccomp, error) {
	var chain []*dump.Seccomp
	for id := t.GetSeccomp(); id != 0; {
		f := records[id]
		switch {
		case f == nil:
			return nil, fmt.Errorf("thread %d: no seccomp filter %d", t.GetTid(), id)
		case len(chain) == seccompMaxChain:
			return nil, fmt.Errorf("thread %d: seccomp filters in a circle, or too many", t.GetTid())
		case len(f.GetProgram()) == 0 || len(f.GetProgram())%sockFilterSize != 0 || len(f.GetProgram()) > seccompMaxLength*sockFilterSize:
			return nil, fmt.Errorf("seccomp filter %d: program of %d bytes", id, len(f.GetProgram()))
		case f.GetFlags()&^unix.SECCOMP_FILTER_FLAG_LOG != 0:
			return nil, fmt.Errorf("seccomp filter %d: flags %#x", id, f.GetFlags())
		}
		chain = append(chain, f)
		id = f.GetParent()
	}
	slices.Reverse(chain)
	return chain, nil
}

// RestoreSeccomp puts the calling thread of a stub under its filters (from [SeccompChain]), or in strict mode; with
// sync, all threads of its process that have the same. From then on they judge the stub's own calls too, even the
// futex calls at its batch's end. So a tracer has seized the threads with PTRACE_O_SUSPEND_SECCOMP, and this stands
// before [RestoreCreds]: a filter needs CAP_SYS_ADMIN in the user namespace, or no_new_privs.
func RestoreSeccomp(b *remote.Batch, t *dump.Thread, chain []*dump.Seccomp, sync bool) {
	for _, f := range chain {
		length := len(f.GetProgram()) / sockFilterSize
		program := b.Words(uint64(length), uint64(b.Data(f.GetProgram()))) // struct sock_fprog
		flags := f.GetFlags()
		if sync {
			flags |= unix.SECCOMP_FILTER_FLAG_TSYNC
		}
		b.Call("install seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, program)
	}
	if t.GetSeccompMode() == unix.SECCOMP_MODE_STRICT {
		b.Call("enter seccomp strict mode", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_STRICT, 0, 0)
	}
}
