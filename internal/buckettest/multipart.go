package buckettest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/digest"
)

// upload is a multipart upload.
type upload struct {
	name  string
	parts map[int]object
}

// Begin implements [bucket.Bucket]. With the faults LostAfter and Late, an upload begins whose id is
// not known.
func (m *Memory) Begin(ctx context.Context, name string) (string, error) {
	id := ""
	err := m.change(ctx, OpBegin, name, func() error {
		id = m.newID()
		if m.uploads == nil {
			m.uploads = map[string]*upload{}
		}
		m.uploads[id] = &upload{name: name, parts: map[int]object{}}
		return nil
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// PutPart implements [bucket.Bucket].
func (m *Memory) PutPart(ctx context.Context, name, id string, number int, body io.Reader, size int64, d digest.Digest) (bucket.Part, error) {
	if number < 1 || number > bucket.MaxParts {
		return bucket.Part{}, wrap(OpPart, name, fmt.Errorf("%d is not a valid number of a part: it must be 1 to %d", number, bucket.MaxParts))
	}
	part := bucket.Part{Number: number}
	err := m.upload(ctx, OpPart, name, body, size, d, func(o object) error {
		u, err := m.findUpload(name, id)
		if err != nil {
			return err
		}
		u.parts[number] = o
		part.ETag = o.etag
		return nil
	})
	if err != nil {
		return bucket.Part{}, err
	}
	return part, nil
}

// findUpload returns a multipart upload. The caller must hold m.mu.
func (m *Memory) findUpload(name, id string) (*upload, error) {
	u := m.uploads[id]
	if u == nil || u.name != name {
		return nil, bucket.ErrNoUpload
	}
	return u, nil
}

// Finish implements [bucket.Bucket].
func (m *Memory) Finish(ctx context.Context, name, id string, parts []bucket.Part) error {
	parts = slices.Clone(parts)
	return m.change(ctx, OpFinish, name, func() error {
		u, err := m.findUpload(name, id)
		if err != nil {
			return err
		}
		o, err := u.join(parts, cmp.Or(m.MinPart, bucket.MinPart), m.Breach)
		if err != nil {
			return err
		}
		m.store(name, o)
		delete(m.uploads, id)
		return nil
	})
}

// join returns the object that the parts make. Each but the last needs minPart bytes.
func (u *upload) join(parts []bucket.Part, minPart int, breach Breach) (object, error) {
	if len(parts) == 0 {
		return object{}, fmt.Errorf("it has no parts: %w", bucket.ErrPart)
	}
	for i, p := range parts[1:] {
		if p.Number <= parts[i].Number {
			return object{}, fmt.Errorf("part %d follows part %d: %w", p.Number, parts[i].Number, bucket.ErrPart)
		}
	}
	var content []byte
	for i, p := range parts {
		o, exists := u.parts[p.Number]
		switch {
		case !exists, o.etag != p.ETag && breach&IgnorePartETags == 0:
			return object{}, fmt.Errorf("part %d: %w", p.Number, bucket.ErrPart)
		case i < len(parts)-1 && len(o.content) < minPart:
			return object{}, fmt.Errorf("part %d has %d bytes: each but the last needs %d", p.Number, len(o.content), minPart)
		}
		content = append(content, o.content...)
	}
	d, _, _ := digest.Of(bytes.NewReader(content))
	return object{content: content, etag: fmt.Sprintf("%.32s-%d", d, len(parts)), modifiedAt: time.Now()}, nil
}

// Abort implements [bucket.Bucket].
func (m *Memory) Abort(ctx context.Context, name, id string) error {
	return m.change(ctx, OpAbort, name, func() error {
		if u := m.uploads[id]; u != nil && u.name == name {
			delete(m.uploads, id)
		}
		return nil
	})
}

// Uploads returns the ids of the multipart uploads that were neither finished nor aborted.
func (m *Memory) Uploads() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.uploads))
}
