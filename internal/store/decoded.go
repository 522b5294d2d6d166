package store

import (
	"errors"
	"io"
	"os"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// decodedAttr is the attribute that has a [decodedRecord].
const decodedAttr = "decoded"

// Decoded is the result of decoding an expensive archive. It depends on the bytes only, so it
// counts on any disk for any file with the digest, and is not computed again.
type Decoded struct {
	Digest      digest.Digest // of the archive
	Contents    digest.Digest // as [Reading.Check] returned it
	Size        int64         // bytes that were decoded
	Undecodable bool          // Check returned an error
}

// decodedRecord is the content of the attribute.
type decodedRecord struct {
	Decoded
	Version uint8 // decodedVersion
}

// decodedVersion must change with what [Reading.Check] accepts or computes: then older results do
// not count.
const decodedVersion = 1

// errDecodedBefore is the error of an archive that could not be decoded before.
var errDecodedBefore = errors.New("an earlier reading could not decode these bytes, and they are expensive to decode")

// checkRemembered takes the place of [Reading.Check]. It reads nothing: if the bytes do not have
// the digest, the reading finds them corrupt anyway.
func (d Decoded) checkRemembered(io.Reader) (digest.Digest, error) {
	if d.Undecodable {
		return digest.Digest{}, errDecodedBefore
	}
	return d.Contents, nil
}

// readDecoded returns the attribute of an open file if it is for the digest want, and zero
// otherwise.
func readDecoded(f *os.File, want digest.Digest) (Decoded, error) {
	if want.IsZero() {
		return Decoded{}, nil
	}
	b, err := readAttr(f, decodedAttr)
	if d, ok := parseRecord[decodedRecord](b); err == nil && ok && d.Version == decodedVersion && d.Digest == want {
		return d.Decoded, nil
	}
	return Decoded{}, err
}

// DecodedBefore returns the result of decoding the bytes with the digest want, or zero. It is
// known if that is expensive, and an earlier [Reader.ReadBack] has recorded it at the file under
// key. The file may have other bytes now.
func (r *Reader) DecodedBefore(key episode.Key, want digest.Digest) (Decoded, error) {
	f, err := r.Open(key)
	if err != nil {
		return Decoded{}, readError(err)
	}
	defer f.Close()
	d, err := readDecoded(f, want)
	return d, readError(err)
}
