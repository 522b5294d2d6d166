package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
)

// retriedEpisode is the result of retry or resend for one episode.
type retriedEpisode struct {
	Episode string `json:"episode_id"`
	Again   bool   `json:"again"`        // it will be retried or sent again
	As      string `json:"as,omitempty"` // under this name
	Error   string `json:"error,omitempty"`
}

// printMoved prints m as JSON, or what will be done if err is nil.
func (o *options) printMoved(c *cobra.Command, m retriedEpisode, err error, what string) error {
	if o.json {
		if err != nil {
			m.Error = err.Error()
		}
		return cli.WriteJSON(c.OutOrStdout(), m)
	}
	if err != nil {
		return nil
	}
	as := ""
	if m.As != "" {
		as = ", as " + m.As
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s will be %s%s\n", asciiText(m.Episode), what, as)
	return err
}
