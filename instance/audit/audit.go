// Package audit writes the line that every verb leaves: who, what, result.
package audit

import (
	"context"
	"log/slog"
)

type actorKey struct{}

// WithActor tells who asks for what is done with the context.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

// Line writes a verb's line and returns its error.
func Line(ctx context.Context, log *slog.Logger, verb, id string, err error) error {
	who, _ := ctx.Value(actorKey{}).(string)
	if err != nil {
		log.Warn("verb", "who", who, "verb", verb, "instance", id, "result", "failed", "error", err)
	} else {
		log.Info("verb", "who", who, "verb", verb, "instance", id, "result", "ok")
	}
	return err
}
