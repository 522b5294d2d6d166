// Package fsck compares the index with the stored archives. [Verify] reports each
// difference and changes nothing. [Backfill] appends the rows that are missing.
//
// Both may run beside a live receiver, read all of the index and list all of the store, in
// memory that does not grow with either.
//
// Invariant: no key gets a second row, and no archive gets a row that its bytes do not
// prove.
package fsck

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
)

// ErrNoEpisodes says that the named directory of the store does not exist.
var ErrNoEpisodes = errors.New("no episodes dir")

// errCorrupt says that a stored file was read, and its bytes are wrong.
var errCorrupt = errors.New("is damaged")

// DigestError reports that a stored file does not have the expected digest.
type DigestError struct {
	Got, Want digest.Digest
	text      string
}

func (e *DigestError) Error() string { return errCorrupt.Error() + ": " + e.text }

// Unwrap returns the error that all errors about damaged files wrap.
func (e *DigestError) Unwrap() error { return errCorrupt }

// Options say what [Backfill] and [Verify] work on.
type Options struct {
	EpisodesRoot string       // the directory that has one directory per host
	Index        string       // the path of index.jsonl
	Host         episode.Name // only this host's episodes; empty for all

	DryRun bool // Backfill: write nothing, show the first rows
	Deep   bool // Verify: read and decode every archive
	// Present limits Verify to the stored files, for a partial copy of a store: a row
	// without a file is not a finding.
	Present bool

	// Batch is how many stored files are held in memory at a time. The index is read once
	// per batch. 0 means a default that needs about 50 MiB.
	Batch int
	// Bad, unless nil, is called for each file to which Backfill gives no row.
	Bad func(error)
	// Expanding, unless nil, is called for each archive that was not decoded to its end,
	// because it decodes to more than [archive.MaxRatio] times its size.
	Expanding func(episode.Key)
	// BadMeta, unless nil, is called for each archive to which Backfill gives a row without
	// a commit because its meta.json cannot be read.
	BadMeta func(error)
	// Notify, unless nil, is called for what Backfill repairs at the end of the index.
	Notify func(index.TailNotice)
	// Progress, unless nil, is called with the number of bytes of each read of an archive.
	Progress func(bytes int)
	// Total, unless nil, is called once the last batch is listed, with the number of archives that
	// are checked or get a row, and the number of bytes that are read of them.
	Total func(archives, bytes int64)
	// Checked, unless nil, is called after each of those archives.
	Checked func()
}

// indexFile is an index opened for reading. One that does not exist is empty.
type indexFile struct {
	f *os.File // nil if it does not exist
}

func openIndex(path string) (indexFile, error) {
	dir, err := durable.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return indexFile{}, nil
	}
	if err != nil {
		return indexFile{}, err
	}
	defer dir.Close()
	f, err := dir.Open(filepath.Base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return indexFile{}, nil
	}
	return indexFile{f}, err
}

func (i indexFile) ReadAt(p []byte, off int64) (int, error) {
	if i.f == nil {
		return 0, io.EOF
	}
	return i.f.ReadAt(p, off)
}

func (i indexFile) close() {
	if i.f != nil {
		i.f.Close()
	}
}
