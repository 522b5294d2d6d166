package buckettest

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
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/fixture"
)

// RunContract tests that a bucket keeps the contract of [bucket.Bucket]. The function open must
// return an empty bucket each time.
func RunContract(t *testing.T, open func(t *testing.T) bucket.Bucket) {
	for name, test := range map[string]func(*testing.T, bucket.Bucket){
		"CreateKeepsTheFirstObject":  testCreate,
		"OneOfManyCreatorsSucceeds":  testCreators,
		"PutReplaces":                testPut,
		"WrongBytesAreNotStored":     testWrongBytes,
		"EmptyObject":                testEmpty,
		"LargeObject":                testLarge,
		"MissingObject":              testMissing,
		"ListIsInOrder":              testList,
		"ListOfManyPages":            testPages,
		"RemovedObjectIsGone":        testRemove,
		"InvalidNamesAreRefused":     testNames,
		"CanceledRequestsFail":       testCanceled,
		"BodyIsReturnedToItsCaller":  testBodyReturned,
		"MultipartMakesOneObject":    testMultipart,
		"ChangedPartIsRefused":       testChangedPart,
		"PartsHaveOrderAndMinimum":   testPartRules,
		"EndedUploadsAreUnknown":     testEndedUploads,
		"WrongPartsAreNotStored":     testWrongParts,
		"FinishReplacesAnObject":     testFinishReplaces,
		"ConcurrentReadersSeeWholes": testReaders,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func digestOf(content string) digest.Digest {
	d, _, _ := digest.Of(strings.NewReader(content)) // memory does not fail
	return d
}

// unseekable hides what a reader can do besides reading: bodies come from the network.
type unseekable struct{ io.Reader }

func create(ctx context.Context, b bucket.Bucket, name, content string) error {
	return b.Create(ctx, name, unseekable{strings.NewReader(content)}, int64(len(content)), digestOf(content))
}

func put(t *testing.T, b bucket.Bucket, name, content string) {
	t.Helper()
	fixture.Must(t, b.Put(t.Context(), name, unseekable{strings.NewReader(content)}, int64(len(content)), digestOf(content)))
}

func putPart(t *testing.T, b bucket.Bucket, name, id string, number int, content string) bucket.Part {
	t.Helper()
	p, err := b.PutPart(t.Context(), name, id, number, unseekable{strings.NewReader(content)}, int64(len(content)), digestOf(content))
	fixture.Must(t, err)
	return p
}

func begin(t *testing.T, b bucket.Bucket, name string) string {
	t.Helper()
	id, err := b.Begin(t.Context(), name)
	fixture.Must(t, err)
	return id
}

func checkContent(t *testing.T, b bucket.Bucket, name, want string) {
	t.Helper()
	r, info, err := b.Open(t.Context(), name)
	if err != nil {
		t.Errorf("open %s: %v", name, err)
		return
	}
	got, err := io.ReadAll(r)
	err = errors.Join(err, r.Close())
	if err != nil || string(got) != want || info.Size != int64(len(want)) || info.Name != name {
		t.Errorf("%s: got %d bytes beginning with %.20q (%+v, %v), want %d beginning with %.20q", name, len(got), got, info, err, len(want), want)
	}
	stat, err := b.Stat(t.Context(), name)
	if err != nil || stat.Size != info.Size || stat.ETag != info.ETag || stat.ETag == "" || stat.ModifiedAt.IsZero() {
		t.Errorf("%s: stat got %+v, %v, want as from open: %+v", name, stat, err, info)
	}
}

func checkMissing(t *testing.T, b bucket.Bucket, name string) {
	t.Helper()
	if info, err := b.Stat(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat %s: got %+v, %v, want %v", name, info, err, fs.ErrNotExist)
	}
}

func checkError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func testCreate(t *testing.T, b bucket.Bucket) {
	fixture.Must(t, create(t.Context(), b, "a/b", "first"))
	checkError(t, "create again", create(t.Context(), b, "a/b", "second"), fs.ErrExist)
	checkError(t, "create the same again", create(t.Context(), b, "a/b", "first"), fs.ErrExist)
	checkContent(t, b, "a/b", "first")
}

func testCreators(t *testing.T, b bucket.Bucket) {
	const creators = 16
	for round := range 4 {
		name := fmt.Sprintf("round/%d", round)
		results := make([]error, creators)
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i := range creators {
			all.Go(func() {
				<-begin
				results[i] = create(t.Context(), b, name, fmt.Sprint("creator ", i))
			})
		}
		close(begin)
		all.Wait()
		winner := -1
		for i, err := range results {
			switch {
			case err == nil && winner < 0:
				winner = i
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("%s: creator %d: got %v, want %v; %d won", name, i, err, fs.ErrExist, winner)
			}
		}
		checkContent(t, b, name, fmt.Sprint("creator ", winner))
	}
}

func testPut(t *testing.T, b bucket.Bucket) {
	put(t, b, "a", "first")
	first, err := b.Stat(t.Context(), "a")
	fixture.Must(t, err)
	put(t, b, "a", "the second")
	checkContent(t, b, "a", "the second")
	second, err := b.Stat(t.Context(), "a")
	if err != nil || second.ETag == first.ETag {
		t.Errorf("got %+v, %v, want an etag other than %s", second, err, first.ETag)
	}
	checkError(t, "create over a put", create(t.Context(), b, "a", "x"), fs.ErrExist)
}

var errSource = errors.New("the host went away")

// testWrongBytes: a request whose body is not what was announced stores nothing, and replaces nothing.
func testWrongBytes(t *testing.T, b bucket.Bucket) {
	content := strings.Repeat("0123456789abcdef", 8<<10) // 128 KiB
	half := content[:len(content)/2]
	size := int64(len(content))
	put(t, b, "kept", "kept")
	for what, test := range map[string]struct {
		body io.Reader
		d    digest.Digest
		want error
	}{
		"another digest":        {strings.NewReader(content), digestOf("x"), bucket.ErrDigest},
		"a zero digest":         {strings.NewReader(content), digest.Digest{}, bucket.ErrDigest},
		"cut":                   {strings.NewReader(half), digestOf(content), bucket.ErrDigest},
		"cut, digest of that":   {strings.NewReader(half), digestOf(half), bucket.ErrDigest},
		"too long":              {strings.NewReader(content + "x"), digestOf(content), bucket.ErrDigest},
		"an error of its owner": {io.MultiReader(strings.NewReader(half), errReader{}), digestOf(content), errSource},
		"an error at the end":   {io.MultiReader(strings.NewReader(content), errReader{}), digestOf(content), errSource},
	} {
		body, err := io.ReadAll(test.body)
		again := func() io.Reader {
			if err != nil {
				return io.MultiReader(bytes.NewReader(body), errReader{})
			}
			return unseekable{bytes.NewReader(body)}
		}
		name := "new/" + strings.NewReplacer(" ", "-", ",", "").Replace(what)
		checkError(t, "create: "+what, b.Create(t.Context(), name, again(), size, test.d), test.want)
		checkError(t, "put: "+what, b.Put(t.Context(), name, again(), size, test.d), test.want)
		checkError(t, "replace: "+what, b.Put(t.Context(), "kept", again(), size, test.d), test.want)
		checkMissing(t, b, name)
	}
	checkContent(t, b, "kept", "kept")
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errSource }

func testEmpty(t *testing.T, b bucket.Bucket) {
	fixture.Must(t, create(t.Context(), b, "empty", ""))
	checkContent(t, b, "empty", "")
	checkError(t, "create again", create(t.Context(), b, "empty", ""), fs.ErrExist)
	checkError(t, "bytes in an empty body", b.Create(t.Context(), "a", strings.NewReader("x"), 0, digestOf("")), bucket.ErrDigest)
	checkError(t, "another digest", b.Create(t.Context(), "a", strings.NewReader(""), 0, digestOf("x")), bucket.ErrDigest)
	checkMissing(t, b, "a")
}

func testLarge(t *testing.T, b bucket.Bucket) {
	content := string(fixture.Noise(6<<20+1, 1))
	fixture.Must(t, create(t.Context(), b, "large", content))
	checkContent(t, b, "large", content)
}

func testMissing(t *testing.T, b bucket.Bucket) {
	checkMissing(t, b, "a")
	if r, info, err := b.Open(t.Context(), "a/b"); !errors.Is(err, fs.ErrNotExist) || r != nil {
		t.Errorf("open: got %v, %+v, %v, want %v", r, info, err, fs.ErrNotExist)
	}
}

func list(t *testing.T, b bucket.Bucket, prefix, after string) []string {
	t.Helper()
	names := []string{}
	for info, err := range b.List(t.Context(), prefix, after) {
		if err != nil {
			t.Errorf("list %q after %q: %v", prefix, after, err)
			break
		}
		names = append(names, info.Name)
	}
	return names
}

func testList(t *testing.T, b bucket.Bucket) {
	all := []string{"A", "a-b", "a-b.c", "a.b", "a/b/c", "a/b/d", "a/c", "a0", "a_b", "b/a", "b~"}
	for _, name := range []int{5, 0, 9, 3, 7, 1, 10, 2, 8, 4, 6} {
		fixture.Must(t, create(t.Context(), b, all[name], "x"))
	}
	for _, test := range []struct {
		prefix, after string
		want          []string
	}{
		{"", "", all},
		{"a", "", all[1:9]},
		{"a/", "", all[4:7]},
		{"a/b", "", all[4:6]},
		{"a/b/c", "", all[4:5]},
		{"", "a-b", all[2:]},
		{"", "a-b.c", all[3:]},
		{"", "a/b/c", all[5:]},
		{"", "a/b/cc", all[5:]},
		{"a/", "a/b/d", all[6:7]},
		{"a", "a/c", all[7:9]},
		{"a/", "A", all[4:7]},
		{"a/", "b", nil},
		{"", "b~", nil},
		{"c", "", nil},
	} {
		if got := list(t, b, test.prefix, test.after); !slices.Equal(got, test.want) {
			t.Errorf("list %q after %q: got %q, want %q", test.prefix, test.after, got, test.want)
		}
	}
	for info, err := range b.List(t.Context(), "a", "") {
		if err != nil || info.Name != "a-b" || info.Size != 1 || info.ModifiedAt.IsZero() {
			t.Errorf("got %+v, %v, want a-b", info, err)
		}
		break // a list ends when its reader does
	}
}

func testPages(t *testing.T, b bucket.Bucket) {
	const objects, workers = 1005, 5
	var all sync.WaitGroup
	results := make([]error, objects)
	for w := range workers {
		all.Go(func() {
			for i := w; i < objects; i += workers {
				results[i] = create(t.Context(), b, fmt.Sprintf("n/%04d", i), "x")
			}
		})
	}
	all.Wait()
	fixture.Must(t, errors.Join(results...))
	got := list(t, b, "n/", "n/0002")
	if len(got) != objects-3 || got[0] != "n/0003" || got[len(got)-1] != "n/1004" || !slices.IsSorted(got) {
		t.Errorf("got %d names, want %d: %q ...", len(got), objects-3, got[:min(3, len(got))])
	}
}

func testRemove(t *testing.T, b bucket.Bucket) {
	put(t, b, "a/b", "x")
	put(t, b, "a/c", "x")
	fixture.Must(t, b.Remove(t.Context(), "a/b"))
	checkMissing(t, b, "a/b")
	fixture.Must(t, b.Remove(t.Context(), "a/b"))
	fixture.Must(t, b.Remove(t.Context(), "never/existed"))
	if got := list(t, b, "", ""); !slices.Equal(got, []string{"a/c"}) {
		t.Errorf("got %q, want a/c only", got)
	}
	fixture.Must(t, create(t.Context(), b, "a/b", "again"))
	checkContent(t, b, "a/b", "again")
}

func testNames(t *testing.T, b bucket.Bucket) {
	for _, name := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".", "a b", "ä", "a\x00b", strings.Repeat("x", 256)} {
		_, begin := b.Begin(t.Context(), name)
		_, _, open := b.Open(t.Context(), name)
		_, stat := b.Stat(t.Context(), name)
		for what, err := range map[string]error{
			"create": create(t.Context(), b, name, "x"),
			"put":    b.Put(t.Context(), name, strings.NewReader("x"), 1, digestOf("x")),
			"begin":  begin, "open": open, "stat": stat,
			"remove": b.Remove(t.Context(), name),
			"finish": b.Finish(t.Context(), name, "id", []bucket.Part{{Number: 1, ETag: "x"}}),
			"abort":  b.Abort(t.Context(), name, "id"),
		} {
			if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, bucket.ErrNoUpload) {
				t.Errorf("%s %q: got %v, want an error that names the name", what, name, err)
			}
		}
	}
	if got := list(t, b, "", ""); len(got) > 0 {
		t.Errorf("got the objects %q, want none", got)
	}
}

func testCanceled(t *testing.T, b bucket.Bucket) {
	fixture.Must(t, create(t.Context(), b, "a", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	checkError(t, "create", create(ctx, b, "b", "x"), context.Canceled)
	_, _, err := b.Open(ctx, "a")
	checkError(t, "open", err, context.Canceled)
	_, err = b.Stat(ctx, "a")
	checkError(t, "stat", err, context.Canceled)
	_, err = b.Begin(ctx, "a")
	checkError(t, "begin", err, context.Canceled)
	checkError(t, "remove", b.Remove(ctx, "a"), context.Canceled)
	err = nil
	for _, err = range b.List(ctx, "", "") {
	}
	checkError(t, "list", err, context.Canceled)
	checkMissing(t, b, "b")
	checkContent(t, b, "a", "x")
}

// testBodyReturned: the race detector reports a body that is read after its request has ended. An
// engine may end the connection of a large one, so that its refusal is not seen.
func testBodyReturned(t *testing.T, b bucket.Bucket) {
	content := strings.Repeat("x", 1<<20)
	fixture.Must(t, create(t.Context(), b, "a", "first"))
	for range 5 {
		body := bytes.NewBufferString(content)
		if err := b.Create(t.Context(), "a", unseekable{body}, int64(len(content)), digestOf(content)); err == nil {
			t.Error("create again: got no error")
		}
		body.Reset()
		body.WriteString("now it is the caller's")
	}
}

func testMultipart(t *testing.T, b bucket.Bucket) {
	first, second := string(fixture.Noise(bucket.MinPart, 1)), string(fixture.Noise(100, 2))
	id := begin(t, b, "a/large")
	p2 := putPart(t, b, "a/large", id, 2, second)
	p1 := putPart(t, b, "a/large", id, 1, first)
	checkMissing(t, b, "a/large")
	if got := list(t, b, "", ""); len(got) > 0 {
		t.Errorf("an upload that is not finished: got the objects %q, want none", got)
	}
	fixture.Must(t, b.Finish(t.Context(), "a/large", id, []bucket.Part{p1, p2}))
	checkContent(t, b, "a/large", first+second)
}

func testChangedPart(t *testing.T, b bucket.Bucket) {
	id := begin(t, b, "a")
	content := string(fixture.Noise(bucket.MinPart, 1))
	former := putPart(t, b, "a", id, 1, content[1:]+"x")
	part := putPart(t, b, "a", id, 1, content)
	checkError(t, "a former part", b.Finish(t.Context(), "a", id, []bucket.Part{former}), bucket.ErrPart)
	checkError(t, "a missing part", b.Finish(t.Context(), "a", id, []bucket.Part{part, {Number: 2, ETag: part.ETag}}), bucket.ErrPart)
	checkError(t, "no part", b.Finish(t.Context(), "a", id, nil), bucket.ErrPart)
	checkMissing(t, b, "a")
	fixture.Must(t, b.Finish(t.Context(), "a", id, []bucket.Part{part}))
	checkContent(t, b, "a", content)
}

func testPartRules(t *testing.T, b bucket.Bucket) {
	id := begin(t, b, "a")
	large := string(fixture.Noise(bucket.MinPart, 1))
	p1, p2 := putPart(t, b, "a", id, 1, large), putPart(t, b, "a", id, 2, large[1:])
	p3 := putPart(t, b, "a", id, 3, "end")
	checkError(t, "parts in another order", b.Finish(t.Context(), "a", id, []bucket.Part{p2, p1}), bucket.ErrPart)
	checkError(t, "a part twice", b.Finish(t.Context(), "a", id, []bucket.Part{p1, p1}), bucket.ErrPart)
	if err := b.Finish(t.Context(), "a", id, []bucket.Part{p1, p2, p3}); err == nil {
		t.Error("a part that is too small: got no error")
	}
	checkMissing(t, b, "a")
	for _, number := range []int{-1, 0, bucket.MaxParts + 1} {
		if _, err := b.PutPart(t.Context(), "a", id, number, strings.NewReader("x"), 1, digestOf("x")); err == nil {
			t.Errorf("part %d: got no error", number)
		}
	}
	fixture.Must(t, b.Finish(t.Context(), "a", id, []bucket.Part{p1, p3}))
	checkContent(t, b, "a", large+"end")
}

func testEndedUploads(t *testing.T, b bucket.Bucket) {
	check := func(what, name, id string) {
		t.Helper()
		_, err := b.PutPart(t.Context(), name, id, 1, strings.NewReader("x"), 1, digestOf("x"))
		checkError(t, what+": part", err, bucket.ErrNoUpload)
		checkError(t, what+": finish", b.Finish(t.Context(), name, id, []bucket.Part{{Number: 1, ETag: "9dd4e461268c8034f5c8564e155c67a6"}}), bucket.ErrNoUpload)
		fixture.Must(t, b.Abort(t.Context(), name, id))
	}
	check("unknown", "a", "3d6a2f2e-0000-4000-8000-000000000000")
	aborted := begin(t, b, "a")
	putPart(t, b, "a", aborted, 1, "x")
	fixture.Must(t, b.Abort(t.Context(), "a", aborted))
	check("aborted", "a", aborted)
	finished := begin(t, b, "a")
	part := putPart(t, b, "a", finished, 1, "x")
	fixture.Must(t, b.Finish(t.Context(), "a", finished, []bucket.Part{part}))
	_, err := b.PutPart(t.Context(), "a", finished, 2, strings.NewReader("x"), 1, digestOf("x"))
	checkError(t, "finished: part", err, bucket.ErrNoUpload)
	fixture.Must(t, b.Abort(t.Context(), "a", finished))
	again := b.Finish(t.Context(), "a", finished, []bucket.Part{part})
	if again != nil && !errors.Is(again, bucket.ErrNoUpload) { // some engines repeat their answer
		t.Errorf("finished: finish: got %v, want none, or %v", again, bucket.ErrNoUpload)
	}
	checkContent(t, b, "a", "x")
}

func testWrongParts(t *testing.T, b bucket.Bucket) {
	id := begin(t, b, "a")
	part := putPart(t, b, "a", id, 1, "content")
	for what, test := range map[string]struct {
		body string
		d    digest.Digest
	}{
		"another digest": {"content", digestOf("x")},
		"cut":            {"con", digestOf("content")},
		"too long":       {"content, and more", digestOf("content")},
	} {
		_, err := b.PutPart(t.Context(), "a", id, 1, unseekable{strings.NewReader(test.body)}, int64(len("content")), test.d)
		checkError(t, what, err, bucket.ErrDigest)
	}
	fixture.Must(t, b.Finish(t.Context(), "a", id, []bucket.Part{part}))
	checkContent(t, b, "a", "content")
}

func testFinishReplaces(t *testing.T, b bucket.Bucket) {
	fixture.Must(t, create(t.Context(), b, "a", "created"))
	id := begin(t, b, "a")
	fixture.Must(t, b.Finish(t.Context(), "a", id, []bucket.Part{putPart(t, b, "a", id, 1, "finished")}))
	checkContent(t, b, "a", "finished")
}

// testReaders: a reader gets one object or the other, never a part of one.
func testReaders(t *testing.T, b bucket.Bucket) {
	contents := []string{strings.Repeat("a", 300_000), strings.Repeat("b", 400_000)}
	put(t, b, "a", contents[0])
	done := make(chan error)
	go func() {
		var err error
		for i := range 10 {
			c := contents[i%2]
			err = errors.Join(err, b.Put(t.Context(), "a", strings.NewReader(c), int64(len(c)), digestOf(c)))
		}
		done <- err
	}()
	for {
		r, info, err := b.Open(t.Context(), "a")
		fixture.Must(t, err)
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || !slices.Contains(contents, string(got)) || info.Size != int64(len(got)) {
			t.Errorf("got %d bytes, %v, want all of one object (%+v)", len(got), err, info)
		}
		select {
		case err := <-done:
			fixture.Must(t, err)
			return
		default:
		}
	}
}
