package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// packZeros returns an archive of one file of n zeros.
func packZeros(tb testing.TB, n int64) []byte {
	tb.Helper()
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	fixture.Must(tb, err)
	w := tar.NewWriter(enc)
	err = w.WriteHeader(&tar.Header{Name: "run-1/zeros", Mode: 0o644, Size: n})
	if err == nil {
		_, err = w.Write(make([]byte, n))
	}
	fixture.Must(tb, errors.Join(err, w.Close(), enc.Close()))
	return b.Bytes()
}

func TestVerifyUpToDecodesNoMore(t *testing.T) {
	bomb := packZeros(t, 64<<20)
	if err := archive.VerifyUpTo(bytes.NewReader(bomb), 128<<20); err != nil {
		t.Errorf("within the limit: %v", err)
	}
	if err := archive.VerifyUpTo(bytes.NewReader(bomb), 1<<20); !errors.Is(err, archive.ErrExpands) {
		t.Errorf("beyond the limit: got %v, want ErrExpands", err)
	}
	bomb[len(bomb)-1] ^= 1 // of the checksum
	if err := archive.VerifyUpTo(bytes.NewReader(bomb), 128<<20); err == nil || errors.Is(err, archive.ErrExpands) {
		t.Errorf("of a damaged archive within the limit: %v", err)
	}
}

// Archives of honest hosts are decoded completely: dense telemetry, and the smallest tar.
func TestExpansionLimitCoversTelemetry(t *testing.T) {
	for _, c := range []struct{ size, decoded int64 }{{1 << 30, 50 << 30}, {150, 10 << 10}, {300, 400 << 10}} {
		if limit := archive.ExpansionLimit(c.size); limit < c.decoded {
			t.Errorf("%d bytes may decode to %d, and telemetry does to %d", c.size, limit, c.decoded)
		}
	}
}
