package invite

import "time"

// SetReadAt makes the last reading of the directory seem to have been at another time, as a change
// of the clock does.
func (b *Book) SetReadAt(at time.Time) { b.readAt = at }
