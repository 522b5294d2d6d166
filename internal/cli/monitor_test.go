package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

func TestCheckPrintsOneLineAndHasTheCodesOfPlugins(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		result MonitorResult
		err    error
		line   string
		code   int
	}{
		"ok":           {[]string{"--check"}, MonitorResult{"HOSTS", MonitorOK, "12 hosts", []string{"hosts=12", "held=0"}}, nil, "HOSTS OK: 12 hosts | hosts=12 held=0", 0},
		"warning":      {[]string{"--check"}, MonitorResult{"HOSTS", MonitorWarning, "1 held", nil}, nil, "HOSTS WARNING: 1 held", 1},
		"critical":     {[]string{"--check"}, MonitorResult{"HOSTS", MonitorCritical, "lab-01 is silent", nil}, nil, "HOSTS CRITICAL: lab-01 is silent", 2},
		"hostile text": {[]string{"--check"}, MonitorResult{"HOSTS", MonitorCritical, "a|b=1\n\x1b[2J", nil}, nil, `HOSTS CRITICAL: a/b=1\n\x1b[2J`, 2},
		"no answer":    {[]string{"--check"}, MonitorResult{}, UsageError(errors.New("receiver.toml:1: unknown key")), "RECEIVER UNKNOWN: receiver.toml:1: unknown key", 3},
		"two errors":   {[]string{"--check"}, MonitorResult{}, errors.Join(errors.New("a"), errors.New("b")), "RECEIVER UNKNOWN: a; b", 3},
		"misuse":       {[]string{"--check", "--bogus"}, MonitorResult{}, nil, "RECEIVER UNKNOWN: unknown flag: --bogus; see 'receiver --help'", 3},
		"true":         {[]string{"--check=t"}, MonitorResult{"HOSTS", MonitorOK, "fine", nil}, nil, "HOSTS OK: fine", 0},
		"true, failed": {[]string{"--check=1"}, MonitorResult{}, errors.New("a"), "RECEIVER UNKNOWN: a", 3},
		"with JSON":    {[]string{"--check", "--json"}, MonitorResult{}, nil, "RECEIVER UNKNOWN: --check and --json cannot be combined", 3},
		"not a check":  {nil, MonitorResult{}, nil, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out, stderr bytes.Buffer
			root := &cobra.Command{Use: "receiver", RunE: func(*cobra.Command, []string) error { return errors.New("ran") }}
			root.SetOut(&out)
			root.SetErr(&stderr)
			root.SetArgs(c.args)
			root.Flags().Bool("json", false, "")
			AddCheck(root, func(*cobra.Command) (MonitorResult, error) { return c.result, c.err })
			if code := runCommand(t.Context(), root, c.args); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if got := strings.TrimSuffix(out.String(), "\n"); got != c.line || strings.Contains(got, "\n") {
				t.Errorf("got %q, want %q", got, c.line)
			}
			if c.args != nil && stderr.Len() > 0 {
				t.Errorf("stderr has %q", &stderr)
			}
		})
	}
}

func TestWatchRefreshesInPlaceUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var out bytes.Buffer
		n := 0
		err := showUntilDone(ctx, &out, func() int { return 4 }, func(w io.Writer) error {
			n++
			switch n {
			case 1:
				fmt.Fprintln(w, "1\n2\n3")
			case 2:
				fmt.Fprintln(w, "1\n2\n3\n4\n5")
			default:
				return errors.New("not now")
			}
			return nil
		}, error.Error)
		page := func(lines ...string) string { return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\n\x1b[J" }
		want := "\x1b[2J" + page("1", "2", "3") + page("1", "2", "... and 3 more lines") + page("", "not now")
		if err != nil || out.String() != want {
			t.Errorf("got %q, %v, want %q", &out, err, want)
		}
	})
}
