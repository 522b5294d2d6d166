// Package digest names bytes by their SHA-256. Its text form is 64 lower-case
// hex digits, everywhere: in JSON, logs, file attributes and on the command
// line. Only package wire writes it otherwise, where RFC 9530 says so.
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

// A Digest is the SHA-256 of some bytes. The zero Digest is that of no bytes
// that anybody has seen, and stands for "not known".
type Digest [Size]byte

// Parse reads the text form. Upper-case digits are not accepted: one digest
// has one spelling.
func Parse(s string) (Digest, error) {
	var d Digest
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return Digest{}, err
	}
	return d, nil
}

// Of returns the digest of what r yields and how many bytes that was.
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

// IsZero reports whether d is not known.
func (d Digest) IsZero() bool { return d == Digest{} }

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the text form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text form.
func (d *Digest) UnmarshalText(text []byte) error {
	var read Digest
	if len(text) == hex.EncodedLen(Size) {
		if _, err := hex.Decode(read[:], text); err == nil && read.String() == string(text) {
			*d = read
			return nil
		}
	}
	return fmt.Errorf("%s is no sha256: it needs 64 of 0-9 a-f", printable.Quote(string(text), 2*Size))
}

// A Writer passes bytes on and hashes those that the next writer took.
type Writer struct {
	next io.Writer
	hash hash.Hash
	n    int64
}

// NewWriter returns a [Writer] that passes on to next.
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

// Size returns the number of the bytes written so far.
func (w *Writer) Size() int64 { return w.n }

// State returns what [ResumeWriter] needs to go on behind the bytes that were
// written so far.
func (w *Writer) State() []byte {
	b, err := w.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // that of crypto/sha256 knows no error
	}
	return b
}

// ResumeWriter returns a [Writer] that goes on where one had come to: at n bytes,
// with a state. It returns an error if that is no state.
func ResumeWriter(next io.Writer, n int64, state []byte) (*Writer, error) {
	w := NewWriter(next)
	w.n = n
	if err := w.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("go on with a sha256: %w", err)
	}
	return w, nil
}
