package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"cis490/internal/digest"
	"cis490/internal/printable"
	"cis490/internal/retry"
)

// S3 is a [Bucket] of an S3 engine.
type S3 struct {
	config    Config
	prefix    string
	keys      keys
	keysFile  string
	endpoints []*endpoint
	preferred atomic.Int32 // the index of the endpoint that gets the next request
}

// endpoint is one URL of the engine.
type endpoint struct {
	url    string
	core   *minio.Core
	server atomic.Pointer[string] // what it calls itself, once it has answered

	answered, failed atomic.Int64 // requests
	skew             atomic.Pointer[time.Duration]
}

// Open returns a bucket. It sends no request: [Probe] does.
func Open(c Config) (*S3, error) { return open(c, stallTimeout) }

func open(c Config, stall time.Duration) (*S3, error) {
	if err := errors.Join(c.Validate()...); err != nil {
		return nil, err
	}
	s := &S3{config: c, prefix: c.prefix()}
	var err error
	if s.keys, s.keysFile, err = c.loadKeys(); err != nil {
		return nil, err
	}
	transport, err := newTransport(c)
	if err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupDNS
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	for _, text := range c.Endpoints {
		u, err := c.parseEndpoint(text)
		if err != nil {
			return nil, err
		}
		core, err := minio.NewCore(u.Host, &minio.Options{
			Creds:        credentials.NewStaticV4(s.keys.access, s.keys.secret, ""),
			Secure:       u.Scheme == "https",
			Transport:    watchedTransport{transport, stall},
			Region:       c.Region,
			BucketLookup: lookup,
			MaxRetries:   1, // the protocol of the callers decides
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
		s.endpoints = append(s.endpoints, &endpoint{url: u.String(), core: core})
	}
	return s, nil
}

// Endpoint is one way to a bucket.
type Endpoint struct {
	Name   string // for people: its URL
	Bucket Bucket
}

// Endpoints returns a bucket for each endpoint, which uses only that one.
func (s *S3) Endpoints() []Endpoint {
	var all []Endpoint
	for _, e := range s.endpoints {
		one := &S3{config: s.config, prefix: s.prefix, keys: s.keys, keysFile: s.keysFile, endpoints: []*endpoint{e}}
		all = append(all, Endpoint{Name: e.url, Bucket: one})
	}
	return all
}

// Server returns what the engine calls itself, or "" if it has not said so yet.
func (s *S3) Server() string {
	if server := s.endpoint().server.Load(); server != nil {
		return *server
	}
	return ""
}

func (s *S3) endpoint() *endpoint { return s.endpoints[int(s.preferred.Load())%len(s.endpoints)] }

// preferAfter lets the next requests use the endpoint after one that failed.
func (s *S3) preferAfter(failed *endpoint) {
	now := s.preferred.Load()
	if s.endpoints[int(now)%len(s.endpoints)] == failed {
		s.preferred.CompareAndSwap(now, (now+1)%int32(len(s.endpoints)))
	}
}

// do sends a request to the preferred endpoint. It tries another one only if the first has not seen
// the request: what an engine may have done must not be done twice unnoticed.
func (s *S3) do(ctx context.Context, request func(context.Context, *endpoint) error) error {
	for remaining := len(s.endpoints) - 1; ; remaining-- {
		e := s.endpoint()
		var x exchange
		err := request(context.WithValue(ctx, exchangeKey{}, &x), e)
		e.record(ctx, x, err)
		if _, ok := errors.AsType[*sourceError](err); err == nil || ok || errors.Is(ctx.Err(), context.Canceled) {
			return err
		}
		if isEndpointFault(err) {
			s.preferAfter(e) // also if the caller waits no longer, which may be sooner than the transport gives up
		}
		if ctx.Err() != nil {
			return err
		}
		if !isUnsent(err) || remaining == 0 {
			return s.explain(err, e, x)
		}
	}
}

// isUnsent reports whether no connection was made, so that no request was sent.
func isUnsent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || isCertificateError(err)
}

// isEndpointFault reports whether another endpoint may do better.
func isEndpointFault(err error) bool {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	return !ok || response.StatusCode >= 500
}

// Create implements [Bucket].
func (s *S3) Create(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	var create minio.PutObjectOptions
	create.SetMatchETagExcept("*")
	err := s.put(ctx, name, body, size, d, create)
	if isStatus(err, http.StatusPreconditionFailed) {
		err = fs.ErrExist
	}
	return wrap("create", name, err)
}

// Put implements [Bucket].
func (s *S3) Put(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	return wrap("put", name, s.put(ctx, name, body, size, d, minio.PutObjectOptions{}))
}

// Waits after an engine has refused a request because of another one for the same name.
const (
	maxConflicts    = 4
	conflictBase    = 50 * time.Millisecond
	conflictCeiling = time.Second
)

func (s *S3) put(ctx context.Context, name string, src io.Reader, size int64, d digest.Digest, opts minio.PutObjectOptions) error {
	if err := CheckName(name); err != nil {
		return err
	}
	opts.DisableContentSha256 = true // over http too, the signature covers d instead of each chunk
	body := newAnnouncedBody(src, size)
	for attempt := 0; ; attempt++ {
		err := s.send(ctx, body, func(ctx context.Context, e *endpoint) error {
			_, err := e.core.PutObject(ctx, s.config.Bucket, s.prefix+name, body, size, "", d.String(), opts)
			return err
		})
		if !isConflict(err) || attempt == maxConflicts || !body.reuse(src) {
			return err
		}
		if !retry.Sleep(ctx, retry.Backoff(conflictBase, conflictCeiling, attempt)) {
			return err
		}
	}
}

// send sends a request with a body.
func (s *S3) send(ctx context.Context, body *announcedBody, request func(context.Context, *endpoint) error) error {
	if body.size < 0 {
		return fmt.Errorf("%d is not a valid size", body.size)
	}
	if body.size == 0 { // a transport does not read it
		if _, err := body.Read(nil); err != nil {
			return &sourceError{err}
		}
	}
	err := s.do(ctx, func(ctx context.Context, e *endpoint) error {
		err := request(ctx, e)
		if faulty := body.fault(); faulty != nil {
			return &sourceError{faulty}
		}
		return err
	})
	if finished := body.returnSource(); err == nil && !finished {
		return errors.New("the object store confirmed an object before it had all of it")
	}
	return err
}

// sourceError is an error of the source of a body: no endpoint can do better.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return fmt.Sprintf("read the body: %v", e.err) }
func (e *sourceError) Unwrap() error { return e.err }

// Open implements [Bucket].
func (s *S3) Open(ctx context.Context, name string) (io.ReadCloser, Info, error) {
	if err := CheckName(name); err != nil {
		return nil, Info{}, err
	}
	var r io.ReadCloser
	var o minio.ObjectInfo
	err := s.do(ctx, func(ctx context.Context, e *endpoint) (err error) {
		r, o, _, err = e.core.GetObject(ctx, s.config.Bucket, s.prefix+name, minio.GetObjectOptions{})
		return err
	})
	if err != nil {
		return nil, Info{}, wrap("open", name, err)
	}
	if o.Size < 0 {
		return nil, Info{}, wrap("open", name, errors.Join(errors.New("the object store does not say the object's size"), r.Close()))
	}
	return r, info(name, o), nil // package http checks the size
}

// Stat implements [Bucket].
func (s *S3) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	var o minio.ObjectInfo
	err := s.do(ctx, func(ctx context.Context, e *endpoint) (err error) {
		o, err = e.core.StatObject(ctx, s.config.Bucket, s.prefix+name, minio.StatObjectOptions{})
		return err
	})
	if err == nil {
		return info(name, o), nil
	}
	if !isStatus(err, http.StatusNotFound) {
		return Info{}, wrap("stat", name, err)
	}
	// A response to HEAD has no code, so that a wrong key or a proxy looks like a missing object.
	r, i, err := s.Open(ctx, name)
	if err != nil {
		return Info{}, err
	}
	return i, wrap("stat", name, r.Close())
}

func info(name string, o minio.ObjectInfo) Info {
	return Info{Name: name, Size: o.Size, ETag: o.ETag, ModifiedAt: o.LastModified}
}

// List implements [Bucket]. It includes what other programs stored below the prefix, under any name.
func (s *S3) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		ended := false
		err := checkPrefix(prefix)
		if err == nil {
			err = s.do(ctx, func(ctx context.Context, e *endpoint) error {
				return s.list(ctx, e, prefix, after, func(i Info) bool {
					after = i.Name // from which another endpoint continues
					ended = !yield(i, nil)
					return !ended
				})
			})
		}
		if err != nil && !ended {
			yield(Info{}, wrap("list", prefix, err))
		}
	}
}

func (s *S3) list(ctx context.Context, e *endpoint, prefix, after string, yield func(Info) bool) error {
	options := minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, FetchOwner: new(bool)}
	if after != "" {
		options.StartAfter = s.prefix + after
	}
	previous := after
	for o := range e.core.ListObjectsIter(ctx, s.config.Bucket, options) {
		if o.Err != nil {
			return o.Err
		}
		name, ours := strings.CutPrefix(o.Key, s.prefix)
		if !ours || !strings.HasPrefix(name, prefix) || name <= previous {
			return fmt.Errorf("the object store lists %s after %s", printable.Quote(name, maxShown), printable.Quote(previous, maxShown))
		}
		previous = name
		if !yield(info(name, o)) {
			return nil
		}
	}
	return ctx.Err() // package minio ends a list silently
}

// Remove implements [Bucket].
func (s *S3) Remove(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	err := s.do(ctx, func(ctx context.Context, e *endpoint) error {
		return e.core.RemoveObject(ctx, s.config.Bucket, s.prefix+name, minio.RemoveObjectOptions{})
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return wrap("remove", name, err)
}

func wrap(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, name, err)
}
