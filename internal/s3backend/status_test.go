package s3backend

import (
	"strings"
	"testing"
	"testing/synctest"

	"cis490/internal/batchlog"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func TestStatusOfABucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, _ := openScrubber(t, in)
		defer b.Close()
		uploads, archives := storeArchives(t, b, 4)
		large := noise(1, 3*testPart)
		u := uploadOf("host-1", "large", large)
		_, at, err := b.Announce(t.Context(), u)
		fixture.Must(t, err)
		_, _, err = b.AppendPiece(t.Context(), u.Key.Host, at.ID, wire.Piece{Size: u.Size, Last: true}, strings.NewReader(string(large[:testPart+1])))
		if err == nil {
			t.Fatal("a piece that breaks off was stored")
		}
		for _, i := range []int{1, 2} {
			in.Tamper(archiveName(uploads[i].Key, uploads[i].Digest, 1), flip(archives[i]), "")
		}
		_, err = b.scrubPass(t.Context())
		fixture.Must(t, err)
		_, err = put(b, uploads[2], archives[2])
		fixture.Must(t, err)
		var s Status
		s.Inspect(t.Context(), in, batchlog.CopyStatus{Batches: 3})
		if s.Error != "" || s.Store != b.id.ID || *s.Quarantined != 1 || *s.Repaired != 1 || *s.Unfinished != 1 || *s.Behind != 2 ||
			s.LastBatchAt == nil || s.Scrub.Damaged != 2 || s.Scrub.Ended.IsZero() {
			t.Errorf("got %+v, the scrub %+v", s, s.Scrub)
		}
	})
}

// The fence does not count as a batch, and a batch that only the copy has is reported.
func TestStatusOfABucketThatTheStoreHasLeft(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	storeArchives(t, b, 3)
	fixture.Must(t, batchlog.Fence(t.Context(), in, 3, "elsewhere", "id"))
	want, err := in.Stat(t.Context(), batchlog.Name(3))
	fixture.Must(t, err)
	for copied := range int64(4) {
		var s Status
		s.Inspect(t.Context(), in, batchlog.CopyStatus{Batches: copied})
		if s.Error != "" || *s.Behind != 3-copied || s.LastBatchAt == nil || !s.LastBatchAt.Equal(want.ModifiedAt) || s.MovedTo != "elsewhere" {
			t.Errorf("with a copy of %d batches: got %+v, behind %d", copied, s, *s.Behind)
		}
	}
	empty := newBucket()
	_ = openBackend(t, empty)
	fixture.Must(t, batchlog.Fence(t.Context(), empty, 0, "elsewhere", "id"))
	var s Status
	s.Inspect(t.Context(), empty, batchlog.CopyStatus{})
	if s.Error != "" || *s.Behind != 0 || s.LastBatchAt != nil || s.MovedTo != "elsewhere" {
		t.Errorf("an empty store: got %+v", s)
	}
	s = Status{}
	s.Inspect(t.Context(), in, batchlog.CopyStatus{Batches: 5})
	if s.Behind != nil || !strings.Contains(s.Error, "has lost the last of them") {
		t.Errorf("the copy has batches that the bucket lacks: got %+v", s)
	}
}

// What an engine does not say is unknown, and not zero.
func TestStatusOfABucketThatFails(t *testing.T) {
	for _, tt := range []struct {
		op, name string
		unknown  func(s Status) bool
	}{
		{buckettest.OpOpen, identityName, func(s Status) bool { return s.Behind == nil && s.Quarantined == nil && s.Scrub == nil }},
		{buckettest.OpStat, batchlog.Name(1), func(s Status) bool { return s.LastBatchAt == nil && s.Behind == nil && s.Scrub != nil }},
		{buckettest.OpList, quarantinePrefix, func(s Status) bool {
			return s.Quarantined == nil && s.Repaired == nil && s.Scrub != nil && s.Unfinished != nil
		}},
		{buckettest.OpList, uploadsPrefix, func(s Status) bool { return s.Unfinished == nil && s.Scrub != nil && s.Quarantined != nil }},
		{buckettest.OpList, "scrub/passes/", func(s Status) bool { return s.Scrub == nil && s.Unfinished != nil }},
	} {
		in := newBucket()
		b, _ := openScrubber(t, in)
		storeArchives(t, b, 1)
		fixture.Must(t, b.Close())
		in.Fault = func(op, name string) buckettest.Fault {
			if op == tt.op && name == tt.name {
				return buckettest.LostBefore
			}
			return buckettest.None
		}
		var s Status
		s.Inspect(t.Context(), in, batchlog.CopyStatus{})
		if !strings.Contains(s.Error, buckettest.ErrLost.Error()) || !tt.unknown(s) {
			t.Errorf("%s %s fails: got %+v", tt.op, tt.name, s)
		}
	}
}

func FuzzParseQuarantineName(f *testing.F) {
	f.Add("quarantine/host-1/run-1/1.json")
	f.Add("quarantine/../run-1/01.json")
	f.Fuzz(func(t *testing.T, name string) {
		key, generation, valid := parseQuarantineName(name)
		c := commit{generation: generation}
		c.row.Key = key
		if valid && nameBeside(quarantinePrefix, c) != name {
			t.Errorf("%q: got %v, %d", name, key, generation)
		}
	})
}
