package logging

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"cis490/internal/printable"
)

// valueLimits are maximum lengths of a value and of the message, in bytes. If an object is longer
// than [MaxLine], the next limit is tried.
var valueLimits = [...]int{MaxLine, 4 << 10, 512, 64}

// formatJSON returns an event as one JSON object, preceded by the level for journald if journald
// reads it. Strings are printable ASCII even after decoding. What does not fit ends in "...", as in
// text.
func (h *handler) formatJSON(ctx context.Context, r slog.Record) (string, error) {
	prefix := ""
	if h.style.Form == ForJournal {
		prefix = priorityPrefix(r.Level)
	}
	for _, limit := range valueLimits {
		attrs, err := h.formatAttrs(ctx, r, func(w io.Writer) slog.Handler {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
				return plainAttr(groups, a, limit)
			}})
		})
		if err != nil {
			return "", err
		}
		line := prefix + jsonHead(r, limit) + printable.JSON(strings.TrimPrefix(attrs, `{"level":"INFO","msg":""`))
		if len(line) < MaxLine {
			return line, nil
		}
	}
	return prefix + jsonHead(r, valueLimits[len(valueLimits)-1]) + `,"attributes":"..."}`, nil
}

// jsonHead returns the beginning of the object: time, level and message.
func jsonHead(r slog.Record, limit int) string {
	head := "{"
	if !r.Time.IsZero() {
		head += `"time":"` + r.Time.UTC().Format(timeFormat) + `",`
	}
	return head + `"level":"` + r.Level.String() + `","msg":` + strconv.Quote(printable.Clip(printable.Text(r.Message), limit))
}

// plainAttr returns an attribute whose value is a number, a bool, or a string as in text.
func plainAttr(groups []string, a slog.Attr, limit int) slog.Attr {
	if a.Equal(slog.Attr{}) {
		return a // handlers of slog skip it
	}
	switch v := a.Value; v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64:
	case slog.KindTime:
		a.Value = slog.StringValue(v.Time().UTC().Format(timeFormat))
	case slog.KindAny:
		if _, own := v.Any().(slog.Level); own && len(groups) == 0 && a.Key == slog.LevelKey {
			return a // the record's own: see formatAttrs
		}
		a.Value = plainString(textOf(v.Any()), limit)
	default:
		a.Value = plainString(v.String(), limit)
	}
	if len(groups) == 0 && slices.Contains([]string{slog.TimeKey, slog.LevelKey, slog.MessageKey}, a.Key) && a.Value.String() != "" {
		a.Key += "_" // or it would replace the record's own attribute
	}
	a.Key = printable.Clip(printable.Text(a.Key), limit)
	return a
}

func plainString(s string, limit int) slog.Value {
	return slog.StringValue(printable.Clip(printable.Text(s), limit))
}

// textOf returns a value as slog.TextHandler shows it.
func textOf(v any) (text string) {
	defer func() { // as slog does for its own calls: a nil pointer must not end a daemon
		if r := recover(); r != nil {
			text = fmt.Sprintf("!PANIC: %v", r)
		}
	}()
	switch v := v.(type) {
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			return "!ERROR:" + err.Error()
		}
		return string(text)
	case []byte:
		return string(v)
	}
	return fmt.Sprintf("%+v", v)
}
