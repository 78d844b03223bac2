package dump

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// Major and Minor are the version of the format that this package writes. It reads every minor of its major.
const (
	Major = 1
	Minor = 0
)

// Version is the version of the format of a snapshot.
type Version struct{ Major, Minor uint16 }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

const (
	magic        = "\x89VPS\r\n\x1a\n" // as PNG's: shows a transfer that was not binary
	littleEndian = 1
	maxHeader    = 64 << 10
	minPage      = 4 << 10
	maxPage      = 64 << 10
)

// appendHeader appends the preamble and the header message.
func appendHeader(b []byte, h *Header, v Version) ([]byte, error) {
	if err := checkPageSize(h.PageSize); err != nil {
		return nil, fmt.Errorf("write snapshot header: %w", err)
	}
	message, err := proto.MarshalOptions{Deterministic: true}.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write snapshot header: %w", err)
	}
	if len(message) > maxHeader {
		return nil, fmt.Errorf("write snapshot header: %d bytes are more than %d: %w", len(message), maxHeader, ErrLimit)
	}
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, v.Major)
	b = binary.LittleEndian.AppendUint16(b, v.Minor)
	b = append(b, littleEndian, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(message)))
	b = binary.LittleEndian.AppendUint32(b, checksum(b[start:], message))
	return append(b, message...), nil
}

// readHeader reads the preamble and the header message.
func readHeader(s *scanner) (*Header, Version, error) {
	var b [unitHeadSize]byte
	if err := s.read(b[:len(magic)], "header"); err != nil {
		return nil, Version{}, err
	}
	if string(b[:len(magic)]) != magic {
		return nil, Version{}, formatError(ErrNotSnapshot, 0, "not a snapshot file")
	}
	if err := s.read(b[len(magic):], "header"); err != nil {
		return nil, Version{}, err
	}
	v := Version{binary.LittleEndian.Uint16(b[8:]), binary.LittleEndian.Uint16(b[10:])}
	length := binary.LittleEndian.Uint32(b[16:])
	switch {
	case v.Major != Major:
		return nil, v, formatError(ErrVersion, 8, "format %s cannot be read by this program, which reads %d.x", v, Major)
	case b[12] != littleEndian || b[13]|b[14]|b[15] != 0:
		return nil, v, formatError(ErrUnsupported, 12, "byte order %x is not supported", b[12:16])
	case length > maxHeader:
		return nil, v, corrupt(16, "header of %d bytes is longer than %d", length, maxHeader)
	}
	message, err := s.take(nil, int(length), "header")
	if err != nil {
		return nil, v, err
	}
	if checksum(b[:20], message) != binary.LittleEndian.Uint32(b[20:]) {
		return nil, v, corrupt(0, "header: checksum mismatch")
	}
	h := new(Header)
	if err := proto.Unmarshal(message, h); err != nil {
		return nil, v, corrupt(unitHeadSize, "header: %v", err)
	}
	if err := checkPageSize(h.PageSize); err != nil {
		return nil, v, corrupt(unitHeadSize, "header: %v", err)
	}
	return h, v, nil
}

func checkPageSize(n uint32) error {
	if n < minPage || n > maxPage || n&(n-1) != 0 {
		return fmt.Errorf("page size %d is not a power of two from %d to %d", n, minPage, maxPage)
	}
	return nil
}

// CheckHost tells whether an instance of this header can go on on the machine of the other one:
// the architecture and the page size must be the same, and every processor feature must be there. So must its pages.
func (x *Header) CheckHost(host *Header) error {
	if x.GetWithoutPages() {
		return fmt.Errorf("the memory was left out when this snapshot was converted: it can be shown, not restored: %w", ErrNoPages)
	}
	if x.GetArch() != host.GetArch() {
		return fmt.Errorf("snapshot was written on %q, this machine is %q: %w", x.GetArch(), host.GetArch(), ErrArch)
	}
	if x.GetPageSize() != host.GetPageSize() {
		return fmt.Errorf("snapshot has pages of %d bytes, this machine of %d: %w", x.GetPageSize(), host.GetPageSize(), ErrArch)
	}
	var missing []string
	for _, f := range x.GetCpuFeatures() {
		if !slices.Contains(host.GetCpuFeatures(), f) {
			missing = append(missing, fmt.Sprintf("%q", f))
		}
	}
	if missing != nil {
		return fmt.Errorf("snapshot needs %s: %w", strings.Join(missing, ", "), ErrCPU)
	}
	return nil
}
