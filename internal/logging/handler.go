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
	"cis490/internal/terminal"
)

// MaxLine bounds a log line in bytes. journald splits longer lines, and takes the rest for an event
// with a level of its own.
const MaxLine = 16 << 10

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// NewHandler returns a handler that writes each event of at least the level to w, in one Write.
// In text, keys and values look as in slog.TextHandler, and the message is not quoted. All but
// printable ASCII is escaped as in a Go string. A line that would be longer than [MaxLine] ends in
// "...".
func NewHandler(w io.Writer, level slog.Leveler, style Style) slog.Handler {
	return &handler{out: &output{w: w}, level: level, style: style}
}

type handler struct {
	out   *output
	level slog.Leveler
	style Style
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
	return &handler{out: h.out, level: h.level, style: h.style, with: with}
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	line, err := h.formatLine(ctx, r)
	if err != nil {
		return err
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err = io.WriteString(h.out.w, line+"\n")
	return err
}

// formatLine returns the line of an event, without its newline.
func (h *handler) formatLine(ctx context.Context, r slog.Record) (string, error) {
	if h.style.Format == JSON {
		return h.formatJSON(ctx, r)
	}
	attrs, err := h.formatAttrs(ctx, r, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
	if err != nil {
		return "", err
	}
	begin, level := h.formatHead(r)
	end := ""
	if level != "" {
		end = " "
	}
	text := printable.Text(end + formatMessage(r.Message) + strings.TrimPrefix(attrs, `level=INFO msg=""`))
	begin += h.style.Paint.Paint(level, colorOf(r.Level))
	if len(begin)+len(text) >= MaxLine {
		text = text[:MaxLine-len(begin)-len("...\n")] + "..."
	}
	return begin + text, nil
}

// formatAttrs returns what a handler of slog writes for an empty message and the attributes. No lock
// is held, because a value's text method may log.
func (h *handler) formatAttrs(ctx context.Context, r slog.Record, newHandler func(io.Writer) slog.Handler) (string, error) {
	var b bytes.Buffer
	text := newHandler(&b)
	for _, f := range h.with {
		text = f(text)
	}
	bare := r.Clone()
	bare.Time, bare.Level, bare.Message = time.Time{}, slog.LevelInfo, ""
	if err := text.Handle(ctx, bare); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// formatHead returns the beginning of a line, and the name of its level if the form shows it.
func (h *handler) formatHead(r slog.Record) (begin, level string) {
	switch {
	case h.style.Form == ForJournal:
		return priorityPrefix(r.Level), ""
	case r.Time.IsZero():
		return "", r.Level.String()
	case h.style.Form == ForTerminal:
		return r.Time.Format(time.TimeOnly) + " ", r.Level.String()
	}
	return r.Time.Format(timeFormat) + " ", r.Level.String()
}

func colorOf(level slog.Level) terminal.Color {
	switch {
	case level >= slog.LevelError:
		return terminal.Bad
	case level >= slog.LevelWarn:
		return terminal.Fair
	case level >= slog.LevelInfo:
		return terminal.Plain
	}
	return terminal.Faint
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
