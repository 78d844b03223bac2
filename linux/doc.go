// Package linux has the kernel's ABI that golang.org/x/sys/unix lacks: structures, constants and thin calls, each with
// the header that defines it. It knows nothing of instances.
package linux
