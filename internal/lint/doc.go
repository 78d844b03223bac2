// Package lint holds the laws of this project that a program can check, as tests: what may import what,
// and what every file must be like. docs/architecture.md says why. There is no other code here.
package lint
