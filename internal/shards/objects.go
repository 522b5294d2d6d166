package shards

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/digest"
)

const (
	root     = "scrub/"
	passes   = root + "passes/"
	claims   = root + "claims/"
	results  = root + "results/"
	progress = root + "progress/"
	ended    = root + "ended/"
	suffix   = ".json"
)

// maxObject is the maximum size of each object.
const maxObject = 64 << 10

// list returns when the objects of the shards were last written, by the clock of the engine.
func (p *Pass) list(ctx context.Context, kind string) (map[int]time.Time, error) {
	all := make(map[int]time.Time)
	dir := fmt.Sprintf("%s%08d/", kind, p.number)
	for info, err := range p.in.List(ctx, dir, "") {
		if err != nil {
			return nil, fmt.Errorf("look for shards of the scrub: %w", err)
		}
		n, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), suffix))
		if err == nil && n >= 0 && n < p.start.Shards && info.Name == p.shardName(kind, n) {
			all[n] = info.ModifiedAt
		}
	}
	return all, nil
}

func objectName(kind string, pass int64) string { return fmt.Sprintf("%s%08d%s", kind, pass, suffix) }

func (p *Pass) shardName(kind string, n int) string {
	return fmt.Sprintf("%s%08d/%03d%s", kind, p.number, n, suffix)
}

// numberOf returns the pass that an object belongs to, or 0.
func numberOf(name string) int64 {
	rest, ours := strings.CutPrefix(name, root)
	_, rest, _ = strings.Cut(rest, "/")
	text, _, _ := strings.Cut(strings.TrimSuffix(rest, suffix), "/")
	n, err := strconv.ParseInt(text, 10, 64)
	if !ours || err != nil || n < 1 || fmt.Sprintf("%08d", n) != text {
		return 0
	}
	return n
}

// errUnusable says that an object of a pass is damaged or lost. The scrub does without it.
var errUnusable = errors.New("an object of the scrub is not what a receiver has written")

func readJSON(ctx context.Context, in bucket.Bucket, name string, into any) error {
	r, _, err := in.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxObject))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: %s: %w", errUnusable, name, err)
	}
	return nil
}

func create(ctx context.Context, in bucket.Bucket, name string, v any) error {
	return write(ctx, name, v, in.Create)
}

// put is create for a hint, which may be replaced.
func put(ctx context.Context, in bucket.Bucket, name string, v any) error {
	return write(ctx, name, v, in.Put)
}

func write(ctx context.Context, name string, v any, to func(context.Context, string, io.Reader, int64, digest.Digest) error) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := to(ctx, name, bytes.NewReader(body), int64(len(body)), sha256.Sum256(body)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
