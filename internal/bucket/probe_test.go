package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/fixture"
)

var allChecks = []string{
	"access", "settings", "create-only", "signed-digest", "cut-body", "list", "multipart", "same-objects", "remove",
}

// probeMemory probes buckets in memory, and returns the checks that failed.
func probeMemory(t *testing.T, memories ...*buckettest.Memory) (failed []string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var endpoints []bucket.Endpoint
		for _, m := range memories {
			endpoints = append(endpoints, bucket.Endpoint{Name: "memory", Bucket: m})
		}
		var report bucket.Report
		report, err = bucket.Probe(t.Context(), endpoints...)
		failed = checkReport(t, report, err)
	})
	return failed, err
}

// checkReport checks that a report agrees with its error, and returns the checks that failed.
func checkReport(t *testing.T, report bucket.Report, err error) (failed []string) {
	t.Helper()
	var names []string
	for _, c := range report.Checks {
		names = append(names, c.Name)
		if c.Err != nil {
			failed = append(failed, c.Name)
			if err == nil || !strings.Contains(err.Error(), c.Name+": ") {
				t.Errorf("got %v, want an error that names %s", err, c.Name)
			}
		}
	}
	if !slices.Equal(names, allChecks[:len(names)]) || len(names) < len(allChecks) && failed == nil {
		t.Errorf("got the checks %q, want %q", names, allChecks)
	}
	if (err != nil) != (failed != nil) {
		t.Errorf("got %v, want an error exactly if a check failed: %q", err, failed)
	}
	return failed
}

func TestProbePassesOnTheContract(t *testing.T) {
	m := &buckettest.Memory{}
	for range 2 {
		if _, err := probeMemory(t, m, m); err != nil {
			t.Errorf("got %v, want no error", err)
		}
		if got := m.Names(); len(got) > 0 {
			t.Errorf("got the objects %q, want none", got)
		}
		if got := m.Uploads(); len(got) > 0 {
			t.Errorf("got the uploads %q, want none", got)
		}
	}
}

// TestProbeNamesWhatAnEngineBreaks: each engine that was tried breaks at least one of these.
func TestProbeNamesWhatAnEngineBreaks(t *testing.T) {
	for breach, want := range map[buckettest.Breach]string{
		buckettest.CreateReplaces:   "create-only",
		buckettest.CreateRaces:      "create-only",
		buckettest.StoreWrongDigest: "signed-digest",
		buckettest.StoreCutBody:     "cut-body",
		buckettest.ListLags:         "list",
		buckettest.ListByElement:    "list",
		buckettest.IgnorePartETags:  "multipart",
	} {
		m := &buckettest.Memory{Breach: breach}
		failed, err := probeMemory(t, m)
		if !slices.Equal(failed, []string{want}) {
			t.Errorf("breach %b: got %q failed (%v), want %s", breach, failed, err, want)
		}
		if got := m.Names(); len(got) > 0 {
			t.Errorf("breach %b: got the objects %q, want none", breach, got)
		}
	}
}

// badCreator is an engine whose Create breaks its promise only for some objects, or some content.
type badCreator struct {
	*buckettest.Memory
	only string // part of the names for which it does

	stores       bool // it refuses to create an object that exists, and stores the bytes
	acceptsEqual bool // it creates an object again if the bytes are the same
}

// Create implements [bucket.Bucket].
func (b badCreator) Create(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	err = b.Memory.Create(ctx, name, bytes.NewReader(content), size, d)
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(name, b.only) {
		return err
	}
	if b.stores {
		return errors.Join(err, b.Put(ctx, name, bytes.NewReader(content), size, d))
	}
	stored, _, serr := b.Open(ctx, name)
	if serr != nil {
		return serr
	}
	defer stored.Close()
	if got, _, _ := digest.Of(stored); b.acceptsEqual && got == d {
		return nil
	}
	return err
}

func TestProbeExaminesRefusedCreates(t *testing.T) {
	for name, engine := range map[string]badCreator{
		"created again with the same bytes": {only: "create-", acceptsEqual: true},
		"refused, and stored":               {only: "create-", stores: true},
		"refused to a loser, and stored":    {only: "creators-", stores: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine.Memory = new(buckettest.Memory)
				report, err := bucket.Probe(t.Context(), bucket.Endpoint{Name: "bad", Bucket: engine})
				if failed := checkReport(t, report, err); !slices.Equal(failed, []string{"create-only"}) {
					t.Errorf("got %q failed (%v), want create-only", failed, err)
				}
			})
		})
	}
}

func TestProbeComparesEndpoints(t *testing.T) {
	failed, err := probeMemory(t, &buckettest.Memory{}, &buckettest.Memory{})
	if !slices.Contains(failed, "create-only") || !slices.Contains(failed, "same-objects") {
		t.Errorf("got %q failed (%v), want create-only and same-objects", failed, err)
	}
}

func TestProbeStopsWithoutAccess(t *testing.T) {
	m := &buckettest.Memory{Fault: func(string, string) buckettest.Fault { return buckettest.LostBefore }}
	failed, err := probeMemory(t, m)
	if !slices.Equal(failed, []string{"access"}) || !errors.Is(err, buckettest.ErrLost) {
		t.Errorf("got %q failed, %v, want access only", failed, err)
	}
}

// TestProbeEndsWithItsContext: an interrupted probe says nothing of the engine.
func TestProbeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := &buckettest.Memory{Fault: func(op, _ string) buckettest.Fault {
			if op == buckettest.OpPut {
				cancel()
			}
			return buckettest.None
		}}
		_, err := bucket.Probe(ctx, bucket.Endpoint{Name: "memory", Bucket: m})
		if _, judged := errors.AsType[*bucket.ProbeError](err); !errors.Is(err, context.Canceled) || judged {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if got := m.Names(); len(got) > 0 {
			t.Errorf("got the objects %q, want none", got)
		}
	})
}

func TestSettingsOfTheBucketAreChecked(t *testing.T) {
	const none, locked = "<VersioningConfiguration/>", "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
	answers := func(status int, code, content string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if status != http.StatusOK {
				answerError(w, status, code, "")
			}
			fmt.Fprint(w, content)
		}
	}
	absent := answers(404, "ObjectLockConfigurationNotFoundError", "")
	for _, test := range []struct {
		name             string
		versioning, lock http.HandlerFunc
		want             string
	}{
		{"neither", answers(200, "", none), absent, ""},
		{"an engine without both", answers(501, "NotImplemented", ""), answers(405, "MethodNotAllowed", ""), ""},
		{"versioning", answers(200, "", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"), absent, "has versioning (Enabled)"},
		{"object lock", answers(200, "", none), answers(200, "", locked), "has object lock"},
		{"versioning may not be read", answers(403, "AccessDenied", ""), absent, "needs s3:GetBucketVersioning"},
		{"object lock may not be read", answers(200, "", none), answers(403, "AccessDenied", ""), "needs s3:GetBucketObjectLockConfiguration"},
		{"no bucket", answers(200, "", none), answers(404, "NoSuchBucket", ""), "has no bucket"},
	} {
		s := open(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("versioning") {
				test.versioning(w, r)
			} else {
				test.lock(w, r)
			}
		}))
		err := s.CheckSettings(t.Context())
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestProbeRemovesWhatAnotherLeft(t *testing.T) {
	m := &buckettest.Memory{}
	synctest.Test(t, func(t *testing.T) {
		fixture.Must(t, create(t.Context(), m, "probe/old/x", "x"))
		time.Sleep(25 * time.Hour)
		fixture.Must(t, create(t.Context(), m, "probe/running/x", "x"))
		if _, err := bucket.Probe(t.Context(), bucket.Endpoint{Name: "memory", Bucket: m}); err != nil {
			t.Error(err)
		}
	})
	if got, want := m.Names(), []string{"probe/running/x"}; !slices.Equal(got, want) {
		t.Errorf("got the objects %q, want %q", got, want)
	}
}
