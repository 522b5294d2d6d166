// Package activity tracks what a receiver has done recently, for its status page: which archives arrived,
// and which uploads were refused because their name is taken.
//
// [Arrivals] reads the index when someone views the page: no upload waits for it, and a receiver without
// viewers does no work for it. The receiver reports refusals to [Conflicts], because they leave no trace on
// the disk.
//
// Invariant: memory is bounded, whatever the number of rows and whatever hosts send. The receiver bases no
// decision on this data.
package activity

import (
	"time"

	"cis490/internal/episode"
)

// Days is the number of UTC days for which arrivals are counted, including today.
const Days = 14

// Limits on what is kept in memory.
const (
	maxHosts      = 4096
	maxRecent     = 20 // arrivals of all hosts
	maxHostRecent = 10 // arrivals of one host
	maxConflicts  = 50
)

// Arrival is one stored archive.
type Arrival struct {
	Key      episode.Key
	At       time.Time
	Size     int64
	Repaired bool // it replaced one that was corrupt or missing
}

// Count is a number of archives and their total size.
type Count struct{ Archives, Bytes int64 }

// addOne adds an archive.
func (c *Count) addOne(size int64) { c.Archives, c.Bytes = c.Archives+1, c.Bytes+size }

// Sum adds up counts.
func Sum(counts []Count) (total Count) {
	for _, c := range counts {
		total.Archives, total.Bytes = total.Archives+c.Archives, total.Bytes+c.Bytes
	}
	return total
}
