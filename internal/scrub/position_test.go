package scrub_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
)

func FuzzScrubProgress(f *testing.F) {
	f.Add([]byte(`{"started":"2026-01-01T00:00:00Z","decoded":true,"host_id":"a","episode_id":"b","objects":-1}`))
	f.Add([]byte(`{"started":"2026-01-01T00:00:00Z","decoded":true,"last":{"host_id":"a"},"hosts":[{"host_id":"../a"}]}`))
	f.Add([]byte("null"))
	dir := f.TempDir()
	data, err := durable.Open(dir)
	fixture.Must(f, err)
	f.Cleanup(func() { data.Close() })
	f.Fuzz(func(t *testing.T, text []byte) {
		fixture.Must(t, os.WriteFile(filepath.Join(dir, "scrub.json"), text, 0o640))
		p, err := scrub.LoadProgress(data)
		if err != nil && (p.Host != "" || p.Episode != "") {
			t.Errorf("%q: an error and a position: %v, %+v", text, err, p)
		}
		for _, name := range []episode.Name{p.Host, p.Episode} {
			if _, err := episode.ParseName(string(name)); name != "" && err != nil {
				t.Errorf("%q leads to %q", text, name)
			}
		}
		_, err = json.Marshal(p)
		fixture.Must(t, err)
	})
}
