package notify_test

import (
	"fmt"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/notify"
)

// TestEachNameIsReportedOnce: also of a host with more of them than the status page lists, and none of a
// host that has too many.
func TestEachNameIsReportedOnce(t *testing.T) {
	var r notify.Reported
	key := func(host string, n int) episode.Key {
		return episode.Key{Host: episode.Name(host), Name: episode.Name(fmt.Sprintf("run-%d", n))}
	}
	reported := func(host string, n int) (count int) {
		for i := range n {
			if r.Add(key(host, i)) {
				count++
			}
		}
		return count
	}
	for i, want := range []int{500, 0} {
		if got := reported("lab-01", 500); got != want {
			t.Errorf("round %d: %d of 500 names, want %d", i, got, want)
		}
	}
	for i, want := range []int{notify.MaxReported, 0} {
		if got := reported("lab-02", notify.MaxReported+100); got != want {
			t.Errorf("round %d: %d names, want %d", i, got, want)
		}
	}
	r.Remove(key("lab-02", 7))
	if !r.Add(key("lab-02", 7)) || r.Add(key("lab-02", 7)) {
		t.Error("a name that was forgotten is not reported once")
	}
	r.Remove(key("lab-03", 7))
	for i := range 2 * notify.MaxReportedHosts {
		r.Add(key(fmt.Sprintf("other-%d", i), 0))
	}
	if r.Add(key("last", 0)) {
		t.Error("the number of hosts has no limit")
	}
}
