// Package keyring looks for keys in the kernel's keyrings (keyrings(7)). They cannot be restored: their numbers, by which programs know
// them, are the kernel's to choose, and some cannot be read by anybody. Keyrings without keys are no loss.
package keyring

import (
	"fmt"
	"strings"

	"vps/kmem"
	"vps/object"
)

// tolerated are keys that nobody misses, by their descriptions: systemd gives one to each service, which has the same in its
// environment (systemd.exec(5), KeyringMode=).
var tolerated = map[string]bool{"invocation_id": true}

// Probe names the keys of processes, which may run, and of the users of their namespace.
func Probe(kernel *kmem.Reader, procs []object.Proc) []error {
	if kernel == nil {
		return nil
	}
	var refusals []error
	w := kernel.Walk()
	tasks := w.Tasks()
	seen := search{w, make(map[uint64]bool)}
	registers := make(map[uint64]uint64) // keyrings of users by user namespaces
	for _, p := range procs {
		task, ok := tasks[p.Host]
		if !ok {
			continue
		}
		cred := task.Member("real_cred").Deref()
		users := cred.Member("user_ns").Deref()
		register, known := registers[users.Address()]
		if !known {
			register = users.Member("user_keyring_register").Uint()
			registers[users.Address()] = register
		}
		rings := []uint64{
			cred.Member("session_keyring").Uint(), cred.Member("process_keyring").Uint(), cred.Member("thread_keyring").Uint(), register,
		}
		for _, ring := range rings {
			for _, key := range seen.keys(w.At("key", ring)) {
				refusals = append(refusals, &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "key " + key})
			}
		}
	}
	// Structures that go away while they are looked at end the search: there is another look at what has been held.
	return refusals
}

// search goes through keyrings, through each once.
type search struct {
	w    *kmem.Walk
	seen map[uint64]bool
}

// maxKeys is how many keys and keyrings are looked at.
const maxKeys = 1 << 16

// keys lists the keys in a keyring, and in those within.
func (s search) keys(ring kmem.Value) []string {
	if ring.Null() || s.w.Err() != nil || s.seen[ring.Address()] || len(s.seen) > maxKeys {
		return nil
	}
	s.seen[ring.Address()] = true
	return s.below(ring.Member("keys", "root").Uint())
}

// below lists the keys below a pointer of an associative array (include/linux/assoc_array_priv.h).
func (s search) below(pointer uint64) []string {
	const meta, subtype = 1, 2
	at := pointer &^ (meta | subtype)
	switch {
	case at == 0 || s.w.Err() != nil:
		return nil
	case pointer&meta == 0 && pointer&subtype != 0: // a keyring (security/keys/keyring.c, KEYRING_PTR_SUBTYPE)
		return s.keys(s.w.At("key", at))
	case pointer&meta == 0:
		return s.key(s.w.At("key", at))
	case s.seen[at]:
		return nil
	}
	s.seen[at] = true
	if pointer&subtype != 0 {
		return s.below(s.w.At("assoc_array_shortcut", at).Member("next_node").Uint())
	}
	var keys []string
	slots := s.w.At("assoc_array_node", at).Member("slots")
	for i := range 16 { // ASSOC_ARRAY_FAN_OUT
		keys = append(keys, s.below(slots.Index(i).Uint())...)
	}
	return keys
}

func (s search) key(key kmem.Value) []string {
	kind := s.text(key.Member("type").Deref().Member("name").Uint())
	description := s.text(key.Member("description").Uint())
	if s.w.Err() != nil || tolerated[description] {
		return nil
	}
	return []string{fmt.Sprintf("%q of type %s", description, kind)}
}

// text reads the begin of a string.
func (s search) text(at uint64) string {
	text, _, _ := strings.Cut(string(s.w.Bytes(at, 64)), "\x00")
	return text
}
