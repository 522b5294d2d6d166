package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// TestDamageIsFound: every truncation is found. A flipped bit is found or harmless: zstd's
// stream has spare bits, and two encodings of one match.
func TestDamageIsFound(t *testing.T) {
	l := newUsualLab(t)
	l.writeNoise("blob.bin", 2<<10)
	packed, _ := l.pack()
	names, contents := readMembers(t, packed)
	harmless := 0
	for i := range packed {
		if archive.Verify(bytes.NewReader(packed[:i])) == nil {
			t.Fatalf("cut to %d of %d bytes: not found", i, len(packed))
		}
		broken := bytes.Clone(packed)
		broken[i] ^= 1 << (i % 8)
		if archive.Verify(bytes.NewReader(broken)) != nil {
			continue
		}
		harmless++
		n, c := readMembers(t, broken)
		if !slices.Equal(n, names) || !maps.Equal(c, contents) {
			t.Errorf("bit %d of byte %d of %d flipped: not found", i%8, i, len(packed))
		}
	}
	if harmless > len(packed)/50 {
		t.Errorf("%d of %d flips not found", harmless, len(packed))
	}
}

// TestNothingFollowsTheArchive: some tools would read what follows, and others would not.
func TestNothingFollowsTheArchive(t *testing.T) {
	packed, _ := newUsualLab(t).pack()
	plain := []byte(runTool(t, packed, "zstd", "-d", "-c"))
	cut := plain[:len(plain)-1024]
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	pack := func(b ...[]byte) []byte { return archive.Compressor(1 << 20)(bytes.Join(b, nil)) }
	zeros := make([]byte, 16<<20)
	for _, c := range []struct {
		name string
		b    []byte
		want string // part of the error; empty for none
	}{
		{"nothing", packed, ""},
		{"records filled up, as GNU tar and Python do", pack(plain, zeros[:9<<10]), ""},
		{"empty input", nil, "unexpected EOF"},
		{"a byte", append(bytes.Clone(packed), 0), "bytes follow the zstd frame"},
		{"the frame again", append(bytes.Clone(packed), packed...), "bytes follow the zstd frame"},
		{"a skippable frame", append(bytes.Clone(packed), skippable...), "bytes follow the zstd frame"},
		{"a skippable frame ahead", append(skippable, packed...), "skippable"},
		{"bytes after the tar", pack(plain, []byte("x")), "bytes follow the end of the tar"},
		{"a tar after the tar", pack(plain, plain), "bytes follow the end of the tar"},
		{"a bomb of zeros after the tar", pack(plain, zeros), "bytes follow the end of the tar"},
		{"no end of the tar", pack(cut), "the tar has no end"},
		{"half an end of the tar", pack(cut, zeros[:512]), "the tar has no end"},
		{"an empty frame", pack(), "the tar has no end"},
		{"no tar", pack([]byte(strings.Repeat("hello ", 1000))), "invalid tar header"},
		{"no zstd", []byte(strings.Repeat("hello ", 1000)), "zstd header"},
	} {
		err := archive.Verify(bytes.NewReader(c.b))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// TestForeignArchivesAreRead: those of the original program, and of common tools.
func TestForeignArchivesAreRead(t *testing.T) {
	l := newOddLab(t)
	python := runTool(t, nil, "python3", "-c",
		"import sys, tarfile\nwith tarfile.open(fileobj=sys.stdout.buffer, mode='w|') as t: t.add(sys.argv[1], arcname='ep-1')", l.episode)
	gnu := runTool(t, nil, "tar", "-c", "-C", l.parent, "ep-1")
	for _, c := range []struct{ tar, level string }{{python, "-19"}, {python, "-1"}, {gnu, "-3"}} {
		b := runTool(t, []byte(c.tar), "zstd", "-q", "-T0", c.level, "--stdout")
		if err := archive.Verify(strings.NewReader(b)); err != nil {
			t.Error(err)
		}
		m, err := archive.ReadMeta(strings.NewReader(b), name)
		if err != nil || m.Commit != "0123456789abcdef0123456789abcdef01234567" {
			t.Errorf("got %+v, %v, want Commit %q", m, err, "0123456789abcdef0123456789abcdef01234567")
		}
	}
}

// TestReadErrorIsPassedOn so that a failing disk is not taken for a corrupt archive.
func TestReadErrorIsPassedOn(t *testing.T) {
	l := newUsualLab(t)
	l.writeNoise("blob.bin", 300<<10)
	packed, _ := l.pack()
	disk := errors.New("disk")
	for _, at := range []int{0, 3, 5000, 200 << 10, len(packed)} {
		r := io.MultiReader(bytes.NewReader(packed[:at]), failingReader{disk})
		if err := archive.Verify(r); !errors.Is(err, disk) {
			t.Errorf("after %d bytes: got %v", at, err)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// packHeaders returns an archive of the given headers, each with its Size in zeros.
func packHeaders(t testing.TB, window int, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range headers {
		fixture.Must(t, tw.WriteHeader(&h))
		if _, err := tw.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	fixture.Must(t, tw.Close())
	return archive.Compressor(window)(b.Bytes())
}

// packBomb returns an archive of one file of size zeros: 32 bytes per MiB.
func packBomb(size int) io.Reader {
	var head bytes.Buffer
	h := tar.Header{Name: "ep-1/zeros", Size: int64(size), Mode: 0o644, Typeflag: tar.TypeReg}
	if err := tar.NewWriter(&head).WriteHeader(&h); err != nil {
		panic(err)
	}
	const raw, repeated, last = 0, 1 << 1, 1
	blockHeader := func(kind, size int) []byte {
		return []byte{byte(size<<3 | kind), byte(size >> 5), byte(size >> 13)}
	}
	const piece = 128 << 10
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3} // no size, no checksum, 8 MiB window
	frame = append(frame, blockHeader(raw, head.Len())...)
	frame = append(frame, head.Bytes()...)
	frame = append(frame, bytes.Repeat(append(blockHeader(repeated, piece), 0), size/piece)...)
	frame = append(frame, append(blockHeader(repeated|last, 1024), 0)...)
	return bytes.NewReader(frame)
}

// bytesAllocated returns how many bytes f allocates.
func bytesAllocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBombsCostNoMemory to a reader of an archive, and no time to ReadMeta.
func TestBombsCostNoMemory(t *testing.T) {
	const size = 1 << 30 // for Verify
	r := &countingReader{r: packBomb(16 * size)}
	got := bytesAllocated(func() {
		if m, err := archive.ReadMeta(r, name); err != nil || m != (episode.Meta{}) {
			t.Errorf("ReadMeta: got %+v, %v", m, err)
		}
	})
	if got > 24<<20 || r.n > 128<<10 {
		t.Errorf("ReadMeta allocated %d bytes and read %d", got, r.n)
	}
	if testing.Short() {
		return
	}
	whole := packBomb(size)
	got = bytesAllocated(func() {
		if err := archive.Verify(whole); err != nil {
			t.Errorf("Verify: got %v", err)
		}
	})
	if got > 24<<20 {
		t.Errorf("Verify allocated %d bytes", got)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// TestEmptyBlocksCostNoTime: they decode to nothing, forever.
func TestEmptyBlocksCostNoTime(t *testing.T) {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3}
	r := &countingReader{r: bytes.NewReader(append(frame, make([]byte, 3*16<<20)...))}
	if _, err := archive.ReadMeta(r, name); err == nil || r.n > 5<<20 {
		t.Errorf("got %v after %d bytes", err, r.n)
	}
}

// TestHugeWindowIsRefused before any memory is allocated for it.
func TestHugeWindowIsRefused(t *testing.T) {
	for _, b := range [][]byte{
		{0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0},                   // 2 GiB window
		{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0}, // a single segment of 4 GiB
		{0x28, 0xb5, 0x2f, 0xfd, 0, 13<<3 | 1, 1, 0, 0},                 // 9 MiB
		archive.Compressor(16 << 20)(make([]byte, 33<<20)),              // 16 MiB
	} {
		got := bytesAllocated(func() {
			_, err := archive.ReadMeta(bytes.NewReader(b), name)
			if verr := archive.Verify(bytes.NewReader(b)); err == nil || verr == nil || !strings.Contains(err.Error(), "memory") {
				t.Errorf("% x: got %v, %v", b[:9], err, verr)
			}
		})
		if got > 4<<20 {
			t.Errorf("% x: allocated %d bytes", b[:9], got)
		}
	}
}

// TestSparseMembersAreRefused: a map of a few bytes can describe any length.
func TestSparseMembersAreRefused(t *testing.T) {
	l := newUsualLab(t)
	l.write("hole", "")
	fixture.Must(l, os.Truncate(l.path("hole"), 1<<40))
	for _, format := range []string{"gnu", "posix"} {
		plain := runTool(t, nil, "tar", "-c", "-S", "--format="+format, "-C", l.parent, "ep-1")
		b := runTool(t, []byte(plain), "zstd", "-q", "-c")
		if err := archive.Verify(strings.NewReader(b)); err == nil || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("%s: got %v", format, err)
		}
	}
}

// TestReadMetaTakesExactlyTheEpisodesOwn file, and only a file.
func TestReadMetaTakesExactlyTheEpisodesOwn(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 2} }
	many := make([]tar.Header, 64)
	for i := range many {
		many[i] = file("ep-1/x")
	}
	for _, c := range []struct {
		name    string
		headers []tar.Header
		found   bool
	}{
		{"none", []tar.Header{file("ep-1/x")}, false},
		{"own", []tar.Header{file("ep-1/meta.json")}, true},
		{"behind others", append(many[:63:63], file("ep-1/meta.json")), true},
		{"behind too many", append(many, file("ep-1/meta.json")), false},
		{"behind a MiB", []tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 1 << 20}, file("ep-1/meta.json")}, false},
		{"another episode's", []tar.Header{file("ep-2/meta.json")}, false},
		{"with a dot", []tar.Header{file("./ep-1/meta.json")}, false},
		{"absolute", []tar.Header{file("/ep-1/meta.json")}, false},
		{"deeper", []tar.Header{file("ep-1/a/meta.json")}, false},
		{"a link", []tar.Header{{Name: "ep-1/meta.json", Typeflag: tar.TypeSymlink, Linkname: "x"}}, false},
		{"a directory", []tar.Header{{Name: "ep-1/meta.json/", Typeflag: tar.TypeDir}}, false},
	} {
		// Two NUL bytes are not JSON: the error shows that the file was read.
		_, err := archive.ReadMeta(bytes.NewReader(packHeaders(t, 1<<20, c.headers...)), name)
		if read := err != nil && strings.Contains(err.Error(), "meta.json"); read != c.found || err != nil && !read {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestReadMetaOfAPackedArchive finds the commit in the first block of an archive, and reports if there is
// no archive.
func TestReadMetaOfAPackedArchive(t *testing.T) {
	l := newUsualLab(t)
	l.writeNoise("aaa.bin", 4<<20)
	packed, _ := l.pack()
	m, err := archive.ReadMeta(bytes.NewReader(packed[:128<<10]), name)
	if err != nil || m.Commit != "0123456789abcdef0123456789abcdef01234567" {
		t.Errorf("got %+v, %v, want Commit %q", m, err, "0123456789abcdef0123456789abcdef01234567")
	}
	if _, err := archive.ReadMeta(strings.NewReader("not zstd"), name); err == nil {
		t.Error("no archive: no error")
	}
	if _, err := archive.ReadMeta(bytes.NewReader(packed[:20]), name); err == nil {
		t.Error("torn: no error")
	}
}
