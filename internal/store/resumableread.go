package store

import (
	"encoding/binary"
	"io"
	"os"

	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/durable"
)

// readPositionAttr is the attribute that has a [readPosition].
const readPositionAttr = "recovery"

// readPositionInterval is the number of bytes that recovery reads between two saves of its
// position. It must be a multiple of [durable.SeekAlign].
const readPositionInterval = 16 << 20

// readPosition is the position of recovery in the file of a committed upload. It counts until
// the machine is booted again: after a power loss, a disk may have lost what it returned
// before from its own cache.
type readPosition struct {
	digest  digest.Digest // that the file should have
	file    device.ID     // [device.Identity.OnDisk]
	session device.ID     // [device.Volumes.Session]
	offset  int64
	state   []byte // of the sha256 of the bytes before offset
}

const readPositionVersion = 1

func (c readPosition) encode() []byte {
	b := append([]byte{readPositionVersion}, c.digest[:]...)
	b = append(append(b, c.file[:]...), c.session[:]...)
	return append(binary.BigEndian.AppendUint64(b, uint64(c.offset)), c.state...)
}

func parseReadPosition(b []byte) (readPosition, bool) {
	const id = len(device.ID{})
	const fixed = 1 + digest.Size + 2*id + 8
	if len(b) <= fixed || b[0] != readPositionVersion {
		return readPosition{}, false
	}
	rest := b[1+digest.Size:]
	c := readPosition{
		digest: digest.Digest(b[1:]), file: device.ID(rest), session: device.ID(rest[id:]),
		offset: int64(binary.BigEndian.Uint64(rest[2*id:])), state: b[fixed:],
	}
	return c, c.offset > 0 && c.offset%durable.SeekAlign == 0
}

// resumableRead reads a file from the position of an earlier recovery on, and saves its own.
type resumableRead struct {
	f         *os.File // has the attribute
	lastSaved readPosition
	err       error // of the last save; a reader that returned it would look like a broken disk
}

// newResumableRead returns the state to continue the reading of the open file f of o, or nil if
// the digest of o is not known.
func (r *Reader) newResumableRead(f *os.File, o Object) (*resumableRead, error) {
	if o.Digest.IsZero() {
		return nil, nil
	}
	id, err := r.Volumes.Identify(f)
	if err != nil {
		return nil, err
	}
	none := readPosition{digest: o.Digest, file: id.OnDisk, session: r.Volumes.Session}
	b, err := readAttr(f, readPositionAttr)
	if err != nil {
		return nil, err
	}
	c, ok := parseReadPosition(b)
	if !ok || c.digest != none.digest || c.file != none.file || c.session != none.session || c.offset > o.Size {
		c = none
	}
	return &resumableRead{f: f, lastSaved: c}, nil
}

// startHash returns the hash to write to, and seeks the reader to the saved position. A reader
// that cannot seek starts at the first byte.
func (c *resumableRead) startHash(from io.Reader) *digest.Writer {
	s, seeks := from.(io.Seeker)
	if c.lastSaved.offset > 0 && seeks {
		w, err := digest.ResumeWriter(io.Discard, c.lastSaved.offset, c.lastSaved.state)
		if err == nil {
			if _, err = s.Seek(c.lastSaved.offset, io.SeekStart); err == nil {
				return w
			}
		}
	}
	c.lastSaved.offset = 0
	return digest.NewWriter(io.Discard)
}

// savePositions returns a reader that saves the position of w, which hashes what is read.
func (c *resumableRead) savePositions(from io.Reader, w *digest.Writer) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if n := w.Size(); c.err == nil && n-c.lastSaved.offset >= readPositionInterval && n%durable.SeekAlign == 0 {
			c.lastSaved.offset, c.lastSaved.state = n, w.HashState()
			c.err = setAttrBestEffort(c.f, readPositionAttr, c.lastSaved.encode())
		}
		return from.Read(p)
	})
}

// removePosition removes the saved position, so that the next reading starts at the first byte.
func (c *resumableRead) removePosition() error { return durable.RemoveAttr(c.f, readPositionAttr) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
