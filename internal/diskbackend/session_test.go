package diskbackend

import (
	"testing"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// TestNoUploadIsPutOverAnother: an archive may have been announced after the check for it, and
// that upload must remain findable.
func TestNoUploadIsPutOverAnother(t *testing.T) {
	s := newSessions(8)
	key := episode.Key{Host: "h", Name: "e"}
	archive := wire.Upload{Key: key, Digest: digest.Digest{1}, Size: 5}
	open, known := s.getOrCreate(wire.Upload{Key: key}), s.getOrCreate(archive)
	h, err := open.acquire(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s.finalizeLength(h, archive)
	if s.findSession(archive) != known || s.byID("h", known.id) != known || s.byID("h", open.id) != open || s.perHost["h"] != 2 {
		t.Errorf("%d uploads are left, and the archive's is %+v", s.perHost["h"], s.findSession(archive))
	}
}
