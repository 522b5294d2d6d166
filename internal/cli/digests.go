package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// shortDigest is how many hex digits people get to see of a digest: enough to tell two apart.
const shortDigest = 12

// AddFull adds --full to a command that prints digests for people. JSON and log lines always have
// whole ones.
func AddFull(c *cobra.Command, full *bool) {
	c.Flags().BoolVar(full, "full", false, "print whole digests, not their first 12 digits")
}

// ShortDigest returns a digest in hex as people get to see it: its beginning, or all of it with full.
func ShortDigest(whole string, full bool) string {
	if full || len(whole) <= shortDigest {
		return whole
	}
	return whole[:shortDigest]
}

// ShortenDigests returns text with the given digests shortened in it, unless full is set. Nothing
// else is shortened: an episode may be named by the digest of its malware.
func ShortenDigests[D fmt.Stringer](text string, full bool, digests ...D) string {
	for _, d := range digests {
		text = strings.ReplaceAll(text, d.String(), ShortDigest(d.String(), full))
	}
	return text
}
