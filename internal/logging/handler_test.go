package logging_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/slogtest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/logging"
)

func TestFormsBeginAsTheirReadersExpect(t *testing.T) {
	const file, terminal = `^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) `, `^\d\d:\d\d:\d\d `
	for _, c := range []struct {
		form  logging.Form
		level slog.Level
		want  string
	}{
		{logging.ForJournal, slog.LevelError + 1, `^<3>`},
		{logging.ForJournal, slog.LevelWarn, `^<4>`},
		{logging.ForJournal, slog.LevelInfo, `^<6>`},
		{logging.ForJournal, slog.LevelDebug, `^<7>`},
		{logging.ForTerminal, slog.LevelWarn, terminal + "WARN "},
		{logging.ForTerminal, slog.LevelError + 1, terminal + `ERROR\+1 `},
		{logging.ForFile, slog.LevelInfo, file + "INFO "},
	} {
		var b bytes.Buffer
		log := slog.New(logging.NewHandler(&b, slog.LevelDebug, logging.Style{Form: c.form}))
		log.Log(t.Context(), c.level, "episode packed", "episode", "ep-1", "took", time.Second)
		if want := c.want + "episode packed episode=ep-1 took=1s\n$"; !regexp.MustCompile(want).Match(b.Bytes()) {
			t.Errorf("got %q, want %s", b.String(), want)
		}
	}
}

type secret struct{ log *slog.Logger }

func (s secret) LogValue() slog.Value { s.log.Warn("inner"); return slog.StringValue("told") }

func TestAttributesAreWritten(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(logging.NewHandler(&b, slog.LevelInfo, logging.Style{Form: logging.ForJournal}))
	a := log.With("host", "lab-01").WithGroup("g")
	for _, c := range []struct {
		do   func()
		want string
	}{
		{func() { log.Info("bare") }, "<6>bare\n"},
		{func() { log.Debug("too low") }, ""},
		{func() { a.With("a", 1).Info("m", "b", "x y") }, `<6>m host=lab-01 g.a=1 g.b="x y"` + "\n"},
		{func() { a.With("c", 1).Info("m") }, "<6>m host=lab-01 g.c=1\n"},
		{func() { a.Info("m") }, "<6>m host=lab-01\n"},
		{func() { log.Info("m", "level", "x", "msg", "y", "time", "z") }, "<6>m level=x msg=y time=z\n"},
		{func() { slog.New(log.Handler().WithGroup("")).Info("m", "k", 1) }, "<6>m k=1\n"},
		{func() { log.Info("m", "err", errors.New("a\n<0>b")) }, `<6>m err="a\n<0>b"` + "\n"},
		{func() { log.Info("m\n<0>forged") }, `<6>"m\n<0>forged"` + "\n"},
		{func() { log.Info(`m sha256=0`) }, `<6>"m sha256=0"` + "\n"},
		{func() { log.Info("") }, `<6>""` + "\n"},
		{func() { log.Info("m", "k", "\u202e\x1b[2J\u0085\xff\x7f\u00e9") }, `<6>m k="\u202e\x1b[2J\u0085\xff\x7f\u00e9"` + "\n"},
		{func() { log.WithGroup("\u00e9\n").Info("m", "\x7f", 1) }, `<6>m "\u00e9\n.\x7f"=1` + "\n"},
		{func() { log.Info("m", "k", secret{log}) }, "<4>inner\n<6>m k=told\n"}, // must not deadlock
		{func() { log.Info("m", "k", strings.Repeat("x", 1<<20)) }, "<6>m k=" + strings.Repeat("x", logging.MaxLine-11) + "...\n"},
	} {
		b.Reset()
		c.do()
		if got := b.String(); got != c.want {
			t.Errorf("got %.300q (%d bytes), want %.300q", got, len(got), c.want)
		}
	}
}

func TestLoggersOfOneParentDoNotMix(t *testing.T) {
	var b bytes.Buffer
	parent := slog.New(logging.NewHandler(&b, slog.LevelInfo, logging.Style{Form: logging.ForJournal})).With("a", 1).With("b", 2).With("c", 3)
	first, second := parent.With("d", "first"), parent.With("d", "second")
	first.Info("m")
	second.Info("m")
	if got, want := b.String(), "<6>m a=1 b=2 c=3 d=first\n<6>m a=1 b=2 c=3 d=second\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLevelMayChange(t *testing.T) {
	var b bytes.Buffer
	var level slog.LevelVar
	log := slog.New(logging.NewHandler(&b, &level, logging.Style{Form: logging.ForJournal})).With("a", 1)
	log.Debug("one")
	level.Set(slog.LevelDebug)
	log.Debug("two")
	if got := b.String(); got != "<7>two a=1\n" {
		t.Errorf("got %q, want %q", got, "<7>two a=1\n")
	}
}

// oneWriter fails the test if two goroutines write at a time.
type oneWriter struct {
	mu    sync.Mutex
	t     *testing.T
	lines int
}

func (w *oneWriter) Write(p []byte) (int, error) {
	if !w.mu.TryLock() {
		w.t.Error("two lines were written at a time")
		return len(p), nil
	}
	defer w.mu.Unlock()
	w.lines++
	if !bytes.HasPrefix(p, []byte("<6>m ")) || bytes.IndexByte(p, '\n') != len(p)-1 {
		w.t.Errorf("not one line: %q", p)
	}
	return len(p), nil
}

func TestEventsAreWrittenOneByOne(t *testing.T) {
	w := &oneWriter{t: t}
	log := slog.New(logging.NewHandler(w, slog.LevelInfo, logging.Style{Form: logging.ForJournal}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			log := log.With("worker", i)
			for j := range 500 {
				log.Info("m", "j", j)
			}
		})
	}
	wg.Wait()
	if w.lines != 4000 {
		t.Errorf("%d lines, want 4000", w.lines)
	}
}

func TestHandlerKeepsSlogsContract(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		b.Reset()
		return logging.NewHandler(&b, slog.LevelInfo, logging.Style{Form: logging.ForFile})
	}, func(t *testing.T) map[string]any { return parse(t, strings.TrimSuffix(b.String(), "\n")) })
}

var head = regexp.MustCompile(`^(?:(\S+T\S+) )?(INFO|WARN) (\S+)`)

// parse reads a line of the form for files, whose message is one word.
func parse(t *testing.T, line string) map[string]any {
	m := head.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("no line of ours: %q", line)
	}
	got := map[string]any{slog.LevelKey: m[2], slog.MessageKey: m[3]}
	if m[1] != "" {
		got[slog.TimeKey] = m[1]
	}
	for _, field := range strings.Fields(line[len(m[0]):]) {
		key, value, _ := strings.Cut(field, "=")
		path, at := strings.Split(key, "."), got
		for _, group := range path[:len(path)-1] {
			if at[group] == nil {
				at[group] = map[string]any{}
			}
			at = at[group].(map[string]any)
		}
		if s, err := strconv.Unquote(value); err == nil {
			value = s
		}
		at[path[len(path)-1]] = value
	}
	return got
}

func TestFormFollowsTheStream(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	fixture.Must(t, err)
	defer f.Close()
	var stat syscall.Stat_t
	fixture.Must(t, syscall.Fstat(int(f.Fd()), &stat))
	for stream, want := range map[string]logging.Form{
		"": logging.ForFile, "x": logging.ForFile,
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino):   logging.ForJournal,
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1): logging.ForFile,
	} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := logging.FormOf(f); got != want {
			t.Errorf("JOURNAL_STREAM=%s: form %d, want %d", stream, got, want)
		}
	}
	f.Close()
	if got := logging.FormOf(f); got != logging.ForFile {
		t.Errorf("closed file: form %d", got)
	}
}

func FuzzHandler(f *testing.F) {
	f.Add("m", "k", "v", "g")
	f.Add("a\nb", "k=\x1b", "\u202e\xff", "\u0085")
	f.Add("<0>", "", "", "\x7f")
	f.Add(strings.Repeat("\xff", 9000), "time", "é", "level")
	f.Fuzz(func(t *testing.T, message, key, value, group string) {
		for form := logging.ForFile; form <= logging.ForJournal; form++ {
			var b bytes.Buffer
			h := logging.NewHandler(&b, slog.LevelInfo, logging.Style{Form: form})
			log := slog.New(h).With(key, value).WithGroup(group)
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
		}
	})
}
