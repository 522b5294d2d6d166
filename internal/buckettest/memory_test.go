package buckettest_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/fixture"
)

func digestOf(text string) digest.Digest {
	d, _, _ := digest.Of(strings.NewReader(text))
	return d
}

func create(ctx context.Context, b bucket.Bucket, name, text string) error {
	return b.Create(ctx, name, strings.NewReader(text), int64(len(text)), digestOf(text))
}

func read(t *testing.T, b bucket.Bucket, name string) string {
	t.Helper()
	r, _, err := b.Open(t.Context(), name)
	fixture.Must(t, err)
	text, err := io.ReadAll(r)
	fixture.Must(t, errors.Join(err, r.Close()))
	return string(text)
}

// failing returns a bucket whose first request has a fault.
func failing(fault buckettest.Fault) *buckettest.Memory {
	m := &buckettest.Memory{}
	requests := 0
	m.Fault = func(string, string) buckettest.Fault {
		requests++
		if requests == 1 {
			return fault
		}
		return buckettest.None
	}
	return m
}

func TestFaultsSayNothingOfTheEffect(t *testing.T) {
	for _, test := range []struct {
		fault     buckettest.Fault
		err       error
		now, then bool // whether the object exists
	}{
		{buckettest.None, nil, true, true},
		{buckettest.LostBefore, buckettest.ErrLost, false, false},
		{buckettest.LostAfter, buckettest.ErrLost, true, true},
		{buckettest.Late, buckettest.ErrLost, false, true},
		{buckettest.Full, bucket.ErrFull, false, false},
	} {
		m := failing(test.fault)
		exists := func() bool {
			_, err := m.Stat(t.Context(), "a")
			return err == nil
		}
		if err := create(t.Context(), m, "a", "x"); !errors.Is(err, test.err) {
			t.Errorf("fault %d: got %v, want %v", test.fault, err, test.err)
		}
		if got := exists(); got != test.now {
			t.Errorf("fault %d: exists %t, want %t", test.fault, got, test.now)
		}
		m.Release()
		if got := exists(); got != test.then {
			t.Errorf("fault %d: after the release: exists %t, want %t", test.fault, got, test.then)
		}
	}
}

func TestLateCreateDoesNotReplace(t *testing.T) {
	m := failing(buckettest.Late)
	if err := create(t.Context(), m, "a", "late"); !errors.Is(err, buckettest.ErrLost) {
		t.Fatalf("got %v, want %v", err, buckettest.ErrLost)
	}
	fixture.Must(t, create(t.Context(), m, "a", "first"))
	if got := m.Release(); got != 1 {
		t.Errorf("released %d requests, want 1", got)
	}
	if got := read(t, m, "a"); got != "first" {
		t.Errorf("got %q, want the first", got)
	}
}

func TestFaultsOfReading(t *testing.T) {
	for _, fault := range []buckettest.Fault{buckettest.LostBefore, buckettest.LostAfter, buckettest.Late, buckettest.Full} {
		m := &buckettest.Memory{}
		fixture.Must(t, create(t.Context(), m, "a", "text"))
		m.Fault = func(string, string) buckettest.Fault { return fault }
		if _, err := m.Stat(t.Context(), "a"); !errors.Is(err, buckettest.ErrLost) {
			t.Errorf("fault %d: stat: got %v, want %v", fault, err, buckettest.ErrLost)
		}
		r, _, err := m.Open(t.Context(), "a")
		got := []byte{}
		if err == nil {
			got, err = io.ReadAll(r)
		}
		want := map[bool]string{true: "te"}[fault == buckettest.LostAfter]
		if !errors.Is(err, buckettest.ErrLost) || string(got) != want {
			t.Errorf("fault %d: open: got %q, %v, want %q", fault, got, err, want)
		}
		var names []string
		for info, err := range m.List(t.Context(), "", "") {
			names = append(names, info.Name)
			if err != nil && !errors.Is(err, buckettest.ErrLost) {
				t.Errorf("fault %d: list: got %v, want %v", fault, err, buckettest.ErrLost)
			}
		}
		if want := map[bool][]string{true: {"a", ""}, false: {""}}[fault == buckettest.LostAfter]; !slices.Equal(names, want) {
			t.Errorf("fault %d: list: got %q, want %q", fault, names, want)
		}
	}
}

func TestRequestsAreCounted(t *testing.T) {
	m := &buckettest.Memory{}
	for i := range 1001 {
		fixture.Must(t, create(t.Context(), m, "n/"+strings.Repeat("x", i%200)+"-"+strings.Repeat("y", i/200), "x"))
	}
	count := 0
	for _, err := range m.List(t.Context(), "n/", "") {
		fixture.Must(t, err)
		count++
	}
	got := m.Requests()
	if count != 1001 || got[buckettest.OpCreate] != 1001 || got[buckettest.OpList] != 2 {
		t.Errorf("got %d objects by %v, want 1001 by two lists", count, got)
	}
}

func TestLostBeginLeavesAnUpload(t *testing.T) {
	m := failing(buckettest.LostAfter)
	id, err := m.Begin(t.Context(), "a")
	if !errors.Is(err, buckettest.ErrLost) || id != "" {
		t.Errorf("got %q, %v, want no id and %v", id, err, buckettest.ErrLost)
	}
	if got := m.Uploads(); len(got) != 1 {
		t.Errorf("got the uploads %q, want one", got)
	}
}

func TestMemoryKeepsTheContract(t *testing.T) {
	buckettest.RunContract(t, func(*testing.T) bucket.Bucket { return &buckettest.Memory{} })
}
