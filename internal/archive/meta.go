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

// A MetaReader looks into archives for their meta.json. It keeps its decoder and
// its buffers, so that a small archive costs little; it must not be used from two
// goroutines at once.
type MetaReader struct {
	s *tarStream
}

// ReadMeta is [MetaReader.Read] for one archive.
func ReadMeta(r io.Reader, name episode.Name) (episode.Meta, error) {
	var m MetaReader
	defer m.Close()
	return m.Read(r, name)
}

// Close gives the decoder up.
func (m *MetaReader) Close() {
	if m.s != nil {
		m.s.close()
	}
}

// Read returns what the archive's <name>/meta.json says. An archive that has none
// among its first entries gives the zero Meta and no error; one that does not
// decode so far, or a meta.json that is not one, gives an error. It reads and
// decodes at most a few MiB, whatever the archive holds.
func (m *MetaReader) Read(r io.Reader, name episode.Name) (episode.Meta, error) {
	if err := m.open(io.LimitReader(r, metaInput)); err != nil {
		return episode.Meta{}, err
	}
	s, want := m.s, string(name)+"/"+episode.MetaFile
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

func (m *MetaReader) open(r io.Reader) error {
	if m.s != nil {
		return m.s.reset(r, metaOutput)
	}
	var err error
	m.s, err = openStream(r, metaOutput)
	return err
}
