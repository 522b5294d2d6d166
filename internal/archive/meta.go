package archive

import (
	"errors"
	"io"

	"cis490/internal/episode"
)

// Limits of the search for meta.json. Our archives have it first. Those of the previous program
// have it after files that sort before it.
const (
	metaEntries = 64
	metaWithin  = 1 << 20
	metaOutput  = metaWithin + episode.MaxMeta + 1
	metaInput   = 2 * metaOutput // blocks may be empty, so the output does not bound their number
)

// MetaReader reads meta.json out of archives. It reuses its decoder and buffers, so that small
// archives are cheap. It must not be used concurrently.
type MetaReader struct {
	stream *tarStream
}

// ReadMeta is [MetaReader.Read] for one archive.
func ReadMeta(r io.Reader, name episode.Name) (episode.Meta, error) {
	var m MetaReader
	defer m.Close()
	return m.Read(r, name)
}

// Close releases the decoder.
func (m *MetaReader) Close() {
	if m.stream != nil {
		m.stream.close()
	}
}

// Read returns the contents of <name>/meta.json in an archive. It returns the zero Meta if
// meta.json is not among the first entries, and an error if the archive does not decode that far or
// meta.json is not valid. It reads and decodes at most a few MiB.
func (m *MetaReader) Read(r io.Reader, name episode.Name) (episode.Meta, error) {
	if err := m.open(io.LimitReader(r, metaInput)); err != nil {
		return episode.Meta{}, err
	}
	s, want := m.stream, string(name)+"/"+episode.MetaFile
	for range metaEntries {
		m, err := s.nextMember()
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
	if m.stream != nil {
		return m.stream.resetTo(r, metaOutput)
	}
	var err error
	m.stream, err = openStream(r, metaOutput)
	return err
}
