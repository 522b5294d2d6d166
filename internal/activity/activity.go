// Package activity has what a receiver has done lately, for the people who look at its status page: which
// archives arrived, and which uploads were refused because their name is taken.
//
// [Arrivals] reads the index for a viewer, so that no upload waits for it, and a receiver whose page has no
// viewers does nothing. [Conflicts] is told by the receiver, because a refusal leaves no trace on the
// disk.
//
// Invariant: memory is bounded, however many rows there are and whatever hosts send, and nothing
// depends on what is here.
package activity

import (
	"time"

	"cis490/internal/episode"
)

// Days is the number of days, in UTC, of which arrivals are counted. The last one is today.
const Days = 14

// Limits of what is kept.
const (
	maxHosts      = 4096
	maxRecent     = 20 // arrivals of all hosts
	maxHostRecent = 10 // arrivals of one host
	maxConflicts  = 50
)

// Arrival is one archive that was stored.
type Arrival struct {
	Key      episode.Key
	At       time.Time
	Size     int64
	Repaired bool // it replaced one that was corrupt or missing
}

// Count is a number of archives, and their bytes.
type Count struct{ Archives, Bytes int64 }

// addOne counts an archive.
func (c *Count) addOne(size int64) { c.Archives, c.Bytes = c.Archives+1, c.Bytes+size }

// Sum returns the total of some counts.
func Sum(counts []Count) (total Count) {
	for _, c := range counts {
		total.Archives, total.Bytes = total.Archives+c.Archives, total.Bytes+c.Bytes
	}
	return total
}
