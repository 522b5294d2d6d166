// Package progress shows the progress of a command on a terminal: one line for the whole, and one for
// each of the first active transfers. The command never waits for it: the [Display] polls a snapshot
// a few times per second.
//
// Invariant: the rows of progress are the last lines on the terminal, and other lines are printed
// whole above them. Without a terminal nothing is shown. Names are printable ASCII, and no row is
// wider than the terminal.
package progress

import "sync/atomic"

// Status is a snapshot of the progress of a command. A total of 0 is unknown.
type Status struct {
	What       string // what is counted, such as "reading archives"
	Items      int64  // done so far
	TotalItems int64
	Bytes      int64 // done so far
	TotalBytes int64
	// Moved is the number of bytes that were read or sent since the start. Unlike Bytes, it
	// does not jump when an interrupted upload resumes.
	Moved int64
	// Growing means that TotalBytes does not include all items yet.
	Growing   bool
	Transfers []Transfer // the active ones, in the order of their starts
}

// Transfer is a part of the work that has a row of its own.
type Transfer struct {
	Name  string
	State string // such as "sending"
	Bytes int64  // done so far
	Size  int64  // 0 if unknown
	Moved int64  // see [Status]
}

// Counter counts the progress of a command. Its methods are safe for concurrent use.
type Counter struct {
	items, totalItems, bytes, totalBytes atomic.Int64
}

// AddItem counts an item that is done.
func (c *Counter) AddItem() { c.items.Add(1) }

// SetItems sets how many items are done.
func (c *Counter) SetItems(n int64) { c.items.Store(n) }

// AddBytes counts n bytes that were read.
func (c *Counter) AddBytes(n int) { c.bytes.Add(int64(n)) }

// SetTotal sets the totals. 0 means unknown.
func (c *Counter) SetTotal(items, bytes int64) {
	c.totalItems.Store(items)
	c.totalBytes.Store(bytes)
}

// Status returns the counts so far.
func (c *Counter) Status(what string) Status {
	n := c.bytes.Load()
	return Status{
		What: what, Items: c.items.Load(), TotalItems: c.totalItems.Load(),
		Bytes: n, TotalBytes: c.totalBytes.Load(), Moved: n,
	}
}
