package batchlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"cis490/internal/bucket"
)

// A MovedError says that the log is fenced, because the store is elsewhere now. No row can be appended.
type MovedError struct {
	To     string
	CopyID string // of the copy there: another place may have the same name
	// Stores are the ids that the store got from copies that took the place of lost ones, the newest first: see
	// [TakeOver].
	Stores []string
}

func (e *MovedError) Error() string {
	return fmt.Sprintf("the store has moved from this bucket to %s: start the receiver there, and let the hosts reach it", e.To)
}

// fence is the content of the object in the place of the batch after the last one. It has no newline at its
// end, so receivers that do not know fences take it for a corrupt batch, and append nothing either.
type fence struct {
	MovedTo string `json:"moved_to"`
	CopyID  string `json:"copy_id"`
	Store   string `json:"store,omitempty"` // in a takeover: the new id of the store
}

// maxFence is the maximum size of a fence.
const maxFence = 1 << 10

// Fence ends the log after its last batch: whatever receivers still run, none can append a row, so none
// acknowledges an upload that those who have read the log up to here do not know. It returns an error
// wrapping [fs.ErrExist] if there is a batch after last.
func Fence(ctx context.Context, in bucket.Bucket, last int64, to, copyID string) error {
	body, err := json.Marshal(fence{MovedTo: to, CopyID: copyID})
	if err != nil {
		return err
	}
	return in.Create(ctx, Name(last+1), bytes.NewReader(body), int64(len(body)), sha256.Sum256(body))
}

// takeoverName returns the name of the object that says which copy has taken the place of one that was lost.
func takeoverName(lost string) string { return "moved/" + lost + ".json" }

// ErrDeclaredLost says that a copy was declared lost, so another one has the store.
var ErrDeclaredLost = errors.New("this copy was declared lost, and another one has the store: use an empty data_dir")

// TakeOver records that the copy with the id lost, which has the store, is lost, and that the copy with copyID
// takes its place, where the store has a new id. It returns an error wrapping [fs.ErrExist] if a copy has taken it,
// and [ErrDeclaredLost] if the copy with copyID was itself declared lost.
func TakeOver(ctx context.Context, in bucket.Bucket, lost, to, copyID, store string) error {
	_, err := in.Stat(ctx, takeoverName(copyID))
	if err == nil {
		return ErrDeclaredLost
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	body, err := json.Marshal(fence{to, copyID, store})
	if err != nil {
		return err
	}
	return in.Create(ctx, takeoverName(lost), bytes.NewReader(body), int64(len(body)), sha256.Sum256(body))
}

// maxTakeovers ends the search where takeovers form a cycle, which only a stranger who writes to the bucket can make.
const maxTakeovers = 100

// checkFence returns a [*MovedError] if body is a fence. It says where the store is now: of copies that were
// lost, each names the next one.
func checkFence(ctx context.Context, in bucket.Bucket, body []byte) error {
	at := parseFence(body)
	if at == nil {
		return nil
	}
	moved := &MovedError{To: at.MovedTo, CopyID: at.CopyID}
	for range maxTakeovers {
		if moved.CopyID == "" { // before 2026-11-30
			return moved
		}
		name := takeoverName(moved.CopyID)
		body, err := readObject(ctx, in, name, maxFence)
		if errors.Is(err, fs.ErrNotExist) {
			return moved
		}
		if err != nil {
			return err
		}
		at = parseFence(body)
		if at == nil || at.Store == "" {
			return fmt.Errorf("%s does not say where the store is; something else writes to this bucket", name)
		}
		moved = &MovedError{To: at.MovedTo, CopyID: at.CopyID, Stores: slices.Insert(moved.Stores, 0, at.Store)}
	}
	return errors.New("the copies of this store that were lost name each other; something else writes to this bucket")
}

// parseFence returns nil if body is not a fence.
func parseFence(body []byte) *fence {
	if len(body) > maxFence || !bytes.HasPrefix(body, []byte(`{"moved_to"`)) || bytes.HasSuffix(body, []byte("\n")) {
		return nil
	}
	var s fence
	if json.Unmarshal(body, &s) != nil || s.MovedTo == "" {
		return nil
	}
	return &s
}

// Head returns the number of the last batch, or 0. It looks from the batch known on, or from 0, with a few
// requests however many follow. It returns a [*MovedError] too if the log is fenced, and an error wrapping
// [fs.ErrNotExist] if known is not there. A batch that is corrupt is for those who use the log.
func Head(ctx context.Context, in bucket.Bucket, known int64) (int64, error) {
	head, err := findHead(ctx, in, known)
	if err != nil || head == 0 {
		return 0, err
	}
	_, err = readBatch(ctx, in, head)
	if _, moved := errors.AsType[*MovedError](err); moved {
		return head - 1, err
	}
	if _, corrupt := errors.AsType[*CorruptError](err); corrupt {
		return head, nil
	}
	return head, err
}

// CheckHere returns a [*MovedError] if the log is fenced.
func CheckHere(ctx context.Context, in bucket.Bucket) error {
	_, err := Head(ctx, in, 0)
	return err
}

// isEnd reports whether err says that no further batch exists.
func isEnd(err error) bool {
	_, moved := errors.AsType[*MovedError](err)
	return moved || errors.Is(err, fs.ErrNotExist)
}

// Ends returns where the batches end in the index, so the last one is its length. It reads a list, and not
// the batches. With a fenced log it also returns a [*MovedError].
func Ends(ctx context.Context, in bucket.Bucket) ([]int64, error) {
	var ends []int64
	sum, last := int64(0), int64(0)
	for info, err := range in.List(ctx, logPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list the index: %w", err)
		}
		if n := int64(len(ends)) + 1; numberOf(info.Name) != n {
			return nil, fmt.Errorf("%s is in the place of %s: the index has a hole, or something else writes to this bucket", info.Name, Name(n))
		}
		last = info.Size
		sum += last
		ends = append(ends, sum)
	}
	if last == 0 || last > maxFence {
		return ends, nil
	}
	_, err := ReadBatch(ctx, in, int64(len(ends)))
	if _, moved := errors.AsType[*MovedError](err); moved {
		return ends[:len(ends)-1], err
	}
	return ends, err
}

// ReadBatch returns the rows of batch n as text. It returns an error wrapping [fs.ErrNotExist] if there is
// no such batch, and a [*MovedError] if there is a fence.
func ReadBatch(ctx context.Context, from bucket.Bucket, n int64) ([]byte, error) {
	b, err := readBatch(ctx, from, n)
	return b.body, err
}

// CreateBatch creates batch n of a log to which no receiver appends, or returns an error wrapping
// [fs.ErrExist].
func CreateBatch(ctx context.Context, in bucket.Bucket, n int64, rows []byte) error {
	if _, err := parseRows(rows); err != nil {
		return err
	}
	return in.Create(ctx, Name(n), bytes.NewReader(rows), int64(len(rows)), sha256.Sum256(rows))
}
