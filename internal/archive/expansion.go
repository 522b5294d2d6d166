package archive

import (
	"errors"
	"fmt"
	"io"
)

// MaxRatio is how many times its size an archive may decode to before it counts as
// expensive. Telemetry decodes to 10 to 50 times its size, zeros to 30,000 times.
const MaxRatio = 128

// minStored is what the smallest archive takes on a disk. A ratio to fewer bytes would
// say nothing about the cost per stored byte.
const minStored = 4 << 10

// ErrExpands says that decoding stopped before the end of an archive, because more
// came out than its reader was ready to decode.
var ErrExpands = fmt.Errorf("it decodes to more than %d times its size", MaxRatio)

// ExpansionLimit returns how many bytes an archive of size bytes may decode to without
// being expensive.
func ExpansionLimit(size int64) int64 { return MaxRatio * max(size, minStored) }

// VerifyUpTo is [Verify] that decodes at most limit bytes. It returns an error wrapping
// [ErrExpands] if there are more, and the archive may be good or bad then.
func VerifyUpTo(r io.Reader, limit int64) error {
	limit = min(limit, maxContent)
	for _, err := range read(r, limit) {
		if errors.Is(err, errLimit) && limit < maxContent {
			return fmt.Errorf("%w: %w", ErrExpands, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
