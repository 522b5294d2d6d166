package cli

import (
	"sync"
	"time"
)

// FirstExpiryWarning is how long before its end a certificate is first warned about.
const FirstExpiryWarning = 30 * 24 * time.Hour

// expiryWarnings are how long before its end a certificate is warned about, the longest first.
var expiryWarnings = []time.Duration{FirstExpiryWarning, 7 * 24 * time.Hour, 24 * time.Hour, 0}

// ExpiryWarner decides when to warn that a certificate expires: 30, 7 and 1 days before, and when it
// has expired. The zero value has warned of nothing. It is safe for concurrent use: a reload may come
// while the daily check runs.
type ExpiryWarner struct {
	mu       sync.Mutex // guards the fields below
	notAfter time.Time  // of the certificate that it has warned of
	count    int        // of the warnings that were due
}

// IsDue reports whether to warn now of a certificate that expires at notAfter. It reports true once
// for each of the times, for the same certificate.
func (w *ExpiryWarner) IsDue(notAfter, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !notAfter.Equal(w.notAfter) {
		w.notAfter, w.count = notAfter, 0
	}
	left, before := notAfter.Sub(now), w.count
	for w.count < len(expiryWarnings) && left <= expiryWarnings[w.count] {
		w.count++
	}
	return w.count > before
}

// DaysLeft returns how many whole days are left of a certificate.
func DaysLeft(notAfter, now time.Time) int { return int(notAfter.Sub(now).Hours() / 24) }

// FormatValidity says until when a certificate is valid and, unless renewsAt is nil, when it is renewed.
func FormatValidity(notAfter time.Time, renewsAt *time.Time) string {
	text := "valid until " + notAfter.UTC().Format(time.DateOnly)
	if renewsAt != nil {
		text += "; " + FormatRenewal(*renewsAt, time.Now())
	}
	return text
}

// FormatRenewal says when a certificate is renewed.
func FormatRenewal(at, now time.Time) string {
	if now.After(at) {
		return "due for renewal since " + at.UTC().Format(time.DateOnly)
	}
	return "renews itself from " + at.UTC().Format(time.DateOnly)
}
