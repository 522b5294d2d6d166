package archive

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// slow writes to a buffer, taking its time, until it has had enough.
type slow struct {
	bytes.Buffer
	most int
}

var errEnough = errors.New("enough")

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	if s.Len()+len(p) > s.most {
		return 0, errEnough
	}
	return s.Buffer.Write(p)
}

// TestOverlappedWritesEveryByteInOrder, whatever the pieces.
func TestOverlappedWritesEveryByteInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 40 * chunk} {
			want := make([]byte, size)
			rand.NewChaCha8([32]byte{}).Read(want)
			w := &slow{most: size}
			o := overlap(w)
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(3*chunk))
				if k, err := o.Write(rest[:n]); k != n || err != nil {
					t.Fatalf("%d of %d: %v", k, n, err)
				}
				rest = rest[n:]
			}
			if err := errors.Join(o.Close(), o.Close()); err != nil || !bytes.Equal(w.Bytes(), want) {
				t.Errorf("%d bytes came as %d, or as others: %v", size, w.Len(), err)
			}
		}
	})
}

// TestOverlappedTellsOfTheError: who writes learns of it soon, and who closes always.
func TestOverlappedTellsOfTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{most: 10 * chunk}
		o := overlap(w)
		var err error
		n := 0
		for ; n < 100 && err == nil; n++ {
			_, err = o.Write(make([]byte, chunk))
		}
		if !errors.Is(err, errEnough) || n > 10+ahead+3 {
			t.Errorf("after %d pieces: %v", n, err)
		}
		if err := o.Close(); !errors.Is(err, errEnough) {
			t.Errorf("closed: %v", err)
		}
		// The last bytes are the ones that do not fit.
		o = overlap(&slow{most: 1})
		_, err = o.Write(make([]byte, 2))
		if err := errors.Join(err, o.Close()); !errors.Is(err, errEnough) {
			t.Errorf("what was only buffered: %v", err)
		}
	})
}
