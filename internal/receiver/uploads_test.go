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

// TestOneAddressLeavesConnectionsToOthers, whatever is configured.
func TestOneAddressLeavesConnectionsToOthers(t *testing.T) {
	for _, uploads := range []int{1, 64, 512, 4096} {
		c := newConns(LimitsConfig{Uploads: uploads, UploadsPerHost: 8})
		if c.mostUnknown < fewStrangers || 4*c.mostUnknown > c.most {
			t.Errorf("%d uploads: one address may have %d of %d connections", uploads, c.mostUnknown, c.most)
		}
	}
}
