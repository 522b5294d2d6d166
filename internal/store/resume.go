package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// progressAttr is the attribute that has a [Progress].
const progressAttr = "upload"

// Progress describes an unfinished upload, so that it can be continued after a restart of the
// receiver without being read.
type Progress struct {
	Digest  digest.Digest // as announced; zero while the upload is open
	Size    int64         // as announced
	Skipped int           // as announced
	Resent  bool          // as announced
	Offset  int64         // bytes that are durable
	State   []byte        // of the sha256 of these ([digest.Writer.HashState])
}

const progressVersion = 1

func (p Progress) encode() []byte {
	b := []byte{progressVersion, 0}
	if p.Resent {
		b[1] = 1
	}
	b = append(b, p.Digest[:]...)
	for _, n := range []int64{p.Size, int64(p.Skipped), p.Offset} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, p.State...)
}

func parseProgress(b []byte) (Progress, bool) {
	const fixed = 2 + digest.Size + 3*8
	if len(b) <= fixed || b[0] != progressVersion {
		return Progress{}, false
	}
	p := Progress{Resent: b[1] == 1, Digest: digest.Digest(b[2:]), State: b[fixed:]}
	rest := b[2+digest.Size:]
	p.Size = int64(binary.BigEndian.Uint64(rest))
	p.Skipped = int(binary.BigEndian.Uint64(rest[8:]))
	p.Offset = int64(binary.BigEndian.Uint64(rest[16:]))
	_, err := digest.ResumeWriter(nil, p.Offset, p.State)
	return p, err == nil && p.Offset >= 0 && (p.Offset <= p.Size || p.Digest.IsZero()) && p.Size >= 0 && p.Skipped >= 0
}

// ContinueUpload continues an upload that was ended by [Upload.Abandon] or by a crash, after the
// bytes that were durable then.
func (s *Store) ContinueUpload(key episode.Key, id string, offset int64) (*Upload, error) {
	dir, err := s.hostDir(s.staging, key.Host)
	if err != nil {
		return nil, err
	}
	f, err := dir.ContinueFile(stagedName(key.Name, id), offset)
	if err != nil {
		return nil, err
	}
	return &Upload{File: f, key: key, store: s, dir: dir, nameUnsynced: offset == 0, hasProgress: true}, nil
}

// Checkpoint makes the received bytes of an upload and its name durable, and then their
// number. On a file system without attributes an unfinished upload is lost with the process.
func (u *Upload) Checkpoint(p Progress) error {
	if u.nameUnsynced {
		if err := u.dir.Sync(); err != nil {
			return err
		}
		u.nameUnsynced = false
	}
	u.hasProgress = true
	err := u.File.Checkpoint(progressAttr, p.encode())
	if errors.Is(err, durable.ErrNoAttr) {
		return nil
	}
	return err
}

// ReadBack reads the bytes of an upload from the disk, past the page cache, and returns
// [ErrCorrupt] if they do not have the digest d. They must be durable.
func (u *Upload) ReadBack(ctx context.Context, d digest.Digest) error {
	got, err := u.store.readArchive(ctx, u.dir, u.Name(), Reading{})
	if err == nil && got.Digest != d {
		err = fmt.Errorf("%s: %w", u.dir.Path(u.Name()), ErrCorrupt)
	}
	return err
}

// RemoveStaged removes the staging file of an upload that is not continued.
func (s *Store) RemoveStaged(key episode.Key, id string) error {
	dir, err := s.hostDir(s.staging, key.Host)
	if err != nil {
		return err
	}
	return dir.Unlink(stagedName(key.Name, id))
}

// ReadProgress returns the progress of an upload that can be continued, its id, and the time of
// its last byte. ok reports whether it can.
func (st Staged) ReadProgress() (p Progress, id string, at time.Time, ok bool, err error) {
	f, err := st.dir.Open(st.name)
	if err != nil {
		return p, "", at, false, readError(err)
	}
	defer f.Close()
	b, err := readAttr(f, progressAttr)
	if err != nil {
		return p, "", at, false, readError(err)
	}
	info, err := f.Stat()
	if err != nil {
		return p, "", at, false, err
	}
	p, ok = parseProgress(b)
	_, id, _ = strings.Cut(st.name, "~")
	return p, id, info.ModTime(), ok && p.Offset <= info.Size(), nil
}

// stagedName returns the name in staging of an upload.
func stagedName(name episode.Name, id string) string { return string(name) + "~" + id }
