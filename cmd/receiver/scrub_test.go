package main

import (
	"fmt"
	"strings"
	"testing"

	"cis490/internal/diskbackend"
	"cis490/internal/scrub"
)

// Healing what is only unreadable leads to uploads that meet the same obstacle.
func TestScrubAdvisesPermissionsAndDiskBeforeResending(t *testing.T) {
	if err := problemsOf(scrub.Progress{Objects: 3}); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	err := problemsOf(scrub.Progress{Unreadable: 2, NotOpened: 2})
	if err == nil || strings.Contains(err.Error(), "damaged or missing") || !strings.HasPrefix(err.Error(), "2 archives are unreadable: check their permissions and the disk first") {
		t.Errorf("of what is unreadable: %v", err)
	}
	err = problemsOf(scrub.Progress{Damaged: 1, Missing: 1})
	if err == nil || err.Error() != "2 archives are damaged or missing: 'shipper verify --heal' on their hosts sends them again" {
		t.Errorf("of what is lost: %v", err)
	}
}

// A pass that has not read all batches of the index has not read all archives.
func TestScrubReportsLostBatches(t *testing.T) {
	for _, tt := range []struct {
		p    scrub.Progress
		want string
	}{
		{scrub.Progress{NotOpened: 2}, "2 index batches are corrupt or lost"},
		{scrub.Progress{NotOpened: 3, Unreadable: 2}, "1 index batch is corrupt or lost"},
	} {
		if err := problemsOf(tt.p); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
		check, err := checkStatus(statusFacts{Status: diskbackend.Status{Scrub: tt.p}})
		if err != nil || !strings.Contains(fmt.Sprint(check), "of the index") {
			t.Errorf("the check: got %+v, %v, want the batches", check, err)
		}
	}
}
