package archive

import (
	"io"

	"github.com/klauspost/compress/zstd"
)

// NewPackerAt returns a Packer with another level and window, for comparison.
func NewPackerAt(l int, window int) *Packer { return newPacker(zstd.EncoderLevel(l), window) }

// NewPackerOf returns a Packer with a number of goroutines, whatever the size of an
// episode.
func NewPackerOf(goroutines int) *Packer {
	p := NewPacker()
	p.enc = newEncoder(encoderLevel, splitWindowSize, goroutines)
	return p
}

// Compressor returns a writer of one frame over b, for archives that no Packer would make.
func Compressor(window int) func(b []byte) []byte {
	p := newPacker(zstd.SpeedFastest, window)
	return func(b []byte) []byte { return p.enc.EncodeAll(b, nil) }
}

// Verify returns nil if the archive in r decodes to its end.
func Verify(r io.Reader) error {
	for _, err := range Read(r) {
		if err != nil {
			return err
		}
	}
	return nil
}
