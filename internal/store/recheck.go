package store

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/durable"
)

// recheckAttr names the attribute that [recheck] packs.
const recheckAttr = "recovery"

// recheckEvery is how many bytes recovery reads between two notes. It must be a multiple
// of [durable.SeekAlign].
const recheckEvery = 16 << 20

// recheck is how far recovery has read the file of a committed upload back from the disk.
// It counts until the machine is booted again: what a disk gave once, from its own cache
// perhaps, it may have lost after a power cut.
type recheck struct {
	digest  digest.Digest // that the file should have
	file    device.ID     // [device.Identity.OnDisk]
	session device.ID     // [device.Volumes.Session]
	offset  int64
	state   []byte // of the sha256 of the bytes before offset
}

const recheckVersion = 1

func (c recheck) encode() []byte {
	b := append([]byte{recheckVersion}, c.digest[:]...)
	b = append(append(b, c.file[:]...), c.session[:]...)
	return append(binary.BigEndian.AppendUint64(b, uint64(c.offset)), c.state...)
}

func parseRecheck(b []byte) (recheck, bool) {
	const id = len(device.ID{})
	const fixed = 1 + digest.Size + 2*id + 8
	if len(b) <= fixed || b[0] != recheckVersion {
		return recheck{}, false
	}
	rest := b[1+digest.Size:]
	c := recheck{
		digest: digest.Digest(b[1:]), file: device.ID(rest), session: device.ID(rest[id:]),
		offset: int64(binary.BigEndian.Uint64(rest[2*id:])), state: b[fixed:],
	}
	return c, c.offset > 0 && c.offset%durable.SeekAlign == 0
}

// rechecking reads a file from where an earlier recovery has come to, and notes how far
// it comes itself.
type rechecking struct {
	f    *os.File // carries the note
	last recheck
	err  error // of the last note; a reader that returned it would pass for a broken disk
}

// newRechecking returns what goes on with the reading of the open file f of o, or nil if
// the file does not say which digest it should have.
func (r *Reader) newRechecking(f *os.File, o Object) (*rechecking, error) {
	if o.Digest.IsZero() {
		return nil, nil
	}
	id, err := r.Volumes.Identify(f)
	if err != nil {
		return nil, err
	}
	none := recheck{digest: o.Digest, file: id.OnDisk, session: r.Volumes.Session}
	b, err := durable.Attr(f, recheckAttr)
	if err != nil && !errors.Is(err, durable.ErrNoAttr) {
		return nil, err
	}
	c, ok := parseRecheck(b)
	if !ok || c.digest != none.digest || c.file != none.file || c.session != none.session || c.offset > o.Size {
		c = none
	}
	return &rechecking{f: f, last: c}, nil
}

// begin returns the hash to write to, and lets the reader begin where it goes on. A reader
// that cannot, begins at the first byte.
func (c *rechecking) begin(from io.Reader) *digest.Writer {
	s, seeks := from.(io.Seeker)
	if c.last.offset > 0 && seeks {
		w, err := digest.ResumeWriter(io.Discard, c.last.offset, c.last.state)
		if err == nil {
			if _, err = s.Seek(c.last.offset, io.SeekStart); err == nil {
				return w
			}
		}
	}
	c.last.offset = 0
	return digest.NewWriter(io.Discard)
}

// noting passes bytes on that w has hashed, and notes how many.
func (c *rechecking) noting(from io.Reader, w *digest.Writer) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if n := w.Size(); c.err == nil && n-c.last.offset >= recheckEvery && n%durable.SeekAlign == 0 {
			c.last.offset, c.last.state = n, w.State()
			c.err = mark(c.f, recheckAttr, c.last.encode())
		}
		return from.Read(p)
	})
}

// drop has the next reading begin at the first byte: one wrong reading is no proof.
func (c *rechecking) drop() error { return durable.RemoveAttr(c.f, recheckAttr) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
