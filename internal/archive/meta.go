package archive

import (
	"errors"
	"io"

	"cis490/internal/episode"
)

// Where ReadMeta looks for meta.json: our own archives have it first, those of
// the program before us behind files that sort before it.
const (
	metaEntries = 64
	metaWithin  = 1 << 20
	metaOutput  = metaWithin + episode.MaxMeta + 1
	metaInput   = 2 * metaOutput // blocks may be empty: no output bounds their number
)

// ReadMeta returns what the archive's <name>/meta.json says. An archive that
// has none among its first entries gives the zero Meta and no error; one that
// does not decode so far, or a meta.json that is not one, gives an error. It
// reads and decodes at most a few MiB, whatever the archive holds.
func ReadMeta(r io.Reader, name episode.Name) (episode.Meta, error) {
	s, err := openStream(io.LimitReader(r, metaInput), metaOutput)
	if err != nil {
		return episode.Meta{}, err
	}
	defer s.close()
	want := string(name) + "/" + episode.MetaFile
	for range metaEntries {
		m, err := s.next()
		if err == io.EOF || errors.Is(err, errLimit) || err == nil && s.out.n > metaWithin {
			return episode.Meta{}, nil
		}
		if err != nil {
			return episode.Meta{}, err
		}
		if m.Name == want && m.Mode.IsRegular() {
			return episode.ReadMeta(m.Content)
		}
	}
	return episode.Meta{}, nil
}
