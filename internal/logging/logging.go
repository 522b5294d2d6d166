// Package logging sets up slog for standard error, as the journal, a terminal or a file
// reads it.
//
// Invariant: one event is one line of printable ASCII, at most [MaxLine] bytes long,
// whatever bytes an episode put into a name. A forged line would be a forged log. On a
// terminal the level may have a colour.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cis490/internal/printable"
	"cis490/internal/terminal"
)

// New returns a logger that writes to standard error in the form for it.
func New(verbose bool, format Format) *slog.Logger { return NewAbove(os.Stderr, verbose, format) }

// NewAbove is [New] with a writer that passes the lines on to standard error, such as one that
// prints them above a display of progress.
func NewAbove(w io.Writer, verbose bool, format Format) *slog.Logger {
	return slog.New(NewHandler(w, levelFor(verbose), styleOf(os.Stderr, format)))
}

// FlushTimeout bounds how long a program that ends waits for the reader of its log.
const FlushTimeout = time.Second

// NewDaemon is [New] for a daemon: a slow or missing reader of standard error neither blocks
// nor ends it. The daemon must call flush when it ends.
func NewDaemon(verbose bool, format Format) (log *slog.Logger, flush func()) {
	signal.Ignore(syscall.SIGPIPE) // of stderr: other pipes give an error anyway
	style := styleOf(os.Stderr, format)
	q := NewQueue(os.Stderr, style)
	return slog.New(NewHandler(q, levelFor(verbose), style)), func() { q.Close(FlushTimeout) }
}

func levelFor(verbose bool) slog.Level {
	if verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// Format is how an event is written. The zero value is [Text].
type Format string

// The formats of a log.
const (
	Text Format = "text" // message key=value
	JSON Format = "json" // one object, with time, level, msg and the keys
)

// UnmarshalText parses the name of a format.
func (f *Format) UnmarshalText(text []byte) error {
	switch read := Format(text); read {
	case Text, JSON:
		*f = read
		return nil
	}
	return fmt.Errorf(`%s is not a valid format: write "text" or "json"`, printable.Quote(string(text), 100))
}

// Style is how the lines of a log look.
type Style struct {
	Form   Form
	Format Format
	Paint  terminal.Painter // for the level, in text
}

// styleOf returns the style for f, which is usually standard error.
func styleOf(f *os.File, format Format) Style {
	return Style{FormOf(f), format, terminal.NewPainter(f)}
}

// Form is how a log line begins. The rest of the line is the same in all forms. An object of [JSON]
// always has the time, and in the journal a priority such as <4> precedes it.
type Form int

// The forms of a log line.
const (
	ForFile     Form = iota // 2006-01-02T15:04:05.000Z WARN message key=value
	ForTerminal             // 15:04:05 WARN message key=value
	ForJournal              // <4>message key=value; journald knows the time
)

// FormOf returns the form for f, which is usually standard error.
func FormOf(f *os.File) Form {
	switch {
	case isJournal(f):
		return ForJournal
	case terminal.IsTerminal(f):
		return ForTerminal
	}
	return ForFile
}

// isJournal reports whether f is the stream to journald, whose device and inode are in the
// environment. Redirected output of a child process has others.
func isJournal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
