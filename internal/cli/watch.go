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
)

// watchInterval is the time between two refreshes of --watch.
const watchInterval = 2 * time.Second

// AddWatch adds --watch to a command, which then shows its output again and again until Ctrl-C. open
// returns what writes the output; without --watch the command does that once.
func AddWatch(c *cobra.Command, open func(c *cobra.Command) (show func(w io.Writer) error, err error)) {
	on := false
	c.Flags().BoolVar(&on, "watch", false, "refresh the output every 2 seconds until Ctrl-C")
	c.RunE = func(c *cobra.Command, _ []string) error {
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
		return watch(c.Context(), c.OutOrStdout(), show)
	}
}

// Control sequences of ECMA-48.
const (
	cursorHome = "\x1b[H"
	clearLine  = "\x1b[K" // to its end
	clearBelow = "\x1b[J"
	clearAll   = "\x1b[2J"
)

// watch shows a text in place until ctx ends. Each refresh is one write, so that it does not flicker.
func watch(ctx context.Context, w io.Writer, show func(w io.Writer) error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	start := clearAll
	for {
		var text bytes.Buffer
		err := show(&text)
		if exit, ok := errors.AsType[*ExitError](err); err != nil && (!ok || exit.Err != nil) {
			fmt.Fprintf(&text, "\n%v\n", err)
		}
		page := strings.ReplaceAll(text.String(), "\n", clearLine+"\n")
		if _, err := io.WriteString(w, start+cursorHome+page+clearBelow); err != nil {
			return err
		}
		start = ""
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
