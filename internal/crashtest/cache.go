package crashtest

import (
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// sector is the smallest unit that a disk writes.
const sector = 512

// cache is a disk with a volatile write cache: every read sees what was written, and only a
// flush moves it to the medium. When the power fails, each write since the last flush may have
// arrived, or not, or in part, independently of those before and after it.
type cache struct {
	medium  *os.File
	size    int64
	grain   int64            // the unit that arrives as a whole or not at all
	pending []write          // since the last flush, in order
	latest  map[int64][]byte // sectors that the medium does not have, by their number
	cut     bool             // the power has failed
}

// write is one write of whole sectors.
type write struct {
	at   int64
	data []byte
}

func newCache(medium *os.File, grain int64) (*cache, error) {
	st, err := medium.Stat()
	if err != nil {
		return nil, err
	}
	return &cache{medium: medium, size: st.Size(), grain: grain, latest: make(map[int64][]byte)}, nil
}

// write adds a write of data, which it keeps.
func (c *cache) write(at int64, data []byte) error {
	if c.cut {
		return unix.EIO
	}
	if at%sector != 0 || len(data)%sector != 0 || at+int64(len(data)) > c.size {
		return fmt.Errorf("a write of %d bytes at %d", len(data), at)
	}
	for i := 0; i < len(data); i += sector {
		c.latest[at/sector+int64(i/sector)] = data[i : i+sector]
	}
	c.pending = append(c.pending, write{at, data})
	return nil
}

// read fills b, to the end of the disk.
func (c *cache) read(at int64, b []byte) (int, error) {
	b = b[:max(0, min(int64(len(b)), c.size-at))]
	if _, err := c.medium.ReadAt(b, at); err != nil {
		return 0, err
	}
	for n := at / sector; n*sector < at+int64(len(b)); n++ {
		if s, ok := c.latest[n]; ok {
			from := max(at, n*sector)
			copy(b[from-at:], s[from-n*sector:])
		}
	}
	return len(b), nil
}

// flush moves everything that was written to the medium.
func (c *cache) flush() error {
	if c.cut {
		return unix.EIO
	}
	for _, w := range c.pending {
		if _, err := c.medium.WriteAt(w.data, w.at); err != nil {
			return err
		}
	}
	c.pending = nil
	clear(c.latest)
	return nil
}

// Fates counts what happened to the writes that were in a cache when the power failed.
type Fates struct{ Kept, Dropped, Torn int }

// Add adds the counts of other.
func (f *Fates) Add(more Fates) {
	f.Kept += more.Kept
	f.Dropped += more.Dropped
	f.Torn += more.Torn
}

// takePower decides at random what happens to each write in the cache. From then on the medium
// stays as it is, and no write or flush is acknowledged. Reads continue to work, so that the
// file system can be unmounted.
func (c *cache) takePower(seed uint64) (Fates, error) {
	random := rand.New(rand.NewPCG(seed, 0))
	// A cache may have written back everything, nothing, or any part.
	keep, tear := []float64{0, 1, random.Float64()}[random.IntN(3)], []float64{0, 0.5}[random.IntN(2)]
	var f Fates
	for _, w := range c.pending {
		share := 1.0 // of its grains
		switch {
		case random.Float64() < tear:
			share = random.Float64()
			f.Torn++
		case random.Float64() < keep:
			f.Kept++
		default:
			f.Dropped++
			continue
		}
		if err := c.writePart(w, func() bool { return random.Float64() < share }); err != nil {
			return f, err
		}
	}
	c.cut, c.pending = true, nil
	return f, nil
}

// writePart copies randomly chosen grains of a write to the medium.
func (c *cache) writePart(w write, drawn func() bool) error {
	for data, at := w.data, w.at; len(data) > 0; {
		n := min(int64(len(data)), c.grain-at%c.grain)
		if drawn() {
			if _, err := c.medium.WriteAt(data[:n], at); err != nil {
				return err
			}
		}
		data, at = data[n:], at+n
	}
	return nil
}
