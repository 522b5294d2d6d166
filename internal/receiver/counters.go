package receiver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cis490/internal/index"
	"cis490/internal/wire"
)

// counters count what the receiver does, for metrics.
type counters struct {
	requests    *prometheus.CounterVec
	stored      *prometheus.CounterVec
	storedBytes *prometheus.CounterVec
	commits     prometheus.Histogram
}

func newCounters() *counters {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	c := &counters{
		requests: counter("cis490_receiver_requests_total",
			"Requests by kind and result.", "request", "result"),
		stored: counter("cis490_receiver_stored_archives_total",
			"Archives stored since the start, with their rows.", "host"),
		storedBytes: counter("cis490_receiver_stored_bytes_total",
			"Bytes of those archives.", "host"),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cis490_receiver_commit_duration_seconds",
			Help:    "Time from the last byte of an upload until archive and row are durable.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	for _, kind := range wire.RequestKinds() {
		c.requests.WithLabelValues(kind, "ok") // starts at 0, so that the first request shows in a rate
	}
	return c
}

// Register registers the metrics of a running receiver.
func (r *Receiver) Register(reg *prometheus.Registry) error {
	gauge := func(name, help string, value func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	c, uploads := r.events.counters, r.backend.Uploads()
	for _, m := range []prometheus.Collector{
		c.requests, c.stored, c.storedBytes, c.commits,
		gauge("cis490_receiver_active_uploads", "Uploads in flight.", uploads.ActiveCount),
		gauge("cis490_receiver_queued_uploads", "Uploads that wait for their turn.", uploads.QueuedCount),
	} {
		if err := reg.Register(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *counters) countRequest(request, result string) {
	c.requests.WithLabelValues(request, result).Inc()
}

func (c *counters) countStored(row index.Row, took time.Duration) {
	host := string(row.Key.Host)
	c.stored.WithLabelValues(host).Inc()
	c.storedBytes.WithLabelValues(host).Add(float64(row.Size))
	c.commits.Observe(took.Seconds())
}
