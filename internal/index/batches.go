package index

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// An index that was in a bucket has a file beside it that says where its batches end there. Hosts remember
// the number of a batch and its digest, and may come back after the store has moved to a disk. The file
// never changes: rows that were appended since are in no batch.

// BatchesName returns the name of the file beside an index called name.
func BatchesName(name string) string { return baseName(name) + ".batches" }

// endBytes is the size of one number in the file, and maxBatch the maximum size of a batch.
const (
	endBytes      = 8
	maxBatchBytes = 1 << 20
)

// EncodeBatchEnds returns the content of the file.
func EncodeBatchEnds(ends []int64) []byte {
	b := make([]byte, 0, endBytes*len(ends))
	for _, end := range ends {
		b = binary.BigEndian.AppendUint64(b, uint64(end))
	}
	return b
}

// ParseBatchEnds parses the content of the file.
func ParseBatchEnds(b []byte) ([]int64, error) {
	ends := make([]int64, 0, len(b)/endBytes)
	last := int64(0)
	for ; len(b) >= endBytes; b = b[endBytes:] {
		end := int64(binary.BigEndian.Uint64(b))
		if end <= last || end-last > maxBatchBytes {
			return nil, fmt.Errorf("batch %d is not valid", len(ends)+1)
		}
		ends, last = append(ends, end), end
	}
	if len(b) > 0 {
		return nil, errors.New("it ends within a number")
	}
	return ends, nil
}

// BatchTail is [Log.TailHash] for a host that knows the index up to batch n of a bucket. It returns "" if
// the index was in no bucket or had fewer batches there.
func (l *Log) BatchTail(n int64) (string, error) {
	if n < 1 || n > 1<<40 {
		return "", nil
	}
	f, err := l.w.dir.Open(BatchesName(l.w.name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 2*endBytes)
	before := b // the end of the batch before, which is 0 for the first one
	if n == 1 {
		before = b[endBytes:]
	}
	_, err = f.ReadAt(before, max(0, n-2)*endBytes)
	if errors.Is(err, io.EOF) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	start, end := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[endBytes:]))
	if start < 0 || end <= start || end-start > maxBatchBytes || end > l.DurableBytes() {
		return "", nil
	}
	text := make([]byte, end-start)
	if _, err := l.w.log.ReadAt(text, start); err != nil {
		return "", fmt.Errorf("read the index at %d: %w", start, err)
	}
	return FormatBatchTail(n, sha256.Sum256(text)), nil
}

// tailSum is how many bytes of a digest a tail has.
const tailSum = 16

// FormatBatchTail returns what identifies an index in a bucket up to batch n, which has a digest.
func FormatBatchTail(n int64, digest [sha256.Size]byte) string {
	return fmt.Sprintf("b%d-%s", n, hex.EncodeToString(digest[:tailSum]))
}

// ParseBatchTail returns the number of the batch in a tail.
func ParseBatchTail(tail string) (int64, bool) {
	text, _, cut := strings.Cut(strings.TrimPrefix(tail, "b"), "-")
	n, err := strconv.ParseInt(text, 10, 64)
	return n, cut && err == nil && n > 0 && strings.HasPrefix(tail, "b")
}
