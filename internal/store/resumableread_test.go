package store_test

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/device"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// meteredReader counts the bytes that a disk gives, and calls stop once they are more than
// limit.
type meteredReader struct {
	io.ReadCloser
	read  *int64
	limit int64
	stop  func()
}

func (m *meteredReader) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	*m.read += int64(n)
	if *m.read > m.limit {
		m.stop()
	}
	return n, err
}

func (m *meteredReader) Seek(offset int64, whence int) (int64, error) {
	return m.ReadCloser.(io.Seeker).Seek(offset, whence)
}

const large = 40 << 20

// newInterruptedLab returns a lab with a committed upload of large zeros without a row. A recovery
// has read 36 MiB of it. The last result counts the bytes read from the disk since.
func newInterruptedLab(t *testing.T) (*lab, episode.Key, *int64) {
	t.Helper()
	l, k := newLab(t), key("h", "e")
	l.commitWithoutRow(k, string(make([]byte, large)))
	ctx, cancel := context.WithCancel(t.Context())
	read := new(int64)
	limit, stop := int64(36<<20), cancel
	l.Uncached = func(d *durable.Dir, name string) (io.ReadCloser, error) {
		f, err := d.OpenUncached(name)
		return &meteredReader{f, read, limit, stop}, err
	}
	for st, err := range l.AllStaged() {
		fixture.Must(t, err)
		if _, _, err := st.Linked(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("it was not interrupted: %v", err)
		}
	}
	*read, limit, stop = 0, 1<<40, func() {}
	return l, k, read
}

func TestInterruptedRecoveryContinues(t *testing.T) {
	l, k, read := newInterruptedLab(t)
	for st, err := range l.AllStaged() {
		fixture.Must(t, err)
		o, published, err := st.Linked(t.Context(), nil)
		if !published || err != nil || o.Size != large {
			t.Errorf("%+v, %v, %v", o, published, err)
		}
		if *read > 9<<20 {
			t.Errorf("read %d bytes, and 8 MiB were left", *read)
		}
	}
	o, err := l.Stat(k)
	fixture.Must(t, err)
	fixture.Must(t, l.MarkIndexed(o))
	if n, err := unix.Getxattr(l.storedPath(k), "user.cis490.recovery", nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a settled file carries the note: %d bytes, %v", n, err)
	}
}

// What a disk returned before power loss may be gone.
func TestRecoveryReadsAllAfterAReboot(t *testing.T) {
	l, _, read := newInterruptedLab(t)
	l.Volumes.Session = device.ID{1}
	for st, err := range l.AllStaged() {
		fixture.Must(t, err)
		if _, published, err := st.Linked(t.Context(), nil); !published || err != nil || *read != large {
			t.Errorf("read %d bytes, %v, %v", *read, published, err)
		}
	}
}

// A wrong reading may be in the part that was recorded: the second one reads everything.
func TestSecondLookOfRecoveryReadsAll(t *testing.T) {
	l, k, read := newInterruptedLab(t)
	f, err := os.OpenFile(l.storedPath(k), os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = f.WriteAt([]byte{1}, large-1)
	fixture.Must(t, errors.Join(err, f.Close()))
	for st, err := range l.AllStaged() {
		fixture.Must(t, err)
		if _, _, err := st.Linked(t.Context(), nil); !errors.Is(err, store.ErrCorrupt) || *read > 9<<20 {
			t.Errorf("first look: %v after %d bytes", err, *read)
		}
		*read = 0
		if _, _, err := st.Linked(t.Context(), nil); !errors.Is(err, store.ErrCorrupt) || *read != large {
			t.Errorf("second look: %v after %d bytes", err, *read)
		}
	}
}
