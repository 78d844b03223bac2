// Package dump is the snapshot file: records that say what an instance is, and the pages of its memory.
//
// A snapshot is written strictly forward, so that a file, a pipe and a socket are the same thing.
// It begins with a [Header]; then come units, each one a record or a frame of pages, and a trailer
// ends it. A record is a protobuf message under a [Key]: its type and the id of the object that it
// describes. A record that comes again replaces the earlier one, and a tombstone withdraws it together
// with its pages. Pages belong to the record before them: to an Mm at addresses, to a Memory at offsets.
// Where two frames give the same page, the later one wins.
//
// A [Writer] writes a snapshot, or a [FileWriter] when it goes to a file. A [Reader] reads one
// as it arrives; [Open] gives one that is there as a whole, for access in any order. [Verify] checks
// everything. Whatever is read is taken for hostile: each failure is a [FormatError] of one of the
// classes below, and memory follows what was read, never what a length claims.
//
// docs/format.md describes every byte.
package dump
