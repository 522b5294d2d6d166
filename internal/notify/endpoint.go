package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/printable"
	"cis490/internal/retry"
)

// Limits of a request.
const (
	requestTimeout = 15 * time.Second // until the response has been read
	maxResponse    = 64 << 10         // bytes of it that are read, and ignored
	maxKeyFile     = 4 << 10
	maxErrorText   = 300 // bytes of an error that is logged and saved
	minHiddenPart  = 8   // bytes; a part of a URL that is this long may be a token
)

// endpoint is where requests are sent. Its URL is a secret: services such as chats and monitors accept
// anything that is sent to it.
type endpoint struct {
	url    string
	public string // its scheme and host, which may be shown
	secret []byte // nil for a heartbeat
}

// loadEndpoint reads the file with the URL and, unless secretFile is empty, the one with the secret.
func loadEndpoint(urlFile, secretFile string) (endpoint, error) {
	text, err := readKeyFile(urlFile)
	if err != nil {
		return endpoint{}, err
	}
	e, err := parseEndpoint(text)
	if err != nil {
		return endpoint{}, fmt.Errorf("%s: %w", urlFile, err)
	}
	if secretFile == "" {
		return e, nil
	}
	if text, err = readKeyFile(secretFile); err != nil {
		return endpoint{}, err
	}
	if e.secret, err = parseSecret(text); err != nil {
		return endpoint{}, fmt.Errorf("%s: %w", secretFile, err)
	}
	return e, nil
}

func readKeyFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := durable.ReadAtMost(f, path, maxKeyFile)
	return strings.TrimSpace(string(text)), err
}

// parseEndpoint parses a URL. Its errors do not contain it.
func parseEndpoint(text string) (endpoint, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return endpoint{}, errors.New("it is empty, but must contain a URL")
	case err != nil || u.Host == "":
		return endpoint{}, errors.New("it does not contain one valid URL, such as https://hooks.example/abc")
	case u.Scheme == "http" && !config.IsLoopback(u.Hostname()):
		return endpoint{}, errors.New("its URL must begin with https://: http is for this machine only")
	case u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, errors.New("its URL must begin with https://")
	}
	return endpoint{url: u.String(), public: u.Scheme + "://" + u.Host}, nil
}

// Sizes of a secret in bytes, by the Standard Webhooks specification.
const (
	minSecret = 24
	maxSecret = 64
)

const secretPrefix = "whsec_"

// parseSecret parses a secret. Its errors do not contain it.
func parseSecret(text string) ([]byte, error) {
	encoded, found := strings.CutPrefix(text, secretPrefix)
	secret, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case !found:
		return nil, errors.New("its secret must begin with whsec_")
	case err != nil:
		return nil, errors.New("what follows whsec_ must be base64")
	case len(secret) < minSecret || len(secret) > maxSecret:
		return nil, fmt.Errorf("its secret has %d bytes, and must have %d to %d", len(secret), minSecret, maxSecret)
	}
	return secret, nil
}

// sign returns the value of the header webhook-signature.
func sign(secret []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%d.", id, at.Unix())
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// StatusError says that a request got a response other than success.
type StatusError struct {
	Code       int
	RetryAfter time.Duration // 0 if the response does not say
}

func (e *StatusError) Error() string {
	if e.Code/100 == 3 {
		return fmt.Sprintf("it answered with a redirect (HTTP %d), which is not followed", e.Code)
	}
	return strings.TrimSpace(fmt.Sprintf("it answered with HTTP %d %s", e.Code, http.StatusText(e.Code)))
}

// newClient returns a client for requests to the URLs of operators. It keeps no cookies and follows no
// redirects: one would send the event to a host that the operator did not name.
func newClient() *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: requestTimeout}).DialContext,
			TLSHandshakeTimeout:   requestTimeout,
			ResponseHeaderTimeout: requestTimeout,
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConns:          1,

			MaxResponseHeaderBytes: maxResponse,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// sendRequest sends a request. It returns a [*StatusError] unless the response is a success. Its errors do
// not contain the URL.
func sendRequest(ctx context.Context, client *http.Client, method string, e endpoint, body io.Reader, header map[string]string) error {
	req, err := http.NewRequestWithContext(ctx, method, e.url, body)
	if err != nil {
		return errors.New("no request can be made with this URL")
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return hideURL(err, req.URL)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxResponse) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return &StatusError{resp.StatusCode, retry.ParseAfter(resp.Header.Get("Retry-After"), time.Now())}
}

// errLocation replaces an error of package net/http that repeats a header of the server.
var errLocation = errors.New("it answered with a redirect to an invalid address")

// hideURL returns the error of a request without the URL that package net/http adds. Some of these errors
// repeat up to 64 KiB of what the server sent, which may contain the URL.
func hideURL(err error, target *url.URL) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() {
			return fmt.Errorf("no response within %v", requestTimeout)
		}
		err = u.Err
	}
	text := err.Error()
	if strings.Contains(text, "Location header") {
		return errLocation
	}
	for _, part := range hiddenParts(target) {
		text = strings.ReplaceAll(text, part, "...")
	}
	return errors.New(printable.Clip(printable.Text(text), maxErrorText))
}

// hiddenParts returns the parts of a URL that must not be shown, the longest first: all but its scheme and
// host.
func hiddenParts(u *url.URL) []string {
	password, _ := u.User.Password()
	parts := []string{u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery, u.User.String(), password}
	for _, segments := range []string{u.EscapedPath(), u.Path, u.RawQuery} {
		for _, segment := range strings.FieldsFunc(segments, func(r rune) bool { return strings.ContainsRune("/&=", r) }) {
			if len(segment) >= minHiddenPart {
				parts = append(parts, segment)
			}
		}
	}
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" || part == "/" })
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	return parts
}
