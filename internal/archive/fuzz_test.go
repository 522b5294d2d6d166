package archive_test

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"cis490/internal/archive"
)

// addSeeds adds archives to start from: one of a Packer, a foreign one, the beginning of a
// bomb.
func addSeeds(f *testing.F) {
	l := newUsualLab(f)
	packed, _ := l.pack()
	f.Add(packed)
	f.Add(packed[:len(packed)/2])
	f.Add(packHeaders(f, 1<<20, tar.Header{Name: "ep-1/meta.json", Typeflag: tar.TypeReg, Size: 100}))
	f.Add(packHeaders(f, 1<<20, tar.Header{Name: "ep-1/l", Typeflag: tar.TypeSymlink, Linkname: "x", PAXRecords: map[string]string{"a.b": "c"}}))
	b, _ := io.ReadAll(io.LimitReader(packBomb(1<<20), 2000))
	f.Add(b)
}

// FuzzRead: no input makes Read panic, and Verify agrees with it.
func FuzzRead(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		var failed error
		for m, err := range archive.Read(bytes.NewReader(b)) {
			failed = err
			if err == nil {
				io.CopyN(io.Discard, m.Content, 1<<20)
			}
		}
		if err := archive.Verify(bytes.NewReader(b)); (err == nil) != (failed == nil) {
			t.Errorf("Verify says %v, Read %v", err, failed)
		}
	})
}

// FuzzReadUncompressed: the same below the zstd frame, which mutated bytes alone do not pass.
func FuzzReadUncompressed(f *testing.F) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	tw.WriteHeader(&tar.Header{Name: "ep-1/meta.json", Typeflag: tar.TypeReg, Size: 2, Format: tar.FormatPAX, PAXRecords: map[string]string{"x.y": "z"}})
	tw.Write([]byte("{}"))
	tw.Close()
	f.Add(b.Bytes())
	compress := archive.Compressor(128 << 10)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		packed := compress(b)
		err := archive.Verify(bytes.NewReader(packed))
		if _, merr := archive.ReadMeta(bytes.NewReader(packed), name); err == nil && merr != nil && !bytes.Contains(b, []byte("meta.json")) {
			t.Errorf("Verify says nothing, ReadMeta %v", merr)
		}
	})
}

// FuzzReadMeta: no input makes it panic, read beyond the entry or use much memory.
func FuzzReadMeta(f *testing.F) {
	addSeeds(f)
	good, _ := newUsualLab(f).pack()
	want, err := archive.ReadMeta(bytes.NewReader(good), name)
	if err != nil || want.Commit == "" {
		f.Fatalf("%+v, %v", want, err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r archive.MetaReader
		defer r.Close()
		m, err := r.Read(bytes.NewReader(b), name)
		if err != nil && m.Commit != "" || m.Commit != "" && len(m.Commit) != 40 {
			t.Errorf("got %+v, %v", m, err)
		}
		// After any input, it can read the next one.
		if m, err := r.Read(bytes.NewReader(good), name); err != nil || m != want {
			t.Errorf("afterwards it reads %+v, %v, want %+v", m, err, want)
		}
	})
}
