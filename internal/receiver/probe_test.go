package receiver

import (
	"testing"
	"time"

	"cis490/internal/bucket"
)

// A probe stands for one day, and for the endpoints, bucket and prefix that were probed.
func TestAProbeIsOfOneBucket(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	probed := probeResult{Endpoints: []string{"https://one", "https://two"}, Bucket: "lab", Prefix: "a/", At: now.Add(-23 * time.Hour)}
	same := bucket.Config{Endpoints: probed.Endpoints, Bucket: "lab", Prefix: "a/"}
	for _, tt := range []struct {
		name   string
		change func(*bucket.Config, *probeResult)
		want   bool
	}{
		{"the same", func(*bucket.Config, *probeResult) {}, true},
		{"a day old", func(_ *bucket.Config, p *probeResult) { p.At = now.Add(-24 * time.Hour) }, false},
		{"from the future", func(_ *bucket.Config, p *probeResult) { p.At = now.Add(time.Second) }, false},
		{"never", func(_ *bucket.Config, p *probeResult) { *p = probeResult{} }, false},
		{"another endpoint", func(c *bucket.Config, _ *probeResult) { c.Endpoints = []string{"https://one", "https://three"} }, false},
		{"one endpoint more", func(c *bucket.Config, _ *probeResult) { c.Endpoints = append(c.Endpoints, "https://three") }, false},
		{"another bucket", func(c *bucket.Config, _ *probeResult) { c.Bucket = "lab2" }, false},
		{"another prefix", func(c *bucket.Config, _ *probeResult) { c.Prefix = "" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p := same, probed
			tt.change(&c, &p)
			if got := p.isCurrent(c, now); got != tt.want {
				t.Errorf("isCurrent(%+v) of %+v: got %v, want %v", c, p, got, tt.want)
			}
		})
	}
}
