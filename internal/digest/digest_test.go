package digest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"cis490/internal/digest"
	"cis490/internal/fixture"
)

// FIPS 180-2, appendix B.1.
const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

var spellings = []struct {
	text string
	good bool
}{
	{abc, true},
	{strings.Repeat("0", 64), true},
	{strings.ToUpper(abc), false},
	{abc[:63] + "D", false},
	{abc[:63], false},
	{abc + "0", false},
	{abc[:62] + " d", false},
	{"0x" + abc[2:], false},
	{"", false},
	{strings.Repeat("\xff", 64), false},
	{strings.Repeat("x", 1<<16), false},
}

func TestOneDigestHasOneSpelling(t *testing.T) {
	for _, c := range spellings {
		d, err := digest.Parse(c.text)
		if c.good != (err == nil) || c.good && d.String() != c.text || !c.good && !d.IsZero() {
			t.Errorf("Parse(%.70q) = %s, %v", c.text, d, err)
		}
		if err != nil && len(err.Error()) > 1024 {
			t.Errorf("a message of %d bytes", len(err.Error()))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range spellings {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := digest.Parse(s)
		if err == nil && d.String() != s {
			t.Errorf("%q is read as %s", s, d)
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("not printable: %q", err)
		}
	})
}

func TestBadTextLeavesTheDigestAsItWas(t *testing.T) {
	d, err := digest.Parse(abc)
	fixture.Must(t, err)
	if err := d.UnmarshalText([]byte("bad")); err == nil || d.String() != abc {
		t.Errorf("%s, %v", d, err)
	}
}

func TestJSONIsTheTextForm(t *testing.T) {
	d, _ := digest.Parse(abc)
	b, err := json.Marshal(d)
	if err != nil || string(b) != `"`+abc+`"` {
		t.Errorf("%s, %v", b, err)
	}
	var back digest.Digest
	if err := json.Unmarshal(b, &back); err != nil || back != d {
		t.Errorf("%s, %v", back, err)
	}
}

func TestOfIsTheSHA256(t *testing.T) {
	d, n, err := digest.Of(iotest.OneByteReader(strings.NewReader("abc")))
	if d.String() != abc || n != 3 || err != nil {
		t.Errorf("%s, %d, %v", d, n, err)
	}
	broken := errors.New("broken")
	if d, _, err := digest.Of(iotest.ErrReader(broken)); !errors.Is(err, broken) || !d.IsZero() {
		t.Errorf("a broken reader has the digest %s; %v", d, err)
	}
}

// TestOnlyTakenBytesAreHashed: the writer below accepts only a part.
func TestOnlyTakenBytesAreHashed(t *testing.T) {
	var next short
	w := digest.NewWriter(&next)
	n, err := w.Write([]byte("abcdef"))
	if n != 3 || !errors.Is(err, errShort) {
		t.Fatalf("got %d, %v, want n 3 and %v", n, err, errShort)
	}
	if d, size := w.Sum(); d.String() != abc || size != 3 {
		t.Errorf("%s of %d bytes", d, size)
	}
	if !bytes.Equal(next.got, []byte("abc")) {
		t.Errorf("passed on %q", next.got)
	}
}

var errShort = errors.New("no room")

type short struct{ got []byte }

func (s *short) Write(p []byte) (int, error) {
	s.got = append(s.got, p[:3]...)
	return 3, errShort
}
