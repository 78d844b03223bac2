package snapshot

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// programFeatures are the processor's features that programs choose their code by, as /proc/cpuinfo names them: a program that has
// found one will use it without asking again.
var programFeatures = []string{
	"3dnowprefetch", "abm", "adx", "aes", "amx_bf16", "amx_int8", "amx_tile", "avx", "avx2", "avx512_bf16", "avx512_bitalg",
	"avx512_fp16", "avx512_vbmi2", "avx512_vnni", "avx512_vp2intersect", "avx512_vpopcntdq", "avx512bw", "avx512cd",
	"avx512dq", "avx512f", "avx512ifma", "avx512vbmi", "avx512vl", "avx_vnni", "bmi1", "bmi2", "clflushopt", "clwb",
	"clzero", "cx16", "erms", "f16c", "fma", "fsgsbase", "fsrm", "gfni", "lahf_lm", "lzcnt", "movbe", "movdir64b", "movdiri",
	"ospke", "pclmulqdq", "pni", "popcnt", "rdpid", "rdrand", "rdseed", "rdtscp", "serialize", "sha_ni", "sse4_1",
	"sse4_2", "sse4a", "ssse3", "user_shstk", "vaes", "vpclmulqdq", "waitpkg", "xsave", "xsavec", "xsaveopt",
}

// Header returns the header of a snapshot that is taken here and now of the instance name.
func Header(name string) (*dump.Header, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	features, err := cpuFeatures()
	if err != nil {
		return nil, err
	}
	return &dump.Header{
		Arch: unix.ByteSliceToString(u.Machine[:]), Kernel: unix.ByteSliceToString(u.Release[:]), PageSize: uint32(os.Getpagesize()),
		CpuFeatures: features, Created: time.Now().UnixNano(), Instance: name,
	}, nil
}

// cpuFeatures returns which of the features this machine has.
func cpuFeatures() ([]string, error) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" {
			for _, f := range strings.Fields(value) {
				if slices.Contains(programFeatures, f) {
					list = append(list, f)
				}
			}
			break
		}
	}
	slices.Sort(list)
	return list, nil
}
