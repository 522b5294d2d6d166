package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"strconv"
	"time"
)

// tarBlock is the unit of a tar stream. tarTrailer, two blocks of zeros, ends it.
const (
	tarBlock   = 512
	tarTrailer = 2 * tarBlock
)

// zeros pad a content to a block, and are the trailer.
var zeros [tarTrailer]byte

// tarPadding returns how many zeros follow a content of size bytes.
func tarPadding(size int64) int64 { return -size & (tarBlock - 1) }

// writeHeader appends the header blocks of h to b. [tar.Writer] takes the zero [time.Time], the
// first instant of the year 1, for no time and writes 1970. Therefore that time is written as one
// second later, and corrected.
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

// writeNegativeTime subtracts a second from the mtime in a header that begins with PAX records: a
// block, the records in whole blocks, and the block of the entry.
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
			copy(record, key+strconv.FormatInt(sec-1, 10)+"\n") // has as many digits
			return nil
		}
		records = records[size:]
	}
	return errors.New("no record of the time in the header of a tar entry")
}
