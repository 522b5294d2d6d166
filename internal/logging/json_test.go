package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"cis490/internal/logging"
	"cis490/internal/terminal"
)

func newJSON(b *bytes.Buffer, form logging.Form) *slog.Logger {
	return slog.New(logging.NewHandler(b, slog.LevelDebug, logging.Style{Form: form, Format: logging.JSON}))
}

// panics is a value whose text ends a program that asks for it, as a nil pointer may.
type panics struct{}

func (panics) MarshalText() ([]byte, error) { panic("no value") }

type unmarshalable struct{}

func (unmarshalable) MarshalText() ([]byte, error) { return nil, errors.New("no text") }

func TestJSONHasTheAttributesOfText(t *testing.T) {
	var b bytes.Buffer
	log := newJSON(&b, logging.ForJournal)
	at := time.Date(2026, 11, 30, 9, 0, 0, 5e6, time.FixedZone("CET", 3600))
	write := func(level slog.Level, message string, args ...any) {
		r := slog.NewRecord(time.Time{}, level, message, 0)
		r.Add(args...)
		if err := log.Handler().Handle(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		do   func()
		want string
	}{
		{func() { write(slog.LevelInfo, "bare") }, `<6>{"level":"INFO","msg":"bare"}`},
		{
			func() {
				write(slog.LevelWarn, "m", "episode", "run-7", "bytes", 5, "ok", true, "took", 1500*time.Millisecond)
			},
			`<4>{"level":"WARN","msg":"m","episode":"run-7","bytes":5,"ok":true,"took":"1.5s"}`,
		},
		{func() { write(slog.LevelError, "m", "at", at, "b", []byte("x")) }, `<3>{"level":"ERROR","msg":"m","at":"2026-11-30T08:00:00.005Z","b":"x"}`},
		{func() { write(slog.LevelDebug, "m", "err", errors.New("open \"run\x1b[31m\"")) }, `<7>{"level":"DEBUG","msg":"m","err":"open \"run\\x1b[31m\""}`},
		{func() { write(slog.LevelInfo, "m\n\"", "k", "\u202e\xff\u00e9") }, `<6>{"level":"INFO","msg":"m\\n\"","k":"\\u202e\\xff\\u00e9"}`},
		{func() { write(slog.LevelInfo, "m", "msg", "forged", "level", "DEBUG", "time", "never") }, `<6>{"level":"INFO","msg":"m","msg_":"forged","level_":"DEBUG","time_":"never"}`},
		{func() { write(slog.LevelInfo, "m", slog.Group("g\u00e9", "a", 1, "msg", 2)) }, `<6>{"level":"INFO","msg":"m","g\u00e9":{"a":1,"msg":2}}`},
		{func() { write(slog.LevelInfo, "m", "k", panics{}) }, `<6>{"level":"INFO","msg":"m","k":"!PANIC: no value"}`},
		{func() { write(slog.LevelInfo, "m", "k", unmarshalable{}) }, `<6>{"level":"INFO","msg":"m","k":"!ERROR:no text"}`},
		{func() { write(slog.LevelInfo, "m", "any", struct{ S string }{"x\x1b"}) }, `<6>{"level":"INFO","msg":"m","any":"{S:x\\x1b}"}`},
	} {
		b.Reset()
		c.do()
		if got := b.String(); got != c.want+"\n" {
			t.Errorf("got  %s want %s", got, c.want)
		}
	}
	b.Reset()
	newJSON(&b, logging.ForFile).With("host", "lab-01").Info("m")
	if got := b.String(); !strings.HasPrefix(got, `{"time":"2`) || !strings.HasSuffix(got, `Z","level":"INFO","msg":"m","host":"lab-01"}`+"\n") {
		t.Errorf("in a file: got %s", got)
	}
}

func TestLongJSONIsStillAnObject(t *testing.T) {
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		var b bytes.Buffer
		log := newJSON(&b, logging.ForJournal)
		long := strings.Repeat("\xff\"", size)
		log.Error(long, "episode", "run-7", "err", errors.New(long), long, long, "n", 5)
		line := strings.TrimSuffix(b.String(), "\n")
		var got map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "<3>")), &got); err != nil || len(line) >= logging.MaxLine {
			t.Fatalf("%d: %d bytes, %v: %.200s", size, len(line), err, line)
		}
		if got["level"] != "ERROR" || got["episode"] != "run-7" || got["n"] != 5.0 || !strings.HasSuffix(got["err"].(string), "...") {
			t.Errorf("%d: got %.300s", size, line)
		}
	}
	for size := logging.MaxLine - 100; size <= logging.MaxLine; size++ { // one byte too many is too many
		var b bytes.Buffer
		newJSON(&b, logging.ForFile).Info(strings.Repeat("x", size))
		if b.Len() > logging.MaxLine || !json.Valid(b.Bytes()) {
			t.Errorf("a message of %d bytes: %d bytes", size, b.Len())
		}
	}
	var b bytes.Buffer // more attributes than fit in any case
	log := newJSON(&b, logging.ForFile)
	for range 2000 {
		log = log.With("key", "value value")
	}
	log.Info("m")
	if !strings.HasSuffix(b.String(), `,"level":"INFO","msg":"m","attributes":"..."}`+"\n") {
		t.Errorf("got %.300s", b.String())
	}
}

func TestJSONHandlerKeepsSlogsContract(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		b.Reset()
		return newJSON(&b, logging.ForFile).Handler()
	}, func(t *testing.T) map[string]any {
		var got map[string]any
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	})
}

func TestOnlyTextAndJSONAreFormats(t *testing.T) {
	for text, want := range map[string]string{
		"text": "", "json": "", "": `"" is not a valid format: write "text" or "json"`, "JSON\x1b": `"JSON\x1b" is not a valid format: write "text" or "json"`,
	} {
		var f logging.Format
		if err := f.UnmarshalText([]byte(text)); (err == nil) != (want == "") || err != nil && err.Error() != want || err == nil && string(f) != text {
			t.Errorf("%q: got %q, %v, want %s", text, f, err, want)
		}
	}
}

// On a terminal only the level is coloured, so that untrusted text in a message cannot end the colour.
func TestOnlyTheLevelHasAColour(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer tty.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	var b bytes.Buffer
	log := slog.New(logging.NewHandler(&b, slog.LevelDebug, logging.Style{Form: logging.ForTerminal, Paint: terminal.NewPainter(tty)}))
	for level, want := range map[slog.Level]string{
		slog.LevelError: " \x1b[31mERROR\x1b[0m m k=\"\\x1b[0m\"\n", slog.LevelWarn: " \x1b[33mWARN\x1b[0m m k=\"\\x1b[0m\"\n",
		slog.LevelInfo: " INFO m k=\"\\x1b[0m\"\n", slog.LevelDebug: " \x1b[2mDEBUG\x1b[0m m k=\"\\x1b[0m\"\n",
	} {
		b.Reset()
		log.Log(t.Context(), level, "m", "k", "\x1b[0m")
		if got := b.String(); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	b.Reset()
	log.Error(strings.Repeat("x", logging.MaxLine))
	if b.Len() > logging.MaxLine {
		t.Errorf("%d bytes", b.Len())
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("m", "k", "v", "g")
	f.Add("a\nb", "k=\x1b", "\u202e\xff", "\u0085")
	f.Add("\"", "msg", "\\", "level")
	f.Add(strings.Repeat("\xff", 9000), "time", "é", "\U0001f600")
	own := []string{slog.TimeKey, slog.LevelKey, slog.MessageKey}
	f.Fuzz(func(t *testing.T, message, key, value, group string) {
		if slices.Contains(own, group) || group == "" && slices.Contains(own, key) {
			return // slog lets no handler rename a group, and those of this module are constants
		}
		var b bytes.Buffer
		log := newJSON(&b, logging.ForFile).With(key, value).WithGroup(group)
		log.Info(message, key, value, "err", errors.New(value), "b", []byte(value), slog.Group(key, value, message), "any", struct{ S string }{value})
		line, ok := bytes.CutSuffix(b.Bytes(), []byte("\n"))
		if !ok || len(line) >= logging.MaxLine {
			t.Fatalf("no line, or too long a one: %q", b.Bytes())
		}
		for _, c := range line {
			if c < 0x20 || c > 0x7e {
				t.Fatalf("byte %#x in %q", c, line)
			}
		}
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil || got["level"] != "INFO" {
			t.Fatalf("%v: %q", err, line)
		}
		if s, ok := got["msg"].(string); !ok || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("msg is %q", got["msg"])
		}
	})
}
