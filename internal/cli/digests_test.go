package cli_test

import (
	"strings"
	"testing"

	"cis490/internal/cli"
	"cis490/internal/digest"
)

func TestOnlyGivenDigestsAreShortened(t *testing.T) {
	known, name := digest.Digest{1, 2, 3}, strings.Repeat("ab", 32)
	text := name + ": its sha256 is " + known.String()
	if got, want := cli.ShortenDigests(text, false, known), name+": its sha256 is "+known.String()[:12]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := cli.ShortDigest("abc", false); got != "abc" { // of a file that another wrote
		t.Errorf("got %q, want abc", got)
	}
	if got := cli.ShortenDigests(text, true, known); got != text {
		t.Errorf("with --full: got %q, want %q", got, text)
	}
}
