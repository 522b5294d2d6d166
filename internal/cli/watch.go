package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"cis490/internal/printable"
	"cis490/internal/serviceuser"
)

// watchInterval is the time between two refreshes of --watch.
const watchInterval = 2 * time.Second

// AddWatch adds --watch to a command, which then shows its output again and again until Ctrl-C. open
// returns what writes the output; without --watch the command does that once.
func AddWatch(c *cobra.Command, open func(c *cobra.Command) (show func(w io.Writer) error, err error)) {
	on := false
	c.Flags().BoolVar(&on, "watch", false, "refresh the output every 2 seconds until Ctrl-C")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if on {
			if err := refuseFlags(c, "watch", "json"); err != nil {
				return err
			}
		}
		if on && !term.IsTerminal(int(os.Stdout.Fd())) {
			return UsageError(errors.New("--watch requires a terminal; for programs there is --json"))
		}
		show, err := open(c)
		if err != nil {
			return err
		}
		if !on {
			return show(c.OutOrStdout())
		}
		return showUntilDone(c.Context(), c.OutOrStdout(), terminalHeight, show, func(err error) string {
			return printable.Text(serviceuser.Explain(err, CheckLine(c)).Error())
		})
	}
}

// Control sequences of ECMA-48.
const (
	cursorHome = "\x1b[H"
	clearLine  = "\x1b[K" // to its end
	clearBelow = "\x1b[J"
	clearAll   = "\x1b[2J"
)

// terminalHeight returns how many lines fit on the terminal.
func terminalHeight() int {
	if _, height, err := term.GetSize(int(os.Stdout.Fd())); err == nil && height > 1 {
		return height
	}
	return 24
}

// showUntilDone shows a text in place until ctx ends. Each refresh is one write, so that it does not flicker.
// Lines that do not fit would scroll, and are left out.
func showUntilDone(ctx context.Context, w io.Writer, height func() int, show func(w io.Writer) error, explain func(error) string) error {
	start := clearAll
	for {
		var text bytes.Buffer
		err := show(&text)
		if exit, ok := errors.AsType[*ExitError](err); err != nil && (!ok || exit.Err != nil) {
			fmt.Fprintf(&text, "\n%s\n", explain(err))
		}
		lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		if most := height() - 1; len(lines) > most {
			lines = append(lines[:most-1], fmt.Sprintf("... and %d more lines", len(lines)-most+1))
		}
		page := strings.Join(lines, clearLine+"\n") + clearLine + "\n"
		if _, err := io.WriteString(w, start+cursorHome+page+clearBelow); err != nil {
			return err
		}
		start = ""
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchInterval):
		}
	}
}
