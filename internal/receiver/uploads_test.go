package receiver

import (
	"testing"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// TestNoUploadIsPutOverAnother: an archive may have been announced since somebody
// looked whether it was, and what came of it must stay where it can be found.
func TestNoUploadIsPutOverAnother(t *testing.T) {
	s := newUploads(8)
	key := episode.Key{Host: "h", Name: "e"}
	archive := wire.Upload{Key: key, Digest: digest.Digest{1}, Size: 5}
	open, known := s.add(wire.Upload{Key: key}), s.add(archive)
	s.become(open, archive)
	if s.find(archive) != known || s.of("h", known.id) != known || s.of("h", open.id) != open || s.count["h"] != 2 {
		t.Errorf("%d uploads are left, and the archive's is %+v", s.count["h"], s.find(archive))
	}
}
