package api

import (
	"context"
	"log/slog"
	"path"
	"strings"
	"time"

	"connectrpc.com/connect"
)

// auditor logs calls and gives their errors the form in which they travel.
type auditor struct{ log *slog.Logger }

// reads are the calls that change nothing; they are logged at a lower level.
var reads = map[string]bool{"version": true, "list": true, "show": true, "args": true, "processes": true, "check": true, "wait": true, "events": true, "logs": true}

// record is what a handler of a stream adds to the line of its call.
type record struct{ id string }

type recordKey struct{}

// about tells which instance a stream is about.
func about(ctx context.Context, id string) {
	if r, ok := ctx.Value(recordKey{}).(*record); ok {
		r.id = id
	}
}

func (a auditor) audit(ctx context.Context, spec connect.Spec, id string, began time.Time, err error) {
	verb := strings.ToLower(path.Base(spec.Procedure))
	level := slog.LevelInfo
	if reads[verb] {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("verb", verb)}
	if id != "" {
		attrs = append(attrs, slog.String("id", id))
	}
	if p := peerOf(ctx); p != nil {
		attrs = append(attrs, slog.Int("uid", p.uid), slog.Int("pid", p.pid))
	}
	attrs = append(attrs, slog.Duration("took", time.Since(began).Round(time.Microsecond)))
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	a.log.LogAttrs(ctx, level, "call", attrs...)
}

func (a auditor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		resp, err := next(ctx, r)
		id := ""
		if t, ok := r.Any().(interface{ GetId() string }); ok {
			id = t.GetId()
		}
		a.audit(ctx, r.Spec(), id, began, err)
		return resp, toWire(err)
	}
}

func (a auditor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		began, r := time.Now(), new(record)
		err := next(context.WithValue(ctx, recordKey{}, r), c)
		a.audit(ctx, c.Spec(), r.id, began, err)
		return toWire(err)
	}
}

func (a auditor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
