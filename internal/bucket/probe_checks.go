package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"cis490/internal/retry"
)

// checkAccess distinguishes a missing object from a missing bucket or permission.
func (p *probe) checkAccess(ctx context.Context, b Bucket) error {
	_, _, err := b.Open(ctx, p.dir+"missing")
	return expect("open a missing object", err, fs.ErrNotExist)
}

func (p *probe) checkSettings(ctx context.Context, b Bucket) error {
	if s, ok := b.(interface{ CheckSettings(context.Context) error }); ok {
		return s.CheckSettings(ctx)
	}
	return nil
}

// How many creators there are, and how often they try.
const (
	creators       = 16
	creatorsRounds = 5
)

// checkCreate lets an object be created twice at each endpoint, and then by many creators at once.
func (p *probe) checkCreate(ctx context.Context) error {
	for _, e := range p.endpoints {
		name := p.newName("create")
		if err := createBytes(ctx, e.Bucket, name, []byte("first")); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		for _, content := range []string{"first", "second"} { // other bytes last: checkContent sees them if they were stored
			if err := expect("create an object that exists", createBytes(ctx, e.Bucket, name, []byte(content)), fs.ErrExist); err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
		}
		if err := checkContent(ctx, e.Bucket, name, []byte("first")); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	for range creatorsRounds {
		if err := p.checkCreators(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkCreators lets many creators, at all endpoints, create one object at once.
func (p *probe) checkCreators(ctx context.Context) error {
	name := p.newName("creators")
	contents := make([][]byte, creators)
	results := make([]error, creators)
	var all sync.WaitGroup
	for i := range creators {
		contents[i] = fmt.Appendf(nil, "creator %d", i)
		all.Go(func() {
			results[i] = createBytes(ctx, p.endpoints[i%len(p.endpoints)].Bucket, name, contents[i])
		})
	}
	all.Wait()
	var winners [][]byte
	for i, err := range results {
		if err == nil {
			winners = append(winners, contents[i])
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if len(winners) != 1 {
		return fmt.Errorf("%d of %d concurrent creators of an object succeeded, but exactly one must", len(winners), creators)
	}
	for _, e := range p.endpoints {
		if err := checkContent(ctx, e.Bucket, name, winners[0]); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

// checkContent returns an error unless an object has a content.
func checkContent(ctx context.Context, b Bucket, name string, want []byte) error {
	got, err := readObject(ctx, b, name, len(want))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s has other bytes than were stored first", name)
	}
	return err
}

// readObject reads an object of at most size bytes, or one byte more.
func readObject(ctx context.Context, b Bucket, name string, size int) ([]byte, error) {
	r, _, err := b.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(io.LimitReader(r, int64(size)+1))
	return got, errors.Join(err, r.Close())
}

// checkAbsent returns an error if an object exists that was refused.
func checkAbsent(ctx context.Context, b Bucket, what, name string) error {
	_, err := b.Stat(ctx, name)
	if err == nil {
		return fmt.Errorf("%s was stored", what)
	}
	return expect("stat "+what, err, fs.ErrNotExist)
}

// checkDigest sends bytes other than those whose digest is signed.
func (p *probe) checkDigest(ctx context.Context, b Bucket) error {
	const what = "an object with another sha256"
	content, other := bytes.Repeat([]byte("a"), 32<<10), bytes.Repeat([]byte("b"), 32<<10)
	size, d := int64(len(content)), digestOf(other)
	created, put := p.newName("digest"), p.newName("digest")
	err := b.Create(ctx, created, bytes.NewReader(content), size, d)
	if err := errors.Join(expect("create "+what, err, ErrDigest), checkAbsent(ctx, b, what, created)); err != nil {
		return err
	}
	err = b.Put(ctx, put, bytes.NewReader(content), size, d)
	if err := errors.Join(expect("put "+what, err, ErrDigest), checkAbsent(ctx, b, what, put)); err != nil {
		return err
	}
	id, err := b.Begin(ctx, put)
	if err != nil {
		return err
	}
	_, err = b.PutPart(ctx, put, id, 1, bytes.NewReader(content), size, d)
	return errors.Join(expect("upload a part with another sha256", err, ErrDigest), b.Abort(ctx, put, id))
}

// checkCutBody sends less than it announced, and gives the engine time to notice.
func (p *probe) checkCutBody(ctx context.Context, b Bucket) error {
	const what = "an object whose upload ended early"
	content := bytes.Repeat([]byte("cut"), 64<<10)
	half := content[:len(content)/2]
	names := []string{p.newName("cut"), p.newName("cut")}
	size, d := int64(len(content)), digestOf(content)
	for _, err := range []error{
		b.Put(ctx, names[0], bytes.NewReader(half), size, d),
		b.Create(ctx, names[1], bytes.NewReader(half), size, d),
	} {
		if err := expect("store "+what, err, ErrDigest); err != nil {
			return err
		}
	}
	if !retry.Sleep(ctx, cutGrace) {
		return ctx.Err()
	}
	for _, name := range names {
		if err := checkAbsent(ctx, b, what, name); err != nil {
			return err
		}
	}
	return nil
}

// checkList lists objects directly after they were stored, and after each of them.
func (p *probe) checkList(ctx context.Context, b Bucket) error {
	dir := fmt.Sprintf("list-%d/", len(p.names))
	var names []string
	for _, base := range []string{"a-b", "a.b", "a/b", "a/c/d", "a0", "b"} {
		names = append(names, p.name(dir+base))
	}
	for _, name := range names {
		if err := createBytes(ctx, b, name, []byte("x")); err != nil {
			return err
		}
	}
	after, want := "", names
	for {
		got, err := collect(ctx, b, p.dir+dir, after)
		if err != nil {
			return err
		}
		if !slices.Equal(got, want) {
			short := strings.NewReplacer(p.dir+dir, "")
			return fmt.Errorf("a list after %q has %s instead of %s", short.Replace(after), short.Replace(fmt.Sprint(got)), short.Replace(fmt.Sprint(want)))
		}
		if len(want) == 0 {
			return nil
		}
		after, want = want[0], want[1:]
	}
}

func collect(ctx context.Context, b Bucket, prefix, after string) ([]string, error) {
	var names []string
	for o, err := range b.List(ctx, prefix, after) {
		if err != nil {
			return nil, err
		}
		names = append(names, o.Name)
	}
	return names, nil
}

// checkMultipart makes an object of two parts, after it has named one that was replaced.
func (p *probe) checkMultipart(ctx context.Context, b Bucket) (err error) {
	name := p.newName("multipart")
	id, err := b.Begin(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Abort(ctx, name, id)) }() // no error once it is finished
	parts := make([]Part, 3)
	contents := [][]byte{bytes.Repeat([]byte("1"), MinPart), []byte("replaced"), []byte("end")}
	for i, content := range contents {
		parts[i], err = b.PutPart(ctx, name, id, min(i+1, 2), bytes.NewReader(content), int64(len(content)), digestOf(content))
		if err != nil {
			return err
		}
	}
	if err := expect("finish with a part that was replaced", b.Finish(ctx, name, id, parts[:2]), ErrPart); err != nil {
		return err
	}
	if err := checkAbsent(ctx, b, "an upload that is not finished", name); err != nil {
		return err
	}
	if err := b.Finish(ctx, name, id, []Part{parts[0], parts[2]}); err != nil {
		return err
	}
	return checkContent(ctx, b, name, slices.Concat(contents[0], contents[2]))
}

// checkSameObjects stores an object at each endpoint, and looks for it at all others.
func (p *probe) checkSameObjects(ctx context.Context) error {
	for w, writer := range p.endpoints {
		name := p.newName("same")
		if err := createBytes(ctx, writer.Bucket, name, []byte(name)); err != nil {
			return fmt.Errorf("%s: %w", writer.Name, err)
		}
		for r, reader := range p.endpoints {
			if r == w {
				continue // other checks compare an endpoint with itself
			}
			names, err := collect(ctx, reader.Bucket, name, "")
			if err == nil && len(names) != 1 {
				err = errors.New("it does not list it")
			}
			if err == nil {
				err = expect("create it again", createBytes(ctx, reader.Bucket, name, nil), fs.ErrExist)
			}
			if err == nil {
				err = checkContent(ctx, reader.Bucket, name, []byte(name))
			}
			if err != nil {
				return fmt.Errorf("%s has not what was stored at %s: %w", reader.Name, writer.Name, err)
			}
		}
	}
	return nil
}

func (p *probe) checkRemove(ctx context.Context, b Bucket) error {
	name := p.newName("remove")
	if err := createBytes(ctx, b, name, []byte("x")); err != nil {
		return err
	}
	if err := errors.Join(b.Remove(ctx, name), b.Remove(ctx, name)); err != nil {
		return err
	}
	return checkAbsent(ctx, b, "a removed object", name)
}
