package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cis490/internal/digest"
	"cis490/internal/printable"
	"cis490/internal/retry"
)

// Code is the kind of a refusal. Both ends know it. Callers branch on it as an error:
// errors.Is(err, wire.Conflict).
type Code string

// The refusals. Each has one HTTP status and one problem type.
const (
	BadName        Code = "bad-name"                 // host or episode is not a valid name
	BadRequest     Code = "bad-request"              // a field is malformed, or contradicts another one
	DigestMissing  Code = "digest-required"          // no Repr-Digest
	DigestInvalid  Code = "digest-invalid-values"    // not exactly one sha-256 of 32 bytes
	DigestMismatch Code = "digest-mismatched-values" // the bytes have another sha256
	TokenRefused   Code = "token-refused"            // the token is missing or wrong
	Forbidden      Code = "forbidden"                // the certificate names no enabled host
	HostMismatch   Code = "host-mismatch"            // the host in the certificate is not the host in the path
	NotFound       Code = "not-found"
	BadMethod      Code = "method-not-allowed"
	NoUpload       Code = "no-such-upload"             // never announced, finished or discarded: announce it again
	OffsetMismatch Code = "mismatching-upload-offset"  // the upload continues at another offset
	LengthMismatch Code = "inconsistent-upload-length" // more or fewer bytes than announced
	Superseded     Code = "upload-superseded"          // another request continues the upload
	WrongType      Code = "unsupported-media-type"     // the body of a PATCH has another media type
	Stalled        Code = "stalled"                    // no bytes for too long, or too few per second
	Conflict       Code = "episode-conflict"           // stored with another sha256
	OtherStore     Code = "other-store"                // not the store that the request names
	LengthRequired Code = "length-required"            // no Content-Length
	TooLarge       Code = "too-large"                  // larger than such a body may be
	Unsupported    Code = "unsupported-encoding"       // the request has a Content-Encoding
	HostBusy       Code = "host-busy"                  // this host has too many uploads in flight
	Busy           Code = "busy"                       // all hosts together have too many uploads in flight
	Draining       Code = "draining"                   // the receiver is stopping
	Full           Code = "insufficient-storage"       // the receiver's disk, or the host's quota, is full
	Damaged        Code = "stored-copy-damaged"        // the receiver's copy is corrupt
	Internal       Code = "internal-server-error"      // the receiver failed
)

func (c Code) Error() string { return string(c) }

// Prefixes of problem types (RFC 9457): those that IANA has registered, and our own.
const (
	ianaPrefix = "https://iana.org/assignments/http-problem-types#"
	ownPrefix  = "urn:cis490:problem:"
)

// problemType is how a [Code] is sent.
type problemType struct {
	status int
	base   string
	title  string
}

var problemTypes = map[Code]problemType{
	BadName:        {http.StatusBadRequest, ownPrefix, "A name is not of the form that names have"},
	BadRequest:     {http.StatusBadRequest, ownPrefix, "The request contradicts the protocol"},
	DigestMissing:  {http.StatusBadRequest, ownPrefix, "The request does not state the digest of its body"},
	DigestInvalid:  {http.StatusBadRequest, ianaPrefix, "The digest is not one sha-256"},
	DigestMismatch: {http.StatusBadRequest, ianaPrefix, "The bytes do not have the digest that was announced"},
	TokenRefused:   {http.StatusUnauthorized, ownPrefix, "The token is missing or wrong"},
	Forbidden:      {http.StatusForbidden, ownPrefix, "The host has no access"},
	HostMismatch:   {http.StatusForbidden, ownPrefix, "The certificate is for another host"},
	NotFound:       {http.StatusNotFound, ownPrefix, "There is nothing under this path"},
	NoUpload:       {http.StatusNotFound, ownPrefix, "There is no such upload"},
	OffsetMismatch: {http.StatusConflict, ianaPrefix, "The upload continues at another offset"},
	LengthMismatch: {http.StatusBadRequest, ianaPrefix, "The bytes are not as many as were announced"},
	Superseded:     {http.StatusConflict, ownPrefix, "Another request continues this upload"},
	WrongType:      {http.StatusUnsupportedMediaType, ownPrefix, "The body is not of the media type of a piece"},
	BadMethod:      {http.StatusMethodNotAllowed, ownPrefix, "The path does not take this method"},
	Stalled:        {http.StatusRequestTimeout, ownPrefix, "The body came too slowly"},
	Conflict:       {http.StatusConflict, ownPrefix, "Another archive is stored under this name"},
	OtherStore:     {http.StatusPreconditionFailed, ownPrefix, "The receiver has another store"},
	LengthRequired: {http.StatusLengthRequired, ownPrefix, "The request has no Content-Length"},
	TooLarge:       {http.StatusRequestEntityTooLarge, ownPrefix, "The body is too large"},
	Unsupported:    {http.StatusUnsupportedMediaType, ownPrefix, "The body must have no content coding"},
	HostBusy:       {http.StatusTooManyRequests, ownPrefix, "This host has too many uploads in flight"},
	Internal:       {http.StatusInternalServerError, ownPrefix, "The receiver failed"},
	Damaged:        {http.StatusInternalServerError, ownPrefix, "The stored copy is damaged"},
	Busy:           {http.StatusServiceUnavailable, ownPrefix, "Too many uploads are in flight"},
	Draining:       {http.StatusServiceUnavailable, ownPrefix, "The receiver is stopping"},
	Full:           {http.StatusInsufficientStorage, ownPrefix, "The receiver has no space"},
}

// Problem is a refusal. It is sent as a problem document.
type Problem struct {
	Code       Code
	Detail     string        // for the operator; must not help an attacker
	Stored     digest.Digest // with [Conflict]: the digest that is stored
	Offset     *int64        // with [OffsetMismatch]: where the upload continues
	Store      *Store        // with [OtherStore]: the receiver's store
	RetryAfter time.Duration // the minimum wait before a retry, or 0
}

// HostIsMount is the detail of a [Full] that freeing space does not fix.
const HostIsMount = "the folder of this host is another mount than the store: see the receiver's log"

// Refuse returns a [*Problem].
func Refuse(c Code, format string, args ...any) *Problem {
	return &Problem{Code: c, Detail: fmt.Sprintf(format, args...)}
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return "the receiver refused: " + string(p.Code)
	}
	return fmt.Sprintf("the receiver refused: %s: %s", p.Code, p.Detail)
}

// Unwrap returns the code, for errors.Is.
func (p *Problem) Unwrap() error { return p.Code }

// problemDocument is a problem document (RFC 9457).
type problemDocument struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail,omitempty"`
	Stored *digest.Digest `json:"stored_sha256,omitempty"`
	Offset *int64         `json:"expected-offset,omitempty"` // spelled as in the draft
	Store  *Store         `json:"store,omitempty"`
}

const problemMediaType = "application/problem+json"

// writeTo sends p as the response.
func (p *Problem) writeTo(w http.ResponseWriter) {
	k, known := problemTypes[p.Code]
	if !known {
		p, k = &Problem{Code: Internal}, problemTypes[Internal]
	}
	doc := problemDocument{Type: k.base + string(p.Code), Title: k.title, Status: k.status, Detail: p.Detail, Offset: p.Offset, Store: p.Store}
	if !p.Stored.IsZero() {
		doc.Stored = &p.Stored
	}
	h := w.Header()
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	if p.Offset != nil {
		h.Set(uploadOffset, strconv.FormatInt(*p.Offset, 10))
	}
	switch p.Code {
	case DigestMissing, DigestInvalid:
		h.Set(wantDigest, "sha-256=10")
	case TokenRefused:
		h.Set("WWW-Authenticate", "Bearer")
	}
	h.Set("Content-Type", problemMediaType)
	writeJSON(w, k.status, doc)
}

// maxResponseBody bounds what a client reads of a response, in bytes.
const maxResponseBody = maxInventory

// maxDetail bounds the detail of a problem that is shown and logged here, in bytes. Those of cis490
// are shorter.
const maxDetail = 300

func cutDetail(detail string) string {
	if len(detail) <= maxDetail {
		return detail
	}
	return detail[:maxDetail] + "..."
}

// readProblem returns the problem in a response, or an [*UnexpectedResponseError] if there is none.
func readProblem(resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var doc problemDocument
	err := json.NewDecoder(io.LimitReader(resp.Body, maxResponseBody)).Decode(&doc)
	if media != problemMediaType || err != nil || doc.Status != resp.StatusCode {
		return &UnexpectedResponseError{Status: resp.StatusCode}
	}
	// Proxies send problem documents as well. A type of another prefix says nothing about the
	// episode.
	if !strings.HasPrefix(doc.Type, ownPrefix) && !strings.HasPrefix(doc.Type, ianaPrefix) {
		return &UnexpectedResponseError{Status: resp.StatusCode, Err: fmt.Errorf("problem of unknown type %+q", doc.Type)}
	}
	p := &Problem{Code: codeOf(doc), Detail: cutDetail(printable.Text(doc.Detail)), Offset: doc.Offset, RetryAfter: parseRetryAfter(resp)}
	if p.Code == OtherStore {
		if doc.Store == nil || doc.Store.Validate() != nil {
			return &UnexpectedResponseError{Status: resp.StatusCode, Err: errors.New("refusal for another store does not name it")}
		}
		p.Store = doc.Store
	}
	if doc.Stored != nil {
		p.Stored = *doc.Stored
	}
	return p
}

// codeOf returns the code of a document. An unknown type, which a newer receiver may send, becomes
// the general code for its status.
func codeOf(doc problemDocument) Code {
	for c, k := range problemTypes {
		if doc.Type == k.base+string(c) && doc.Status == k.status {
			return c
		}
	}
	return codeForStatus(doc.Status)
}

// codeForStatus returns the general code for a status.
func codeForStatus(status int) Code {
	switch status {
	case http.StatusBadRequest:
		return BadRequest
	case http.StatusUnauthorized:
		return TokenRefused
	case http.StatusNotFound:
		return NotFound
	case http.StatusConflict:
		return Conflict
	case http.StatusRequestEntityTooLarge:
		return TooLarge
	case http.StatusUnsupportedMediaType:
		return Unsupported
	case http.StatusTooManyRequests:
		return HostBusy
	case http.StatusServiceUnavailable:
		return Busy
	case http.StatusInsufficientStorage:
		return Full
	}
	if status >= http.StatusInternalServerError {
		return Internal
	}
	return Forbidden
}

// maxRetryAfter bounds the wait that a response can ask for.
const maxRetryAfter = 15 * time.Minute

func parseRetryAfter(resp *http.Response) time.Duration {
	return min(retry.ParseAfter(resp.Header.Get("Retry-After"), time.Now()), maxRetryAfter)
}

// UnexpectedResponseError says that the response did not come from a receiver, but from a proxy, a
// captive portal or another service.
type UnexpectedResponseError struct {
	Status int
	Err    error // what is wrong with a response that looked like success
}

func (e *UnexpectedResponseError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("response %d does not come from a receiver: %v", e.Status, e.Err)
	}
	return fmt.Sprintf("response %d without a problem document, not from a receiver", e.Status)
}

// Unwrap returns e.Err.
func (e *UnexpectedResponseError) Unwrap() error { return e.Err }
