package statuspage

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
	"cis490/internal/printable"
)

// text is printable ASCII. Everything that a template shows is text, a number, or composed of both.
type text string

// clean converts an untrusted string to text.
func clean(s string) text { return text(printable.Text(s)) }

// textf formats text. Its arguments may be untrusted.
func textf(format string, args ...any) text { return clean(fmt.Sprintf(format, args...)) }

// mark is a state as a word and a shape: see the template "mark".
type mark struct {
	Shape text // "ok", "warning", "critical" or "off"
	Word  text
}

func severityMark(s fleet.Severity) mark { return mark{text(s.String()), text(s.String())} }

// hostMark returns the state of a host: its worst problem if it is served, and its state otherwise.
func hostMark(h hosts.Host) mark {
	if !h.IsServed() {
		return mark{"off", clean(string(h.State))}
	}
	m := severityMark(fleet.Worst(h.Problems))
	if h.State != datadir.HostActive {
		m.Word = clean(string(h.State))
	}
	return m
}

// moment is a time, for people and for programs.
type moment struct {
	ISO  text // empty if it is unknown
	Text text
	Ago  text
}

// momentOf describes t, and how far it is from now.
func momentOf(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	m := moment{ISO: text(t.UTC().Format("2006-01-02T15:04:05Z")), Text: text(t.UTC().Format("2006-01-02 15:04"))}
	switch d := now.Sub(t); {
	case d >= time.Second:
		m.Ago = text(fleet.FormatTime(d) + " ago")
	case d <= -time.Second:
		m.Ago = text("in " + fleet.FormatTime(-d))
	}
	return m
}

func formatSize(bytes int64) text {
	if bytes == durable.UnknownSpace || bytes < 0 {
		return "unknown"
	}
	return text(humanize.IBytes(uint64(bytes)))
}

// describeForecast returns when a disk will be full, and how severe that is.
func describeForecast(hours *float64) (text, fleet.Severity) {
	left := fleet.FromHours(hours)
	if left == 0 {
		return "", fleet.OK
	}
	return text("full in about " + fleet.FormatTime(left)), fleet.ForecastSeverity(left)
}

// plural returns a number with a noun.
func plural(n int64, one, many string) text {
	if n == 1 {
		return text("1 " + one)
	}
	return text(fmt.Sprintf("%d %s", n, many))
}

// shellWord returns s as one word of a shell. Valid names need no quotes, but this does not rely on it.
func shellWord(s string) text {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return text(s)
	}
	return clean("'" + strings.ReplaceAll(s, "'", `'\''`) + "'")
}

// hostURL returns the link to a host's page. The link root leads from the present page to the overview.
func hostURL(root text, host string) text { return root + "hosts/" + clean(url.PathEscape(host)) }

// commandLine returns a command for an episode or a host.
func commandLine(format, name string) text { return textf(format, shellWord(name)) }
