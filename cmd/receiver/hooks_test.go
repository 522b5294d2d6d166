package main

import (
	"strings"
	"testing"
	"time"

	"cis490/internal/notify"
)

// TestQueueThatWaitsIsNotOK: of a command that fails only its unit knows.
func TestQueueThatWaitsIsNotOK(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		queue  string
		oldest time.Time
		want   string
	}{
		{notify.CommandQueue, time.Time{}, "ok"},
		{notify.CommandQueue, now.Add(-59 * time.Minute), "ok"},
		{notify.CommandQueue, now.Add(-61 * time.Minute), "waits: see 'journalctl -u cis490-hook'"},
		{notify.WebhookQueue, now.Add(-61 * time.Minute), "ok"}, // its own state says more
	} {
		if got := describeQueue(notify.QueueState{Queue: c.queue, Oldest: c.oldest}, now); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s since %v: %s, want %s", c.queue, c.oldest, got, c.want)
		}
	}
}
