// Package codec compresses the pages of frames, and decompresses them from hostile input.
package codec

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Encoder compresses by zstd, RFC 8878. Several goroutines may use it.
type Encoder struct{ zstd *zstd.Encoder }

// NewEncoder returns an encoder that favours speed. Frames have sums of their own, so that it adds none.
func NewEncoder() (*Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return &Encoder{e}, nil
}

// Encode returns b compressed; nil if that is not shorter.
func (e *Encoder) Encode(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if z := e.zstd.EncodeAll(b, make([]byte, 0, len(b)/2)); len(z) < len(b) {
		return z
	}
	return nil
}

// Decoder decompresses what an Encoder made. Several goroutines may use it. Its zero value is ready.
type Decoder struct {
	once sync.Once
	zstd *zstd.Decoder
	err  error
}

// Decode decompresses b into *buf, which grows, but to no more than most bytes.
func (d *Decoder) Decode(b []byte, buf *[]byte, most uint64) ([]byte, error) {
	d.once.Do(func() { d.zstd, d.err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(most)) })
	if d.err != nil {
		return nil, fmt.Errorf("start zstd: %w", d.err)
	}
	out, err := d.zstd.DecodeAll(b, (*buf)[:0])
	if err != nil {
		return nil, err
	}
	*buf = out
	return out, nil
}
