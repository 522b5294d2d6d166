package archive

import (
	"errors"
	"fmt"
	"io"
)

// MaxRatio is how many times its size an archive may decode to before it counts as expensive.
// Telemetry decodes to 10 to 50 times its size, zeros to 30,000 times.
const MaxRatio = 128

// minStored is the disk usage of the smallest archive in bytes. A ratio to less would not bound the
// cost per stored byte.
const minStored = 4 << 10

// ErrExpands says that decoding stopped before the end of an archive, because it decodes to more
// than the limit.
var ErrExpands = fmt.Errorf("it decodes to more than %d times its size", MaxRatio)

// ExpansionLimit returns how many bytes an archive of size bytes may decode to.
func ExpansionLimit(size int64) int64 { return MaxRatio * max(size, minStored) }

// VerifyUpTo is [Verify] for at most limit decoded bytes. If there are more it returns an error
// wrapping [ErrExpands], and the archive may be valid or not.
func VerifyUpTo(r io.Reader, limit int64) error {
	limit = min(limit, maxContent)
	for _, err := range readMembers(r, limit) {
		if errors.Is(err, errLimit) && limit < maxContent {
			return fmt.Errorf("%w: %w", ErrExpands, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
