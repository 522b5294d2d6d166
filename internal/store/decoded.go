package store

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// decodedAttr names the attribute that [Decoded] packs.
const decodedAttr = "decoded"

// Decoded is what decoding an expensive archive came to. It follows from the bytes, so
// it holds on any disk for any file that has the digest, and need not be computed again.
type Decoded struct {
	Digest      digest.Digest // of the archive
	Contents    digest.Digest // as [Reading.Check] returned it
	Size        int64         // bytes that were decoded
	Undecodable bool          // Check had something against the bytes
}

// decodedVersion ends the attribute. It must change with what [Reading.Check] accepts
// or computes: an older outcome then counts for nothing.
const decodedVersion = 1

const decodedSize = 2*digest.Size + 8 + 2

func (d Decoded) encode() []byte {
	b := append(d.Digest[:], d.Contents[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Size))
	if d.Undecodable {
		return append(b, 1, decodedVersion)
	}
	return append(b, 0, decodedVersion)
}

func parseDecoded(b []byte) (Decoded, bool) {
	if len(b) != decodedSize || b[decodedSize-1] != decodedVersion {
		return Decoded{}, false
	}
	return Decoded{
		Digest:      digest.Digest(b),
		Contents:    digest.Digest(b[digest.Size:]),
		Size:        int64(binary.BigEndian.Uint64(b[2*digest.Size:])),
		Undecodable: b[decodedSize-2] != 0,
	}, true
}

// errDecodedBefore is what is against an archive that could not be decoded before.
var errDecodedBefore = errors.New("an earlier reading could not decode these bytes, and they are expensive to decode")

// check stands in for [Reading.Check]. It reads nothing: the bytes have the digest, or
// the reading finds them damaged.
func (d Decoded) check(io.Reader) (digest.Digest, error) {
	if d.Undecodable {
		return digest.Digest{}, errDecodedBefore
	}
	return d.Contents, nil
}

// readDecoded returns what is noted at an open file for an archive with the digest want,
// or zero.
func readDecoded(f *os.File, want digest.Digest) (Decoded, error) {
	if want.IsZero() {
		return Decoded{}, nil
	}
	b, err := durable.Attr(f, decodedAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		return Decoded{}, nil
	}
	if err != nil {
		return Decoded{}, err
	}
	if d, ok := parseDecoded(b); ok && d.Digest == want {
		return d, nil
	}
	return Decoded{}, nil
}

// DecodedBefore returns what decoding the bytes with the digest want came to, if they
// are expensive and an earlier [Reader.ReadBack] noted it at the file under key, and
// zero otherwise. It says nothing about the bytes that the file has now.
func (r *Reader) DecodedBefore(key episode.Key, want digest.Digest) (Decoded, error) {
	f, err := r.Open(key)
	if err != nil {
		return Decoded{}, readError(err)
	}
	defer f.Close()
	d, err := readDecoded(f, want)
	return d, readError(err)
}
