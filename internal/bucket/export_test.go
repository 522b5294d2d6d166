package bucket

import (
	"net/http"
	"time"
)

// For tests.
var (
	ErrStalled  = errStalled
	OpenStalled = open // with a timeout for stalled requests
)

// ParseKeys returns the keys in the text of a credentials file.
func ParseKeys(text string) (access, secret string, err error) {
	k, err := parseKeys(text)
	return k.access, k.secret, err
}

// WatchedTransport returns a transport that cuts off stalled requests.
func WatchedTransport(next http.RoundTripper, stall time.Duration) http.RoundTripper {
	return watchedTransport{next, stall}
}
