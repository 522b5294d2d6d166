package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// shortDigestLen is the number of hex digits of a digest that commands print: enough to tell two apart.
const shortDigestLen = 12

// AddFull adds --full to a command that prints digests for people. JSON and log lines always have
// whole digests.
func AddFull(c *cobra.Command, full *bool) {
	c.Flags().BoolVar(full, "full", false, "print whole digests, not their first 12 digits")
}

// ShortDigest returns the first digits of a digest in hex, or all of them if full is set.
func ShortDigest(whole string, full bool) string {
	if full || len(whole) <= shortDigestLen {
		return whole
	}
	return whole[:shortDigestLen]
}

// ShortenDigests shortens the given digests in text, unless full is set. It leaves other digests
// alone, because an episode may be named after the digest of its malware.
func ShortenDigests[D fmt.Stringer](text string, full bool, digests ...D) string {
	for _, d := range digests {
		text = strings.ReplaceAll(text, d.String(), ShortDigest(d.String(), full))
	}
	return text
}
