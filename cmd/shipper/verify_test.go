package main

import (
	"testing"
	"time"
)

// TestReceivedIsNeverZeroAgo: neither "0 ago" nor "- ago".
func TestReceivedIsNeverZeroAgo(t *testing.T) {
	now := time.Unix(1e9, 0)
	for old, want := range map[time.Duration]string{
		0:                "received less than a minute ago",
		29 * time.Second: "received less than a minute ago",
		60 * time.Second: "received 1m ago",
		90 * time.Minute: "received 2h ago",
		720 * time.Hour:  "received 30d ago",
		-time.Second:     "received at 2001-09-09T01:46:41Z, in the future: check the clock",
	} {
		if got := receivedAt(now.Add(-old), now); got != want {
			t.Errorf("%v: got %q, want %q", old, got, want)
		}
	}
	if got := receivedAt(time.Time{}, now); got != "received at an unknown time" {
		t.Errorf("without a time: %q", got)
	}
}
