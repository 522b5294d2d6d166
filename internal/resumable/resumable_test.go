package resumable

import (
	"testing"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// TestNoUploadIsPutOverAnother: an archive may have been announced after the check for it, and
// that upload must remain findable.
func TestNoUploadIsPutOverAnother(t *testing.T) {
	s := New[int](8)
	key := episode.Key{Host: "h", Name: "e"}
	archive := wire.Upload{Key: key, Digest: digest.Digest{1}, Size: 5}
	open, known := s.GetOrCreate(wire.Upload{Key: key}, "open"), s.GetOrCreate(archive, "known")
	h, err := open.Acquire(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s.Finalize(h, archive)
	if s.Find(archive) != known || s.ByID("h", known.ID()) != known || s.ByID("h", open.ID()) != open || s.perHost["h"] != 2 {
		t.Errorf("%d uploads are left, and the archive's is %+v", s.perHost["h"], s.Find(archive))
	}
}
