package digest

// Short is the first half of a [Digest]: enough to tell the states of one tree apart, and
// short enough to fit with a digest into an inode of ext4.
type Short [16]byte

// Short returns the first half of d.
func (d Digest) Short() Short { return Short(d[:len(Short{})]) }
