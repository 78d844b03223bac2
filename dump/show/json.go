package show

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/dump/internal/message"
)

// Schema is the version of what JSON writes. It changes when a field changes its meaning or goes away.
const Schema = 1

// jsonHead is the begin of the output; the lists records, pages and frames follow in the same object.
type jsonHead struct {
	Schema int             `json:"schema"`
	Format string          `json:"format"`
	Size   int64           `json:"size"`
	Header json.RawMessage `json:"header"`
}

type jsonRecord struct {
	Type        string          `json:"type"`
	ID          uint64          `json:"id,string"`
	Offset      int64           `json:"offset"`
	Message     json.RawMessage `json:"message,omitempty"`
	Unsupported string          `json:"unsupported,omitempty"`
}

type jsonPages struct {
	Type    string       `json:"type"`
	ID      uint64       `json:"id,string"`
	Stored  uint64       `json:"stored"`
	Shared  uint64       `json:"shared"`
	Zero    uint64       `json:"zero"`
	Extents []jsonExtent `json:"extents"`
}

type jsonExtent struct {
	Start uint64 `json:"start,string"`
	End   uint64 `json:"end,string"`
	Frame *int   `json:"frame,omitempty"` // absent: zero
	Index int    `json:"index,omitempty"`
}

type jsonFrame struct {
	Number int    `json:"number"`
	Offset int64  `json:"offset"`
	Type   string `json:"type"`
	ID     uint64 `json:"id,string"`
	Kind   string `json:"kind"`
	Codec  string `json:"codec"`
	Pages  int    `json:"pages"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
}

// JSON writes what is in a snapshot as one JSON object: header, records (their messages in protobuf's JSON
// form), pages by object, frames. Integers of 64 bits are strings, as in protobuf's form.
func JSON(w io.Writer, s *dump.Snapshot) error {
	v := newView(s)
	header, err := Message(s.Header())
	if err != nil {
		return err
	}
	head, err := json.Marshal(jsonHead{Schema, s.Version().String(), s.Size(), header})
	if err != nil {
		return fmt.Errorf("encode snapshot header: %w", err)
	}
	out := bufio.NewWriter(w)
	out.Write(bytes.TrimSuffix(head, []byte("}"))) // a failure shows in Flush
	for _, l := range []struct {
		name  string
		items iter.Seq2[any, error]
	}{
		{"records", v.jsonRecords()},
		{"pages", v.jsonPages()},
		{"frames", v.jsonFrames()},
	} {
		if err := writeList(out, l.name, l.items); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "\n}")
	return out.Flush()
}

// writeList writes a member of the object, one item on a line.
func writeList(out *bufio.Writer, name string, items iter.Seq2[any, error]) error {
	fmt.Fprintf(out, ",\n%q: [", name)
	separator := "\n"
	for item, err := range items {
		if err != nil {
			return err
		}
		b, err := json.Marshal(item)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		out.WriteString(separator)
		out.Write(b)
		separator = ",\n"
	}
	_, err := out.WriteString("]")
	return err
}

func (v *view) jsonRecords() iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for _, k := range v.s.Keys() {
			r, err := v.jsonRecord(k)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func (v *view) jsonRecord(k dump.Key) (*jsonRecord, error) {
	rec, err := v.s.Record(k)
	if err != nil {
		return nil, err
	}
	r := &jsonRecord{Type: dump.TypeName(k.Type), ID: k.ID, Offset: rec.Offset}
	if err := rec.Unsupported(); errors.Is(err, dump.ErrUnsupported) {
		r.Unsupported = err.Error()
	}
	m, err := rec.Message()
	if errors.Is(err, dump.ErrUnsupported) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	r.Message, err = Message(m)
	return r, err
}

func (v *view) jsonPages() iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for _, k := range v.s.Keys() {
			u, extents := v.usage(k)
			if len(extents) == 0 {
				continue
			}
			p := jsonPages{Type: dump.TypeName(k.Type), ID: k.ID, Stored: u.stored, Shared: u.shared, Zero: u.zero}
			for _, e := range extents {
				j := jsonExtent{Start: e.Start, End: e.End}
				if e.Frame != dump.Zero {
					j.Frame, j.Index = &e.Frame, e.Index
				}
				p.Extents = append(p.Extents, j)
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

func (v *view) jsonFrames() iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for _, f := range v.frames {
			j := jsonFrame{Number: f.Number, Offset: f.Offset, Type: dump.TypeName(f.Key.Type), ID: f.Key.ID,
				Kind: f.Kind.String(), Codec: f.Codec.String(), Pages: f.Count, Size: f.Size}
			if f.Kind == dump.Pages {
				j.SHA256 = hex.EncodeToString(f.Digest[:])
			}
			if !yield(j, nil) {
				return
			}
		}
	}
}

// Message encodes a message in protobuf's JSON form, without the spaces by which protojson keeps its output unstable.
func Message(m proto.Message) (json.RawMessage, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		// A name that is not UTF-8 is shown as it is stored.
		if m, err = message.Storable(m); err == nil {
			b, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return out.Bytes(), nil
}
