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
)

// Code is a kind of refusal that both ends know. As an error it is what
// callers branch on: errors.Is(err, wire.Conflict).
type Code string

// The refusals. Each stands for one status and one problem type.
const (
	BadName        Code = "bad-name"                 // host or episode is no name
	BadRequest     Code = "bad-request"              // a field that contradicts itself or the protocol
	DigestMissing  Code = "digest-required"          // no Repr-Digest
	DigestInvalid  Code = "digest-invalid-values"    // not exactly one sha-256 of 32 bytes
	DigestMismatch Code = "digest-mismatched-values" // the bytes have another sha256
	TokenRefused   Code = "token-refused"            // no token, or a wrong one
	Forbidden      Code = "forbidden"                // the certificate names no host that may come in, or one that is disabled
	HostMismatch   Code = "host-mismatch"            // the certificate names another host than the path
	NotFound       Code = "not-found"
	BadMethod      Code = "method-not-allowed"
	NoUpload       Code = "no-such-upload"             // never announced, ended, or given up: announce it again
	OffsetMismatch Code = "mismatching-upload-offset"  // the upload goes on elsewhere
	LengthMismatch Code = "inconsistent-upload-length" // more or fewer bytes than announced
	Superseded     Code = "upload-superseded"          // somebody else goes on with the upload
	WrongType      Code = "unsupported-media-type"     // a piece that does not say that it is one
	Stalled        Code = "stalled"                    // no bytes for a while, or too few
	Conflict       Code = "episode-conflict"           // stored with another sha256
	OtherStore     Code = "other-store"                // not the store that the request says to know
	LengthRequired Code = "length-required"            // no Content-Length
	TooLarge       Code = "too-large"                  // more than an archive may have
	Unsupported    Code = "unsupported-encoding"       // Content-Encoding
	HostBusy       Code = "host-busy"                  // this host has enough uploads under way
	Busy           Code = "busy"                       // all hosts together have
	Draining       Code = "draining"                   // the receiver is about to stop
	Full           Code = "insufficient-storage"       // the receiver's disk is
	Damaged        Code = "stored-copy-damaged"        // the receiver's copy is not what it was
	Internal       Code = "internal-server-error"      // the receiver failed
)

func (c Code) Error() string { return string(c) }

// Where problem types live (RFC 9457): those that IANA has registered, and ours.
const (
	ianaPrefix = "https://iana.org/assignments/http-problem-types#"
	ownPrefix  = "urn:cis490:problem:"
)

// problemType is what HTTP makes of a [Code].
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
	OffsetMismatch: {http.StatusConflict, ianaPrefix, "The upload goes on at another offset"},
	LengthMismatch: {http.StatusBadRequest, ianaPrefix, "The bytes are not as many as were announced"},
	Superseded:     {http.StatusConflict, ownPrefix, "Another request goes on with this upload"},
	WrongType:      {http.StatusUnsupportedMediaType, ownPrefix, "The body is not of the media type of a piece"},
	BadMethod:      {http.StatusMethodNotAllowed, ownPrefix, "The path does not take this method"},
	Stalled:        {http.StatusRequestTimeout, ownPrefix, "The body came too slowly"},
	Conflict:       {http.StatusConflict, ownPrefix, "Another archive is stored under this name"},
	OtherStore:     {http.StatusPreconditionFailed, ownPrefix, "The receiver has another store"},
	LengthRequired: {http.StatusLengthRequired, ownPrefix, "The request has no Content-Length"},
	TooLarge:       {http.StatusRequestEntityTooLarge, ownPrefix, "The body is too large"},
	Unsupported:    {http.StatusUnsupportedMediaType, ownPrefix, "The body must have no content coding"},
	HostBusy:       {http.StatusTooManyRequests, ownPrefix, "This host has too many uploads under way"},
	Internal:       {http.StatusInternalServerError, ownPrefix, "The receiver failed"},
	Damaged:        {http.StatusInternalServerError, ownPrefix, "The stored copy is damaged"},
	Busy:           {http.StatusServiceUnavailable, ownPrefix, "Too many uploads are under way"},
	Draining:       {http.StatusServiceUnavailable, ownPrefix, "The receiver is stopping"},
	Full:           {http.StatusInsufficientStorage, ownPrefix, "The receiver has no space"},
}

// Problem is a refusal as it travels.
type Problem struct {
	Code       Code
	Detail     string        // for a person; never what an attacker could learn from
	Stored     digest.Digest // with [Conflict]: what is stored
	Offset     *int64        // with [OffsetMismatch]: where the upload goes on
	Store      *Store        // with [OtherStore]: the receiver's
	RetryAfter time.Duration // the least wait that the receiver asks for, or 0
}

// HostIsMount is the detail of a [Full] that no free space helps against.
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
	Offset *int64         `json:"expected-offset,omitempty"` // the draft's spelling
	Store  *Store         `json:"store,omitempty"`
}

const problemMediaType = "application/problem+json"

// write answers with p.
func (p *Problem) write(w http.ResponseWriter) {
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

// maxResponseBody bounds what either end reads of an answer.
const maxResponseBody = maxInventory

// readProblem returns the problem that an answer carries, or a [*UnexpectedResponseError] if
// it carries none.
func readProblem(resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var doc problemDocument
	err := json.NewDecoder(io.LimitReader(resp.Body, maxResponseBody)).Decode(&doc)
	if media != problemMediaType || err != nil || doc.Status != resp.StatusCode {
		return &UnexpectedResponseError{Status: resp.StatusCode}
	}
	// Others write problem documents as well. One that is of no type of ours
	// judges nothing.
	if !strings.HasPrefix(doc.Type, ownPrefix) && !strings.HasPrefix(doc.Type, ianaPrefix) {
		return &UnexpectedResponseError{Status: resp.StatusCode, Err: fmt.Errorf("a problem of the type %+q", doc.Type)}
	}
	p := &Problem{Code: codeOf(doc), Detail: printable.Text(doc.Detail), Offset: doc.Offset, RetryAfter: parseRetryAfter(resp)}
	if p.Code == OtherStore {
		if doc.Store == nil || doc.Store.Check() != nil {
			return &UnexpectedResponseError{Status: resp.StatusCode, Err: errors.New("another store, and it does not say which")}
		}
		p.Store = doc.Store
	}
	if doc.Stored != nil {
		p.Stored = *doc.Stored
	}
	return p
}

// codeOf returns the code of a document. A type that a newer receiver may have
// is taken as the plainest one of its status.
func codeOf(doc problemDocument) Code {
	for c, k := range problemTypes {
		if doc.Type == k.base+string(c) && doc.Status == k.status {
			return c
		}
	}
	return codeForStatus(doc.Status)
}

// codeForStatus returns the code that says no more than a status.
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

// maxRetryAfter bounds what an answer can make a sender wait.
const maxRetryAfter = 15 * time.Minute

func parseRetryAfter(resp *http.Response) time.Duration {
	v := resp.Header.Get("Retry-After")
	d := time.Duration(0)
	if s, err := strconv.Atoi(v); err == nil {
		d = time.Duration(min(s, int(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = time.Until(t)
	}
	return max(0, min(d, maxRetryAfter))
}

// UnexpectedResponseError says that something answered which is no receiver, or does not
// speak as one: a proxy, a captive portal, another service.
type UnexpectedResponseError struct {
	Status int
	Err    error // what was wrong with the answer, if it looked like success
}

func (e *UnexpectedResponseError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("an answer %d that is not a receiver's: %v", e.Status, e.Err)
	}
	return fmt.Sprintf("an answer %d without a problem document, so not from a receiver", e.Status)
}

// Unwrap returns what was wrong.
func (e *UnexpectedResponseError) Unwrap() error { return e.Err }
