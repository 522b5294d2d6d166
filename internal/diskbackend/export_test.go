package diskbackend

import "cis490/internal/episode"

// LockKey holds the lock of an archive's key until unlock is called.
func (b *Backend) LockKey(key episode.Key) (unlock func()) { return b.keyLocks.Lock(key) }
