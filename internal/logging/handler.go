package logging

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"cis490/internal/printable"
)

// MaxLine bounds a log line in bytes. journald splits longer lines, and takes the rest for an event
// with a level of its own.
const MaxLine = 16 << 10

// NewHandler returns a handler that writes each event of at least the level to w, in one Write.
// Keys and values look as in slog.TextHandler, and the message is not quoted. All but printable
// ASCII is escaped as in a Go string. A line that would be longer than [MaxLine] ends in "...".
func NewHandler(w io.Writer, level slog.Leveler, form Form) slog.Handler {
	return &handler{out: &output{w: w}, level: level, form: form}
}

type handler struct {
	out   *output
	level slog.Leveler
	form  Form
	with  []func(slog.Handler) slog.Handler // WithAttrs and WithGroup, in order
}

// output serializes the lines.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.withEach(func(text slog.Handler) slog.Handler { return text.WithAttrs(attrs) })
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.withEach(func(text slog.Handler) slog.Handler { return text.WithGroup(name) })
}

func (h *handler) withEach(f func(slog.Handler) slog.Handler) slog.Handler {
	with := append(h.with[:len(h.with):len(h.with)], f)
	return &handler{out: h.out, level: h.level, form: h.form, with: with}
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	attrs, err := h.formatAttrs(ctx, r)
	if err != nil {
		return err
	}
	line := printable.Text(h.formatHead(r) + attrs)
	if len(line) >= MaxLine {
		line = line[:MaxLine-len("...\n")] + "..."
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err = io.WriteString(h.out.w, line+"\n")
	return err
}

// formatAttrs returns all attributes as " key=value". A text handler renders them under an empty
// message. No lock is held, because a value's text method may log.
func (h *handler) formatAttrs(ctx context.Context, r slog.Record) (string, error) {
	var b bytes.Buffer
	text := slog.Handler(slog.NewTextHandler(&b, nil))
	for _, f := range h.with {
		text = f(text)
	}
	bare := r.Clone()
	bare.Time, bare.Level, bare.Message = time.Time{}, slog.LevelInfo, ""
	if err := text.Handle(ctx, bare); err != nil {
		return "", err
	}
	attrs := strings.TrimPrefix(b.String(), `level=INFO msg=""`)
	return strings.TrimSuffix(attrs, "\n"), nil
}

func (h *handler) formatHead(r slog.Record) string {
	switch {
	case h.form == ForJournal:
		return priorityPrefix(r.Level) + formatMessage(r.Message)
	case r.Time.IsZero():
		return r.Level.String() + " " + formatMessage(r.Message)
	case h.form == ForTerminal:
		return r.Time.Format(time.TimeOnly) + " " + r.Level.String() + " " + formatMessage(r.Message)
	}
	return r.Time.Format("2006-01-02T15:04:05.000Z07:00") + " " + r.Level.String() + " " + formatMessage(r.Message)
}

// priorityPrefix returns the level as journald parses it at the start of a line.
func priorityPrefix(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// formatMessage returns s as it is if it reads as plain words, and quoted otherwise: a message must
// not look like attributes.
func formatMessage(s string) string {
	if s == "" || strings.ContainsAny(s, `="\`) || printable.Text(s) != s {
		return strconv.QuoteToASCII(s)
	}
	return s
}
