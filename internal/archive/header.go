package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"strconv"
	"time"
)

// block is the unit of a tar stream, and trailer is what ends one: two blocks of zeros.
const (
	tarBlock   = 512
	tarTrailer = 2 * tarBlock
)

// zeros are what a content is filled up with to a block, and the trailer.
var zeros [tarTrailer]byte

// tarPadding returns how many zeros follow a content of so many bytes.
func tarPadding(size int64) int64 { return -size & (tarBlock - 1) }

// writeHeader appends the header blocks of h to b. [tar.Writer] takes the first instant
// of the year 1, which is the zero [time.Time], for no time at all, and writes 1970: that
// one is written as the second after it, and corrected.
func writeHeader(b *bytes.Buffer, h *tar.Header) error {
	first := h.ModTime.IsZero()
	if first {
		h.ModTime = h.ModTime.Add(time.Second)
	}
	start := b.Len()
	if err := tar.NewWriter(b).WriteHeader(h); err != nil {
		return err
	}
	if first {
		return writeNegativeTime(b.Bytes()[start:], h.ModTime.Unix())
	}
	return nil
}

// writeNegativeTime takes a second off the mtime of a header that begins with its PAX records: a
// block, the records in whole blocks, and the block of the entry itself.
func writeNegativeTime(header []byte, sec int64) error {
	const key = "mtime="
	was := key + strconv.FormatInt(sec, 10) + "\n"
	records := header[tarBlock : len(header)-tarBlock]
	for len(records) > 0 {
		digits, _, _ := bytes.Cut(records, []byte{' '})
		size, err := strconv.Atoi(string(digits))
		if err != nil || size <= len(digits) || size > len(records) {
			break // the padding, if nothing is wrong
		}
		if record := records[len(digits)+1 : size]; string(record) == was {
			copy(record, key+strconv.FormatInt(sec-1, 10)+"\n") // as many digits
			return nil
		}
		records = records[size:]
	}
	return errors.New("no record of the time in the header of a tar entry")
}
