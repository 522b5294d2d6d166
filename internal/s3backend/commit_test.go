package s3backend

import (
	"strings"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/index"
)

func FuzzParseCommit(f *testing.F) {
	archive := noise(1, 100)
	u := uploadOf("host-1", "run-1", archive)
	c := commit{generation: 1, object: archiveName(u.Key, u.Digest, 1), since: 3}
	c.row.Key, c.row.SHA256, c.row.Size = u.Key, u.Digest, u.Size
	f.Add([]byte(`{"row":` + strings.TrimSpace(string(c.row.Append(nil))) + `,"object":"` + c.object + `","since":3}`))
	f.Add([]byte(`{"row":{},"object":"episodes/host-2/run-1/x","since":-1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		key := episode.Key{Host: "host-1", Name: "run-1"}
		got, err := parseCommit(body, key, 1)
		if err == nil && (got.row.Key != key || got.since < 0 || !strings.HasPrefix(got.object, "episodes/host-1/run-1/")) {
			t.Errorf("%q: got %+v", body, got)
		}
	})
}

func FuzzParseTail(f *testing.F) {
	f.Add(index.FormatBatchTail(17, [32]byte{}))
	f.Add("b-1-x")
	f.Fuzz(func(t *testing.T, tail string) {
		if n, ok := index.ParseBatchTail(tail); ok && n < 1 {
			t.Errorf("%q: got batch %d", tail, n)
		}
	})
}

func FuzzParseUploadDir(f *testing.F) {
	f.Add("uploads/host-1/0123456789abcdef0123456789abcdef/")
	f.Add("uploads/../x/")
	f.Fuzz(func(t *testing.T, dir string) {
		u, ok := parseUploadDir(dir)
		if ok && (uploadsPrefix+string(u.host)+"/"+u.id+"/" != dir || len(u.id) != 32) {
			t.Errorf("%q: got %+v", dir, u)
		}
	})
}
