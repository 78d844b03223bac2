// Package pager moves memory pages: out of an instance into a snapshot, and from there into a restored one.
//
// Pages are moved by system calls only (process_vm_readv(2), process_vm_writev(2), pread(2)); no Go memory lies over
// those of an instance.
package pager
