package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"cis490/internal/episode"
)

// SearchResult is what a search of the index found.
type SearchResult struct {
	rows map[episode.Key]Row
	size int64 // of the index that was searched
}

// LastRow returns the last row of key, or false if there is none.
func (f SearchResult) LastRow(key episode.Key) (Row, bool) {
	row, found := f.rows[key]
	return row, found
}

// FindRow is [Log.FindRow] for a process that does not append. It searches the first size bytes of
// an index to which another process may append.
func FindRow(ctx context.Context, r io.ReaderAt, size int64, key episode.Key) (Row, bool, error) {
	found, err := findAll(ctx, r, size, []episode.Key{key})
	row, ok := found.LastRow(key)
	return row, ok, err
}

// maxPrefilter is the maximum number of names for which each line is searched before it is parsed.
// Parsing costs about ten times as much as one such search.
const maxPrefilter = 8

// findAll searches the first size bytes of an index backward, until all keys are found.
func findAll(ctx context.Context, r io.ReaderAt, size int64, keys []episode.Key) (SearchResult, error) {
	found := SearchResult{rows: make(map[episode.Key]Row), size: size}
	wanted := make(map[episode.Key]bool)
	for _, key := range keys {
		wanted[key] = true
	}
	for l, err := range linesBackward(r, size, 0) {
		if len(wanted) == 0 {
			break
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return SearchResult{}, fmt.Errorf("search the index for %d episodes: %w", len(keys), err)
		}
		if !mayMatch(l.text, keys) {
			continue
		}
		if row, err := l.parseRow(); err == nil && wanted[row.Key] {
			delete(wanted, row.Key)
			found.rows[row.Key] = row
		}
	}
	return found, nil
}

// mayMatch reports whether a line may be a row of one of keys. Another writer may have
// escaped characters that need no escape.
func mayMatch(line []byte, keys []episode.Key) bool {
	return len(keys) > maxPrefilter || bytes.ContainsRune(line, '\\') ||
		slices.ContainsFunc(keys, func(key episode.Key) bool { return bytes.Contains(line, []byte(key.Name)) })
}
