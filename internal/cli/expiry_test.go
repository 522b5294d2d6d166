package cli

import (
	"slices"
	"testing"
	"time"
)

func TestExpiryIsWarnedOfThreeTimesAndAtTheEnd(t *testing.T) {
	const day = 24 * time.Hour
	end := time.Date(2027, 5, 1, 12, 0, 0, 0, time.UTC)
	var w ExpiryWarner
	var days []int
	for left := 60 * day; left > -10*day; left -= day {
		if w.IsDue(end, end.Add(-left)) {
			days = append(days, int(left/day))
		}
		if w.IsDue(end, end.Add(-left)) {
			t.Errorf("%d days before the end it warns twice", left/day)
		}
	}
	if want := []int{30, 7, 1, 0}; !slices.Equal(days, want) {
		t.Errorf("it warns %v days before, want %v", days, want)
	}
	if next := end.Add(365 * day); w.IsDue(next, end) {
		t.Error("it warns of the renewed certificate")
	}
	if !w.IsDue(end.Add(5*day), end) {
		t.Error("after a start, it does not warn of a certificate that ends in 5 days")
	}
}
