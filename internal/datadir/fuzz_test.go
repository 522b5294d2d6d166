package datadir

import (
	"testing"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

func FuzzStoreName(f *testing.F) {
	f.Add([]byte(`{"schema_version":1,"id":"4TQ7ZC5WJ2M3N6PXVB1KD8RHSE","created_at":"2026-11-29T08:00:00Z","replaces":["OLD1"]}`))
	f.Add([]byte(`{"schema_version":1,"id":"unnamed","replaces":null}`))
	f.Add([]byte(`{"schema_version":1,"id":"a"} {}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseStoreName(b)
		s := wire.Store{ID: n.ID, Replaces: n.Replaces}
		if err == nil && s.Validate() != nil {
			t.Fatalf("%q is taken: %v", b, s.Validate())
		}
	})
}

func FuzzDisabledList(f *testing.F) {
	f.Add([]byte(`{"schema_version":1,"disabled":[{"host_id":"lab-01","since":"2026-11-29T10:00:00Z"}]}`))
	f.Add([]byte(`{"schema_version":1,"disabled":[]}`))
	f.Add([]byte(`{"disabled":null}`))
	f.Add([]byte(`{"schema_version":1,"disabled":[],"version":3,"change":"A","replaced":[{"host_id":"lab-01","not_before":"2026-11-29T10:00:00Z","by":"0A"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseDisabled(b)
		if err != nil {
			return
		}
		for host := range list.disabled {
			if _, err := episode.ParseName(string(host)); err != nil {
				t.Fatalf("%q: %v", b, err)
			}
		}
	})
}
