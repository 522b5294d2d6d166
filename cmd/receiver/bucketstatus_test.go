package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/doctor"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/metrics"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
	"cis490/internal/terminal"
	"cis490/internal/wire"
)

// newBucketStore stores two archives in a bucket, with a copy of the index in the data directory of a
// receiver, and scrubs them.
func newBucketStore(t *testing.T) receiver.Config {
	t.Helper()
	cfg := receiver.DefaultConfig()
	cfg.DataDir = config.Path(filepath.Join(t.TempDir(), "data"))
	cfg.Store = receiver.StoreConfig{Kind: receiver.StoreOnS3, S3: buckettest.Versitygw(t)}
	data, err := durable.Create(string(cfg.DataDir))
	fixture.Must(t, err)
	defer data.Close()
	in, err := bucket.Open(cfg.Store.S3)
	fixture.Must(t, err)
	log := slog.New(slog.DiscardHandler)
	b, err := s3backend.Open(t.Context(), in, s3backend.Options{
		Limits: wire.Limits{MaxSize: 1 << 20, Uploads: 4, UploadsPerHost: 4}, SpoolDir: t.TempDir(), Data: data, Log: log,
	})
	fixture.Must(t, err)
	defer b.Close()
	for i, name := range []string{"run-1", "run-2"} {
		archive := backendtest.PackNoise(1000, byte(i))
		_, err := b.Put(t.Context(), backendtest.UploadOf(backendtest.Key("host-1", name), archive), bytes.NewReader(archive))
		fixture.Must(t, err)
	}
	fixture.Must(t, b.CopyIndex(t.Context()))
	_, err = s3backend.ScrubOnce(t.Context(), in, scrub.Options{}, log)
	fixture.Must(t, err)
	return cfg
}

// status returns what 'receiver status' prints.
func printedStatus(t *testing.T, cfg receiver.Config) (statusFacts, string) {
	t.Helper()
	now := time.Now()
	st, err := inspectStatus(cfg, now)
	fixture.Must(t, err)
	var b strings.Builder
	fixture.Must(t, printState(&b, terminal.Painter{}, st, now))
	return st, b.String()
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	joined := strings.Join(strings.Fields(got), " ")
	for _, line := range want {
		if !strings.Contains(joined, line) {
			t.Errorf("%q is missing:\n%s", line, got)
		}
	}
}

func scrapeBucket(t *testing.T, cfg receiver.Config) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	reg := metrics.NewRegistry("receiver", cli.Version())
	fixture.Must(t, reg.Register(&metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		return setFacts(to, readFacts(cfg, nil, nil, time.Now()))
	}}))
	w := httptest.NewRecorder()
	metrics.Handler(reg, log).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func TestStatusDescribesTheBucket(t *testing.T) {
	cfg := newBucketStore(t)
	st, text := printedStatus(t, cfg)
	wantLines(t, text, "bucket receivers at http://127.0.0.1:", ": answers", "archives 2, 2.", "the copy here has them",
		"unfinished 0 uploads", "quarantine 0 archives", "store "+st.Store.ID, "scrub not started", "probe unknown")
	if strings.Contains(text, "disk ") {
		t.Errorf("it describes a disk:\n%s", text)
	}
	got := scrapeBucket(t, cfg)
	for _, want := range []string{
		"cis490_receiver_bucket_up 1", "cis490_receiver_bucket_archives 2", "cis490_receiver_quarantined_files 0",
		"cis490_receiver_bucket_unfinished_uploads 0", "cis490_receiver_scrub_archives 0", "cis490_receiver_bucket_index_batches_behind 0",
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("%s is missing:\n%s", want, got)
		}
	}

	// A receiver that has not run yet knows the bucket, and has no copy of the index.
	fresh := cfg
	fresh.DataDir = config.Path(t.TempDir())
	_, text = printedStatus(t, fresh)
	wantLines(t, text, ": answers", "archives unknown", "store "+st.Store.ID)
	if strings.Contains(text, "problem") {
		t.Errorf("a receiver that has not run has a problem:\n%s", text)
	}

	// What cannot be asked is unknown, and not zero.
	cfg.Store.S3.Endpoints = []string{"http://127.0.0.1:1"}
	st, text = printedStatus(t, cfg)
	wantLines(t, text, ": see problem", "archives 2, 2.", "unfinished unknown", "quarantine unknown", "store unknown", "scrub unknown", "problem the object store: ")
	if check, err := checkStatus(st); err != nil || strings.Contains(strings.Join(check.Values, " "), "quarantine") || !strings.Contains(strings.Join(check.Values, " "), "free=") {
		t.Errorf("--check: got %+v, %v, want no count of the quarantine", check, err)
	}
	got = scrapeBucket(t, cfg)
	for _, unwanted := range []string{"cis490_receiver_quarantined_files", "cis490_receiver_scrub_archives", "cis490_receiver_bucket_unfinished_uploads"} {
		if strings.Contains(got, "\n"+unwanted) {
			t.Errorf("%s is known:\n%s", unwanted, got)
		}
	}
	if !strings.Contains(got, "\ncis490_receiver_bucket_up 0\n") {
		t.Errorf("the object store is up:\n%s", got)
	}
}

// TestStatusSaysThatTheStoreHasLeft, and so does doctor, with what to do.
func TestStatusSaysThatTheStoreHasLeft(t *testing.T) {
	cfg := newBucketStore(t)
	in, err := bucket.Open(cfg.Store.S3)
	fixture.Must(t, err)
	fixture.Must(t, batchlog.Fence(t.Context(), in, 2, "data_dir /srv of pi", "id"))
	st, text := printedStatus(t, cfg)
	const fact = "the store has moved from this bucket to data_dir /srv of pi: start the receiver there"
	wantLines(t, text, ": answers", "the copy here has them", "problem "+fact)
	if check, err := checkStatus(st); err != nil || check.Code != cli.MonitorCritical || !strings.Contains(fmt.Sprint(check), fact) {
		t.Errorf("--check: got %+v, %v, want %q", check, err, fact)
	}
	found := judgeStorage(st.Status, st.Bucket)
	if len(found) != 1 || found[0].Verdict != doctor.Failed || !strings.Contains(found[0].Fact, "/srv of pi") || !strings.Contains(found[0].Remedy, "stop this receiver") {
		t.Errorf("doctor: got %+v", found)
	}
}

func TestDoctorJudgesAnObjectStore(t *testing.T) {
	in, err := bucket.Open(newBucketStore(t).Store.S3)
	fixture.Must(t, err)
	for _, f := range examineEndpoint(t.Context(), in.Endpoints()[0]) {
		if f.Verdict != doctor.OK && f.Check != "latency" { // which depends on this machine
			t.Errorf("got %+v", f)
		}
	}
	for _, tt := range []struct {
		skew  time.Duration
		known bool
		want  doctor.Verdict
	}{{0, true, doctor.OK}, {-4 * time.Second, true, doctor.OK}, {-5 * time.Second, true, doctor.Warning}, {time.Hour, true, doctor.Failed}, {0, false, doctor.Skipped}} {
		if got := judgeSkew("https://s3.lab", tt.skew, tt.known); got.Verdict != tt.want {
			t.Errorf("a skew of %v: got %+v, want %v", tt.skew, got, tt.want)
		}
	}
	for _, tt := range []struct {
		median, longest time.Duration
		want            doctor.Verdict
	}{{time.Millisecond, time.Second, doctor.OK}, {time.Second, time.Second, doctor.Warning}, {time.Millisecond, 6 * time.Second, doctor.Failed}} {
		times := []time.Duration{0, tt.median, tt.longest}
		if got := judgeLatency("https://s3.lab", times, times, nil); got.Verdict != tt.want {
			t.Errorf("%v: got %+v, want %v", times, got, tt.want)
		}
	}
}
