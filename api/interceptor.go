package api

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"vps/instance/audit"
)

// interceptor tells the host who asks, and gives errors the form in which they travel.
type interceptor struct {
	log    *slog.Logger
	server context.Context // ends when the server is told to
}

func (i interceptor) call(ctx context.Context, spec connect.Spec, next func(context.Context) error) error {
	who := "remote"
	if p := peerOf(ctx); p != nil {
		who = fmt.Sprintf("uid %d pid %d", p.uid, p.pid)
	}
	began := time.Now()
	err := next(audit.WithActor(ctx, who))
	i.log.Debug("call", "procedure", spec.Procedure, "who", who, "took", time.Since(began), "err", err)
	if err != nil && i.server.Err() != nil {
		return connect.NewError(connect.CodeUnavailable, errEnding)
	}
	return toWire(err)
}

func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (resp connect.AnyResponse, err error) {
		err = i.call(ctx, r.Spec(), func(ctx context.Context) error {
			resp, err = next(ctx, r)
			return err
		})
		return resp, err
	}
}

func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		return i.call(ctx, c.Spec(), func(ctx context.Context) error { return next(ctx, c) })
	}
}

func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
