package bucket

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"

	"cis490/internal/printable"
)

const maxErrorText = 300 // bytes of an engine's error

// requestError is an error of a request whose text has no keys.
type requestError struct {
	text string
	err  error
}

func (e *requestError) Error() string { return e.text }
func (e *requestError) Unwrap() error { return e.err }

// sentinels are the errors of an engine that callers distinguish, by their codes.
var sentinels = map[string]error{
	"XAmzContentSHA256Mismatch": ErrDigest,
	"BadDigest":                 ErrDigest,
	"InvalidDigest":             ErrDigest,
	"IncompleteBody":            ErrDigest,

	"QuotaExceeded":                  ErrFull,
	"ServiceQuotaExceededException":  ErrFull,
	"XMinioStorageFull":              ErrFull,
	"XMinioAdminBucketQuotaExceeded": ErrFull,
	"InsufficientStorage":            ErrFull,
	"InsufficientCapacity":           ErrFull,

	"NoSuchUpload":     ErrNoUpload,
	"InvalidPart":      ErrPart,
	"InvalidPartOrder": ErrPart,
}

// explain translates an error of package minio: one that callers distinguish wraps one of this
// package, and one that an operator can fix says how.
func (s *S3) explain(err error, e *endpoint, x exchange) error {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return &requestError{printable.Clip(printable.Text(explainNetwork(err, e)), maxErrorText), err}
	}
	sentinel := sentinels[response.Code]
	if response.StatusCode == http.StatusInsufficientStorage {
		sentinel = ErrFull
	}
	if x.missing {
		sentinel = fs.ErrNotExist
	}
	if sentinel != nil {
		return &requestError{fmt.Sprintf("%v (%s)", sentinel, printable.Name(response.Code)), errors.Join(sentinel, err)}
	}
	text := s.advice(response, e, x)
	if text == "" {
		text = fmt.Sprintf("%s answered with HTTP %d: %s", e.url, response.StatusCode, s.keys.hide(response.Error())) // which may repeat the request
	}
	text = printable.Clip(printable.Text(text), maxErrorText)
	return &requestError{text + " (" + printable.Name(response.Code) + ")", err}
}

// advice returns what an operator must do about a response, or "".
func (s *S3) advice(r minio.ErrorResponse, e *endpoint, x exchange) string {
	switch r.Code {
	case "InvalidAccessKeyId", "XAdminUserNotFound": // the latter of versitygw
		return fmt.Sprintf("%s does not know the access key in %s: correct the file, or create the key", e.url, s.keysFile)
	case "SignatureDoesNotMatch":
		return fmt.Sprintf("%s refuses the signature: correct the secret key in %s", e.url, s.keysFile)
	case "AccessDenied":
		return fmt.Sprintf("%s denies access: allow the access key to get, put, delete and list objects of bucket %s below %q", e.url, s.config.Bucket, s.prefix)
	case "NoSuchBucket":
		return fmt.Sprintf("%s has no bucket %s: create it, or correct bucket", e.url, s.config.Bucket)
	case "RequestTimeTooSkewed":
		there := "another time"
		if !x.serverTime.IsZero() {
			there = x.serverTime.UTC().Format(time.RFC3339)
		}
		return fmt.Sprintf("the clocks differ too much: it is %s here, and %s at %s: synchronize both by NTP", time.Now().UTC().Format(time.RFC3339), there, e.url)
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		return s.wrongRegion(r, e)
	case "SlowDown", "ServiceUnavailable", "SlowDownRead", "SlowDownWrite":
		return e.url + " is overloaded"
	}
	switch {
	case r.StatusCode/100 == 3:
		return s.wrongRegion(r, e)
	case r.StatusCode == http.StatusNotFound:
		return fmt.Sprintf("%s did not answer as an object store does: correct endpoints and path_style, or the proxy there", e.url)
	}
	return ""
}

func (s *S3) wrongRegion(r minio.ErrorResponse, e *endpoint) string {
	if r.Region != "" && r.Region != s.config.Region {
		return fmt.Sprintf("bucket %s is in region %s, not in %s: correct region and endpoints", s.config.Bucket, r.Region, s.config.Region)
	}
	return fmt.Sprintf("%s does not serve bucket %s in region %s: correct region, endpoints or path_style", e.url, s.config.Bucket, s.config.Region)
}

// explainNetwork returns the text for an error without a response.
func explainNetwork(err error, e *endpoint) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	host, _ := errors.AsType[x509.HostnameError](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	notTLS = notTLS || errors.Is(err, http.ErrSchemeMismatch)
	dns, _ := errors.AsType[*net.DNSError](err)
	switch {
	case host.Certificate != nil:
		return fmt.Sprintf("the certificate of %s is for another host: correct endpoints, or replace the certificate (%v)", e.url, err)
	case isCertificateError(err):
		return fmt.Sprintf("the certificate of %s is not trusted: set ca_file to the CA that signed it (%v)", e.url, err)
	case notTLS:
		return fmt.Sprintf("%s does not speak TLS: correct endpoints, or enable TLS there (%v)", e.url, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("%s refuses connections: start the object store, or correct endpoints", e.url)
	case dns != nil && dns.IsNotFound:
		return fmt.Sprintf("no address is known of %s: correct endpoints", e.url)
	case errors.Is(err, errStalled):
		return fmt.Sprintf("%s did not respond in time", e.url)
	}
	return fmt.Sprintf("%s: %v", e.url, err)
}

func isCertificateError(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

func isStatus(err error, status int) bool {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && response.StatusCode == status
}

// isConflict reports whether an engine refused a conditional request because another one for the
// same name was in flight.
func isConflict(err error) bool {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && (response.Code == "ConditionalRequestConflict" || response.Code == "OperationAborted")
}
