// Package remote runs system calls in processes that are not ours.
//
// A stub, some two hundred bytes of machine code, obeys batches: lists of system calls that stand in a slot of
// an Arena, memory that the stub and we share. A result can be an argument of a later call, so that a batch needs
// no interpreter. A stub with nothing to do waits on a futex in its slot; [Page.Run] wakes it and waits for the end.
//
//	arena    code page | slot 0 | slot 1 | ...        one memfd, at the same address in every stub
//	slot     header, 64 bytes | entries of 64 bytes → ...   ... ← data
//
// There are two ways to have a stub:
//
//   - Born: [Spawn] makes the first process of an arena from a memfd; every further one is the child of a clone3 in
//     a batch, with its slot as its stack. It inherits the arena, and its batch may be written before it exists.
//   - Entered: [Tracer] seizes a live thread and makes it run a batch; that batch heals itself, that is, the thread goes
//     on with what it was doing, if we die meanwhile.
//
// Nothing of ours is an executable file in an instance, and no Go code ever runs inside one.
//
// This package alone knows machine code and register names. What is particular to a processor is in files with its name.
package remote
