package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// parseInventory parses a request one query at a time. It never holds more queries than are
// allowed, nor more than [maxLookahead] bytes of anything else. It refuses a repeated member.
func parseInventory(body io.Reader) (inventoryRequest, error) {
	in := inventoryRequest{Episodes: []InventoryQuery{}}
	ahead := &lookaheadLimiter{r: body}
	dec := json.NewDecoder(ahead)
	ahead.inputOffset = dec.InputOffset
	err := parseObject(dec, map[string]func() error{
		"episodes":  func() (err error) { in.Episodes, err = parseQueries(dec); return err },
		"read_back": func() error { return dec.Decode(&in.ReadBack) },
	})
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	switch _, problem := errors.AsType[*Problem](err); {
	case ahead.err != nil: // the connection's error or the body limits', not malformed JSON
		return in, ahead.err
	case problem:
		return in, err
	case ahead.exceeded:
		return in, Refuse(BadRequest, "not an inventory: more than %d bytes in one value or between two", maxLookahead)
	case err != nil:
		return in, Refuse(BadRequest, "not a valid inventory: %s", printable.Text(err.Error()))
	case in.ReadBack && len(in.Episodes) != 1:
		return in, Refuse(BadRequest, "one episode is read back at a time, not %d", len(in.Episodes))
	}
	return in, nil
}

func parseQueries(dec *json.Decoder) ([]InventoryQuery, error) {
	if err := expectDelim(dec, '['); err != nil {
		return nil, err
	}
	all := []InventoryQuery{}
	for dec.More() {
		if len(all) == MaxQueries {
			return nil, Refuse(BadRequest, "an inventory has at most %d episodes", MaxQueries)
		}
		var c InventoryQuery
		if err := dec.Decode(&c); err != nil {
			return nil, err
		}
		if _, err := episode.ParseName(string(c.Episode)); err != nil {
			return nil, Refuse(BadName, "%v", err)
		}
		if c.Digest.IsZero() {
			return nil, Refuse(DigestMissing, "%s has no sha256", c.Episode)
		}
		all = append(all, c)
	}
	return all, expectDelim(dec, ']')
}

// parseObject parses a JSON object whose members are those of read, each at most once. It skips
// other members, which newer hosts may send.
func parseObject(dec *json.Decoder, read map[string]func() error) error {
	if err := expectDelim(dec, '{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		member, known := read[name]
		if !known {
			if err := skipValue(dec); err != nil {
				return err
			}
			continue
		}
		if seen[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
		if err := member(); err != nil {
			return err
		}
	}
	return expectDelim(dec, '}')
}

// maxSkippedDepth bounds the nesting of skipped members, because the decoder remembers each level.
const maxSkippedDepth = 32

// skipValue skips a value token by token, so that nothing of it stays in memory.
func skipValue(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
			if depth > maxSkippedDepth {
				return fmt.Errorf("more than %d levels in an unknown member", maxSkippedDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func expectDelim(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err == nil && t != want {
		err = fmt.Errorf("want %v at the byte %d", want, dec.InputOffset())
	}
	return err
}

// maxLookahead bounds how many bytes the decoder may read beyond the last value that it returned. A
// query has at most a few hundred.
const maxLookahead = 16 << 10

// lookaheadLimiter ends a decoder that buffers too much. Without it, the decoder would hold a
// string or white space of any length.
type lookaheadLimiter struct {
	r           io.Reader
	inputOffset func() int64 // offset after the last value
	read        int64
	exceeded    bool
	err         error // that ended r, which a decoder may hide
}

func (l *lookaheadLimiter) Read(p []byte) (int, error) {
	left := l.inputOffset() + maxLookahead - l.read
	if left <= 0 {
		l.exceeded = true
		return 0, io.ErrUnexpectedEOF
	}
	n, err := l.r.Read(p[:min(int64(len(p)), left)])
	l.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	return n, err
}
