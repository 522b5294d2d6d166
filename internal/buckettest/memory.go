package buckettest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/digest"
)

// Memory is a [bucket.Bucket] in memory. Several receivers in a test share one. Its zero value is
// empty and ready for use.
type Memory struct {
	// Fault decides what happens to a request, if it is set. It must be set before the first request
	// and is called without locks, so that it may send requests of its own.
	Fault func(op, name string) Fault
	// Breach is what this bucket does not keep of the contract. It must be set before the first request.
	Breach Breach
	// MinPart is the minimum size of a part but the last. 0 is that of S3, [bucket.MinPart].
	MinPart int

	mu       sync.Mutex // guards what follows
	objects  map[string]object
	uploads  map[string]*upload // by id
	begun    int                // uploads so far
	late     []func()           // requests with the fault Late
	requests map[string]int     // by operation
}

type object struct {
	content    []byte
	etag       string
	modifiedAt time.Time
}

func (o object) info(name string) bucket.Info {
	return bucket.Info{Name: name, Size: int64(len(o.content)), ETag: o.etag, ModifiedAt: o.modifiedAt}
}

// Create implements [bucket.Bucket].
func (m *Memory) Create(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	return m.upload(ctx, OpCreate, name, body, size, d, func(o object) error {
		if m.exists(name) {
			return fs.ErrExist
		}
		m.store(name, o)
		return nil
	})
}

// Put implements [bucket.Bucket].
func (m *Memory) Put(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	return m.upload(ctx, OpPut, name, body, size, d, func(o object) error {
		m.store(name, o)
		return nil
	})
}

// upload does a request with a body. It calls apply with m.mu held.
func (m *Memory) upload(ctx context.Context, op, name string, body io.Reader, size int64, d digest.Digest, apply func(object) error) error {
	fault := m.begin(op, name)
	if err := fault.before(); err != nil {
		return wrap(op, name, err)
	}
	o, err := m.receive(ctx, name, body, size, d)
	if err != nil {
		return wrap(op, name, err)
	}
	return m.do(op, name, fault, func() error { return apply(o) })
}

// receive reads and checks what a request announced.
func (m *Memory) receive(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) (object, error) {
	if err := bucket.CheckName(name); err != nil {
		return object{}, err
	}
	content, err := io.ReadAll(io.LimitReader(body, size+1))
	if err == nil {
		err = ctx.Err()
	}
	got, n, _ := digest.Of(bytes.NewReader(content))
	o := object{content: content, etag: got.String()[:32], modifiedAt: time.Now()}
	if (err != nil || n < size) && m.Breach&StoreCutBody != 0 {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.store(name, o)
	}
	switch {
	case err != nil:
		return object{}, err
	case n != size, got != d && m.Breach&StoreWrongDigest == 0:
		return object{}, fmt.Errorf("%d bytes with sha256 %s, announced were %d with %s: %w", n, got, size, d, bucket.ErrDigest)
	}
	return o, nil
}

// exists reports whether an object exists. The caller must hold m.mu.
func (m *Memory) exists(name string) bool {
	_, exists := m.objects[name]
	if m.Breach&CreateRaces != 0 && !exists {
		m.mu.Unlock()
		time.Sleep(raceWindow)
		m.mu.Lock()
	}
	return exists && m.Breach&CreateReplaces == 0
}

// store adds or replaces an object. The caller must hold m.mu.
func (m *Memory) store(name string, o object) {
	if m.objects == nil {
		m.objects = map[string]object{}
	}
	m.objects[name] = o
}

// Open implements [bucket.Bucket]. With the fault LostAfter, reading fails after half of the object.
func (m *Memory) Open(ctx context.Context, name string) (io.ReadCloser, bucket.Info, error) {
	o, fault, err := m.find(ctx, OpOpen, name)
	if err != nil {
		return nil, bucket.Info{}, wrap(OpOpen, name, err)
	}
	content := io.Reader(bytes.NewReader(o.content))
	if fault == LostAfter {
		content = io.MultiReader(bytes.NewReader(o.content[:len(o.content)/2]), lostReader{})
	}
	return io.NopCloser(content), o.info(name), nil
}

// Stat implements [bucket.Bucket].
func (m *Memory) Stat(ctx context.Context, name string) (bucket.Info, error) {
	o, fault, err := m.find(ctx, OpStat, name)
	if err == nil && fault == LostAfter {
		err = ErrLost
	}
	if err != nil {
		return bucket.Info{}, wrap(OpStat, name, err)
	}
	return o.info(name), nil
}

func (m *Memory) find(ctx context.Context, op, name string) (object, Fault, error) {
	fault := m.begin(op, name)
	if err := fault.beforeReading(); err != nil {
		return object{}, fault, err
	}
	if err := bucket.CheckName(name); err != nil {
		return object{}, fault, err
	}
	if err := ctx.Err(); err != nil {
		return object{}, fault, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, exists := m.objects[name]
	if !exists {
		return object{}, fault, fs.ErrNotExist
	}
	return o, fault, nil
}

// pageSize is the number of objects that one request lists.
const pageSize = 1000

// List implements [bucket.Bucket]. Each page is a request with a fault of its own: LostAfter lists
// the page before the error.
func (m *Memory) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Info, error] {
	return func(yield func(bucket.Info, error) bool) {
		for more := true; more; {
			fault := m.begin(OpList, prefix)
			err := fault.beforeReading()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(bucket.Info{}, wrap(OpList, prefix, err))
				return
			}
			var page []bucket.Info
			page, more = m.page(prefix, after)
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
				after = info.Name
			}
			if fault == LostAfter {
				yield(bucket.Info{}, wrap(OpList, prefix, ErrLost))
				return
			}
		}
	}
}

// page returns the next objects, and whether there may be more.
func (m *Memory) page(prefix, after string) (page []bucket.Info, more bool) {
	compare := strings.Compare
	if m.Breach&ListByElement != 0 {
		compare = func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.SortedFunc(maps.Keys(m.objects), compare) {
		o := m.objects[name]
		isHidden := m.Breach&ListLags != 0 && time.Since(o.modifiedAt) < listLag
		if isHidden || !strings.HasPrefix(name, prefix) || compare(name, after) <= 0 {
			continue
		}
		if len(page) == pageSize {
			return page, true
		}
		page = append(page, o.info(name))
	}
	return page, false
}

// Remove implements [bucket.Bucket].
func (m *Memory) Remove(ctx context.Context, name string) error {
	return m.change(ctx, OpRemove, name, func() error {
		delete(m.objects, name)
		return nil
	})
}

// change does a request without a body that changes something. It calls apply with m.mu held.
func (m *Memory) change(ctx context.Context, op, name string, apply func() error) error {
	fault := m.begin(op, name)
	err := fault.before()
	if err == nil {
		err = bucket.CheckName(name)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return wrap(op, name, err)
	}
	return m.do(op, name, fault, apply)
}

// Names returns the names of all objects in order.
func (m *Memory) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.objects))
}

// newID returns an id that no upload has had. The caller must hold m.mu.
func (m *Memory) newID() string {
	m.begun++
	return "upload-" + strconv.Itoa(m.begun)
}

func wrap(op, name string, err error) error { return fmt.Errorf("%s %s: %w", op, name, err) }

// Tamper changes the content of an object behind the back of its users, as a failing disk does. Without a
// new ETag it keeps the former one. Nil removes the object.
func (m *Memory) Tamper(name string, content []byte, etag string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, exists := m.objects[name]
	if !exists {
		panic(name + " does not exist")
	}
	if content == nil {
		delete(m.objects, name)
		return
	}
	o.content = content
	if etag != "" {
		o.etag = etag
	}
	m.objects[name] = o
}
