package index_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"cis490/internal/indextest"

	"cis490/internal/fixture"
	"cis490/internal/index"
)

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprint("uploads=", n), func(b *testing.B) {
			l := indextest.OpenLog(b, b.TempDir()) // on a disk: its syncs dominate
			jobs := make(chan index.Row, n)
			done := make(chan error, n)
			for range n {
				go func() {
					var first error
					for r := range jobs {
						if _, err := l.Append(b.Context(), r); err != nil {
							first = err
						}
					}
					done <- first
				}()
			}
			for i := 0; b.Loop(); i++ {
				jobs <- indextest.Row(i)
			}
			close(jobs)
			for range n {
				fixture.Must(b, <-done)
			}
			b.ReportMetric(float64(b.N)/float64(l.CommitCount()), "rows/commit")
		})
	}
}

func BenchmarkRows(b *testing.B) {
	var ours []byte
	for i := range 10_000 {
		ours = indextest.Row(i).Append(ours)
	}
	foreign := bytes.ReplaceAll(ours, []byte(": "), []byte(":"))
	for name, in := range map[string][]byte{"ours": ours, "other": foreign} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			n := 0
			for b.Loop() {
				for _, err := range index.ReadRows(bytes.NewReader(in)) {
					fixture.Must(b, err)
					n++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
		})
	}
}

func BenchmarkRowAppend(b *testing.B) {
	buf, r := make([]byte, 0, 1024), indextest.Row(1)
	r.Commit = strings.Repeat("a", 40)
	for b.Loop() {
		buf = r.Append(buf[:0])
	}
}
