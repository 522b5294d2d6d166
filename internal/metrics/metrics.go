// Package metrics makes metrics for Prometheus of facts that other packages read from the disk.
//
// Counters of what a daemon does belong to the daemon. [Live] is for what it has in memory, and [State] for
// what its directories contain. Callers limit how often they read those, with [snapshot.Shared].
//
// Invariant: a label has few values. Hosts may be one, and words from a closed list; never an
// episode, nor text that a host sends.
package metrics

import (
	"bytes"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// maxScrapes is the maximum number of scrapes whose responses are in memory.
const maxScrapes = 4

// Desc returns the description of a metric. Its name must follow Prometheus's conventions, since users
// rely on it.
func Desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// NewRegistry returns a registry with the version of a program.
func NewRegistry(program, version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "cis490_build_info", Help: "The version of the program. Always 1."},
		[]string{"program", "version", "goversion"})
	info.WithLabelValues(program, version, runtime.Version()).Set(1)
	reg.MustRegister(info)
	return reg
}

// AddProcess adds metrics of the process of a daemon that starts now. The library's own start time needs
// /proc/stat, which the units hide.
func AddProcess(reg *prometheus.Registry) {
	start := prometheus.NewGauge(prometheus.GaugeOpts{Name: "cis490_start_timestamp_seconds", Help: "When the daemon started. Counters begin then."})
	start.SetToCurrentTime()
	reg.MustRegister(start, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// Handler serves what reg gathers. If a collector fails, the response has the metrics of the others.
func Handler(reg *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Text returns what reg gathers, for a file.
func Text(reg *prometheus.Registry) ([]byte, error) {
	families, err := reg.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// Live is a [prometheus.Collector] of what is in memory, as it is at the moment of a scrape.
type Live func(*Reading)

// Describe describes nothing: which metrics there are depends on the state.
func (l Live) Describe(chan<- *prometheus.Desc) {}

// Collect collects the metrics.
func (l Live) Collect(to chan<- prometheus.Metric) {
	var r Reading
	l(&r)
	for _, m := range r.metrics {
		to <- m
	}
}

// Reading collects the metrics of one reading of a state.
type Reading struct{ metrics []prometheus.Metric }

// Set sets a gauge.
func (r *Reading) Set(d *prometheus.Desc, value float64, labels ...string) {
	r.metrics = append(r.metrics, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...))
}

// SetInt sets a gauge to an integer.
func (r *Reading) SetInt(d *prometheus.Desc, value int64, labels ...string) {
	r.Set(d, float64(value), labels...)
}

// SetBool sets a gauge to 1 or 0.
func (r *Reading) SetBool(d *prometheus.Desc, value bool, labels ...string) {
	number := 0.0
	if value {
		number = 1
	}
	r.Set(d, number, labels...)
}

// SetTime sets a gauge to a Unix time, unless that is unknown.
func (r *Reading) SetTime(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		r.Set(d, float64(t.UnixMilli())/1000, labels...)
	}
}

// Count sets a counter.
func (r *Reading) Count(d *prometheus.Desc, value float64, labels ...string) {
	r.metrics = append(r.metrics, prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...))
}

// State is a [prometheus.Collector] of a state that can fail to be read.
type State struct {
	// Read sets what it could read, and returns why it could not read the rest.
	Read func(*Reading) error
	// Success is the description of a gauge that is 1 if Read returned no error.
	Success *prometheus.Desc
	Log     *slog.Logger

	mu      sync.Mutex
	failure string // of the last call of Read; guarded by mu
}

// Describe describes nothing: which metrics there are depends on the state.
func (s *State) Describe(chan<- *prometheus.Desc) {}

// Collect collects the metrics. It logs each failure once.
func (s *State) Collect(to chan<- prometheus.Metric) {
	Live(func(r *Reading) {
		err := s.Read(r)
		r.SetBool(s.Success, err == nil)
		s.logFailure(err)
	}).Collect(to)
}

func (s *State) logFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if err != nil && failure != s.failure {
		s.Log.Warn("state for metrics not read", "err", err)
	}
	s.failure = failure
}
