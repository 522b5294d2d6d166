package main

import (
	"strings"
	"testing"

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
