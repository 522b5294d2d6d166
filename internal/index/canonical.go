package index

import (
	"bytes"
	"strconv"
	"strings"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// parseCanonical parses a row in the form of [Row.Append]. It accepts a line only if Append would
// write the same bytes, so that its result cannot differ from the JSON decoder's.
//
// The decoder alone would serve, at four times the CPU time (7 instead of 2 µs per row). Readers
// of a whole index would feel that: `index verify` reads it once per 200,000 archives, and took
// 31 instead of 24 s of CPU time for 400,000.
func parseCanonical(in []byte) (Row, bool) {
	in = bytes.TrimSuffix(in, []byte("\n"))
	t := rowScanner{rest: string(in), ok: true}
	r := Row{}
	t.expectPrefix("{")
	r.Backfilled = t.skipPrefix(backfilledMember)
	if t.skipPrefix(commitMember) {
		r.Commit = t.readUntil(nextMember)
	}
	t.expectPrefix(episodeMember)
	name := t.readUntil(hostMember)
	host := t.readUntil(timeMember)
	at := t.readUntil(nextMember)
	r.Repaired = t.skipPrefix(repairedMember)
	t.expectPrefix(digestMember)
	sha256 := t.readUntil(sizeMember)
	size, skipped, _ := strings.Cut(t.readUntil("}"), skippedMember)
	if !t.ok || t.rest != "" {
		return Row{}, false
	}
	var errs [6]error
	r.Key.Name, errs[0] = episode.ParseName(name)
	r.Key.Host, errs[1] = episode.ParseName(host)
	r.ReceivedAt, errs[2] = episode.ParseWall(at)
	r.SHA256, errs[3] = digest.Parse(sha256)
	r.Size, errs[4] = strconv.ParseInt(size, 10, 64)
	if skipped != "" {
		r.Skipped, errs[5] = strconv.Atoi(skipped)
	}
	if firstError(errs[:]...) != nil || r.checkValues(schema) != nil {
		return Row{}, false
	}
	again := r.Append(make([]byte, 0, len(in)+1))
	return r, bytes.Equal(again[:len(again)-1], in)
}

// rowScanner has the rest of a line. ok is false after the first mismatch.
type rowScanner struct {
	rest string
	ok   bool
}

func (t *rowScanner) expectPrefix(s string) {
	if !t.skipPrefix(s) {
		t.ok = false
	}
}

func (t *rowScanner) skipPrefix(s string) bool {
	rest, found := strings.CutPrefix(t.rest, s)
	t.rest = rest
	return found
}

func (t *rowScanner) readUntil(s string) string {
	before, rest, found := strings.Cut(t.rest, s)
	t.rest, t.ok = rest, t.ok && found
	return before
}
