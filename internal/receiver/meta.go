package receiver

import (
	"errors"
	"io"

	"cis490/internal/archive"
	"cis490/internal/episode"
)

// maxMetaReaders is the number of decoders for meta.json. Each has a window of its own.
const maxMetaReaders = 2

func newMetaReaders() chan *archive.MetaReader {
	c := make(chan *archive.MetaReader, maxMetaReaders)
	for range maxMetaReaders {
		c <- new(archive.MetaReader)
	}
	return c
}

// readMetaCommit returns the Git commit in an archive's meta.json, or "". An archive without
// meta.json, or one that does not decode, is stored all the same.
func (r *Receiver) readMetaCommit(key episode.Key, from io.Reader) string {
	reader := <-r.metaReaders
	defer func() { r.metaReaders <- reader }()
	meta, err := reader.Read(from, key.Name)
	if err == nil {
		return meta.Commit
	}
	log := r.log.With("host", key.Host, "episode", key.Name, "err", err)
	if _, bad := errors.AsType[*episode.MetaError](err); bad {
		log.Warn("meta.json cannot be read")
	} else {
		log.Debug("no meta.json")
	}
	return ""
}
