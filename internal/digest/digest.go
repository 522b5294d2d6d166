// Package digest identifies bytes by their SHA-256. [Of] and [Writer] compute a digest, and
// [ResumeWriter] continues one.
//
// Invariant: a digest has one text form, 64 lower-case hex digits, in JSON, logs, file attributes
// and on the command line. Only package wire uses another one, where RFC 9530 requires it. Commands
// print its first digits for people, unless --full is given.
package digest

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"cis490/internal/printable"
)

// Size is the length of a [Digest] in bytes.
const Size = sha256.Size

// Digest is the SHA-256 of some bytes. The zero Digest means "not known".
type Digest [Size]byte

// Parse parses the text format. It refuses upper-case digits, so that each digest has one spelling.
func Parse(s string) (Digest, error) {
	var d Digest
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return Digest{}, err
	}
	return d, nil
}

// Of returns the digest of all bytes of r, and their number.
func Of(r io.Reader) (Digest, int64, error) {
	w := NewWriter(io.Discard)
	n, err := io.CopyBuffer(w, onlyReader{r}, make([]byte, 128<<10))
	if err != nil {
		return Digest{}, n, err
	}
	d, n := w.Sum()
	return d, n, nil
}

// onlyReader hides WriterTo, so that io.CopyBuffer uses the buffer it is given.
type onlyReader struct{ io.Reader }

// IsZero reports whether d is unknown.
func (d Digest) IsZero() bool { return d == Digest{} }

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the text format.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses the text format.
func (d *Digest) UnmarshalText(text []byte) error {
	var read Digest
	if len(text) == hex.EncodedLen(Size) {
		if _, err := hex.Decode(read[:], text); err == nil && read.String() == string(text) {
			*d = read
			return nil
		}
	}
	return fmt.Errorf("%s is not a valid sha256: it needs 64 of 0-9 a-f", printable.Quote(string(text), 2*Size))
}

// Writer writes to the next writer, and hashes the bytes that it accepted.
type Writer struct {
	next io.Writer
	hash hash.Hash
	n    int64
}

// NewWriter returns a [Writer] in front of next.
func NewWriter(next io.Writer) *Writer {
	return &Writer{next: next, hash: sha256.New()}
}

func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.next.Write(p)
	w.hash.Write(p[:n])
	w.n += int64(n)
	return n, err
}

// Sum returns the digest and the number of the bytes written so far.
func (w *Writer) Sum() (Digest, int64) {
	return Digest(w.hash.Sum(nil)), w.n
}

// Size returns the number of bytes written so far.
func (w *Writer) Size() int64 { return w.n }

// HashState returns the state of the hash, for [ResumeWriter].
func (w *Writer) HashState() []byte {
	b, err := w.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // crypto/sha256 returns no error
	}
	return b
}

// ResumeWriter returns a [Writer] that continues after n bytes from a state. It returns an error if
// the state is not valid.
func ResumeWriter(next io.Writer, n int64, state []byte) (*Writer, error) {
	w := NewWriter(next)
	w.n = n
	if err := w.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("go on with a sha256: %w", err)
	}
	return w, nil
}
