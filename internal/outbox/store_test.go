package outbox_test

import (
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
)

// FuzzStore: any content of the file is either a store that can be adopted again unchanged, or
// an error. It never counts as no store.
func FuzzStore(f *testing.F) {
	for _, s := range []string{`{"id":"STORE1","index_bytes":300,"index_tail":"ab"}`, `{"id":""}`, `{"id":"X","index_bytes":-1}`, "null", "", `{"id":"X"} x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := t.TempDir()
		dir, err := durable.Open(path)
		fixture.Must(t, err)
		o := outbox.New(dir)
		defer o.Close()
		if s, err := o.ReadStore(); err != nil || s != (outbox.Store{}) {
			t.Fatalf("of no file: %+v, %v", s, err)
		}
		fixture.Must(t, os.WriteFile(filepath.Join(path, ".store.json"), b, 0o640))
		s, err := o.ReadStore()
		if err != nil {
			return
		}
		if s.ID == "" || s.IndexBytes < 0 {
			t.Fatalf("%q is %+v", b, s)
		}
		fixture.Must(t, o.AdoptStore(s))
		if again, err := o.ReadStore(); err != nil || again != s {
			t.Fatalf("%+v comes back as %+v, %v", s, again, err)
		}
	})
}
