package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
	"cis490/internal/notify"
)

// TestHooksJudgeHostsAsTheCommandDoes: only those that are served. A host that reports is heard by its
// reports, another one by its contacts.
func TestHooksJudgeHostsAsTheCommandDoes(t *testing.T) {
	contact := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	reported := contact.Add(-time.Hour)
	host := func(name episode.Name, state datadir.HostState) hosts.Host {
		return hosts.Host{Host: datadir.Host{Host: name, State: state}}
	}
	reports, connects, never := host("reports", datadir.HostActive), host("connects", hosts.Expired), host("never", datadir.HostActive)
	reports.LastContact, reports.Report = &contact, &hosts.Report{ReceivedAt: reported}
	reports.Problems = []fleet.Problem{{Kind: "silent", Severity: fleet.Warning}}
	connects.LastContact = &contact
	connects.Problems = []fleet.Problem{{Kind: "certificate", Severity: fleet.Critical}}
	got := hostStates(facts{hosts: []hosts.Host{reports, host("disabled", datadir.HostDisabled), connects, host("removed", datadir.HostRemoved), never}})
	want := []notify.HostState{
		{Host: "reports", Silent: true, Contact: contact, Heard: reported},
		{Host: "connects", Contact: contact, Heard: contact},
		{Host: "never"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSpaceIsLowWhenUploadsAreRefusedOrSoonWillBe, and an event has only what is known.
func TestSpaceIsLowWhenUploadsAreRefusedOrSoonWillBe(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	hours := func(h float64) *float64 { return &h }
	for name, c := range map[string]struct {
		status diskbackend.Status
		low    bool
	}{
		"enough":           {diskbackend.Status{FreeBytes: 10, MinFree: 10}, false},
		"no bytes":         {diskbackend.Status{FreeBytes: 9, MinFree: 10}, true},
		"enough inodes":    {diskbackend.Status{FreeBytes: 10, FreeInodes: number(5), MinFreeInodes: 5}, false},
		"no inodes":        {diskbackend.Status{FreeBytes: 10, FreeInodes: number(4), MinFreeInodes: 5}, true},
		"full in a week":   {diskbackend.Status{FreeBytes: 10, FullInHours: hours(7 * 24)}, false},
		"full in two days": {diskbackend.Status{FreeBytes: 10, FullInHours: hours(2 * 24)}, true},
		"unknown":          {diskbackend.Status{FreeBytes: durable.UnknownSpace, MinFree: 10}, false},
	} {
		got := spaceState(facts{status: c.status})
		if got.Low != c.low || *got.Data.MinFree != c.status.MinFree || got.Data.FullIn != c.status.FullInHours {
			t.Errorf("%s: got low %t and %+v, want low %t", name, got.Low, got.Data, c.low)
		}
		if known := got.Data.Free != nil; known == (name == "unknown") {
			t.Errorf("%s: the event has free_bytes: %t", name, known)
		}
	}
	if got := spaceState(facts{statusErr: errors.New("unreadable")}); got != nil {
		t.Errorf("without a status: got %+v, want nothing", got)
	}
}

// TestEdgesBecomeEvents: a minute after the start for a disk without space, and once a host has not reported
// for long.
func TestEdgesBecomeEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := newFleet(t, 1)
		cfg.MinFree, cfg.Hooks.QueueDir = config.Bytes(1<<60), config.Path(t.TempDir())
		data, err := durable.Open(string(cfg.DataDir))
		fixture.Must(t, err)
		defer data.Close()
		lock, err := datadir.Lock(data, "receiver") // without a receiver, no host can report
		fixture.Must(t, err)
		defer lock.Unlock()
		hooks, err := notify.Open(cfg.Hooks, data, "test", slog.New(slog.DiscardHandler))
		fixture.Must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); watchEdges(ctx, hooks, &factSource{cfg: cfg}) }()
		time.Sleep(edgeInterval + time.Second)
		synctest.Wait()
		queued := func() (names []string) {
			for _, kind := range notify.Types() {
				found, err := filepath.Glob(filepath.Join(string(cfg.Hooks.QueueDir), "*-"+string(kind)+".json"))
				fixture.Must(t, err)
				for range found {
					names = append(names, string(kind))
				}
			}
			return names
		}
		if got, want := queued(), []string{"low_space"}; !reflect.DeepEqual(got, want) {
			t.Errorf("after a minute: got %q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got, want := queued(), []string{"host_silent", "low_space"}; !reflect.DeepEqual(got, want) {
			t.Errorf("after an hour: got %q, want %q", got, want)
		}
		cancel()
		<-ended
		if ended, err := hooks.Close(); !ended || err != nil {
			t.Errorf("closed: %t, %v", ended, err)
		}
	})
}
