package wire

import (
	"encoding/base64"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"

	"github.com/dunglas/httpsfv"
)

// Header fields that package net/http does not know.
const (
	reprDigest    = "Repr-Digest"
	contentDigest = "Content-Digest"
	wantDigest    = "Want-Repr-Digest"
	skippedField  = "Episode-Skipped"
	resentField   = "Episode-Resent"
)

// Header fields and media type of draft-ietf-httpbis-resumable-upload.
const (
	uploadComplete    = "Upload-Complete"
	uploadOffset      = "Upload-Offset"
	uploadLength      = "Upload-Length"
	uploadLimit       = "Upload-Limit"
	partialUploadType = "application/partial-upload"
)

// maxSkipped is the maximum number of skipped files in a request.
const maxSkipped = 1<<31 - 1

// parseUpload parses the headers of a PUT. A repeated field is refused, because two readers could
// each use another value.
func parseUpload(r *http.Request, key episode.Key) (Upload, error) {
	u := Upload{Key: key, Size: r.ContentLength}
	if len(r.Header.Values(uploadOffset)) > 0 {
		return u, Refuse(BadRequest, "%s: continue the upload with PATCH", uploadOffset)
	}
	if err := checkBodyHeaders(r); err != nil {
		return u, err
	}
	var err error
	if u.Size, err = parseLength(r); err != nil {
		return u, err
	}
	if u.Digest, err = parseDigest(r.Header); err != nil {
		return u, err
	}
	skipped, _, err := parseInteger(r.Header, skippedField)
	if err != nil || skipped > maxSkipped {
		return u, Refuse(BadRequest, "%s is not a valid number of files", skippedField)
	}
	u.Skipped = int(skipped)
	u.Resent, _, err = parseBoolean(r.Header, resentField)
	return u, err
}

// parseLength returns the length of the archive: the announced one, or that of the body.
func parseLength(r *http.Request) (int64, error) {
	announced, err := isAnnounce(r)
	if err != nil {
		return 0, err
	}
	length, given, err := parseInteger(r.Header, uploadLength)
	switch {
	case err != nil:
		return 0, err
	case announced && r.ContentLength > 0:
		return 0, errAnnouncedBody
	case announced && !given:
		return 0, Refuse(BadRequest, "an announcement needs %s", uploadLength)
	case announced:
		return length, nil
	case given && length != r.ContentLength:
		return 0, Refuse(LengthMismatch, "%s is not the length of the body", uploadLength)
	}
	return r.ContentLength, nil
}

var errAnnouncedBody = Refuse(BadRequest, "announce with an empty body, and send the bytes with PATCH")

// parsePiece parses the headers of a PATCH.
func parsePiece(w http.ResponseWriter, r *http.Request) (Piece, error) {
	p := Piece{Size: r.ContentLength}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != partialUploadType {
		w.Header().Set("Accept-Patch", partialUploadType)
		return p, Refuse(WrongType, "send Content-Type: %s", partialUploadType)
	}
	if err := checkBodyHeaders(r); err != nil {
		return p, err
	}
	var given bool
	var err error
	if p.Offset, given, err = parseInteger(r.Header, uploadOffset); err != nil || !given {
		return p, missingField(err, uploadOffset)
	}
	if p.Last, given, err = parseBoolean(r.Header, uploadComplete); err != nil || !given {
		return p, missingField(err, uploadComplete)
	}
	return p, nil
}

func missingField(err error, field string) error {
	if err != nil {
		return err
	}
	return Refuse(BadRequest, "send %s", field)
}

// isAnnounce reports whether a PUT announces an archive without its bytes.
func isAnnounce(r *http.Request) (bool, error) {
	complete, given, err := parseBoolean(r.Header, uploadComplete)
	return given && !complete, err
}

// isOpen reports whether an announcement states neither digest nor length.
func isOpen(r *http.Request) (bool, error) {
	for _, name := range []string{uploadLength, reprDigest, contentDigest} {
		if len(r.Header.Values(name)) > 0 {
			return false, nil
		}
	}
	if err := checkBodyHeaders(r); err != nil {
		return false, err
	}
	if r.ContentLength > 0 {
		return false, errAnnouncedBody
	}
	return true, nil
}

// checkBodyHeaders refuses encoded, partial and chunked bodies.
func checkBodyHeaders(r *http.Request) error {
	if len(r.Header.Values("Content-Range")) > 0 {
		return Refuse(BadRequest, "Content-Range: announce the archive and send it with PATCH")
	}
	if v := r.Header.Values("Content-Encoding"); len(v) > 1 || len(v) == 1 && v[0] != "identity" {
		return Refuse(Unsupported, "send the bytes as they are")
	}
	if len(r.TransferEncoding) > 0 || r.Header.Get("Content-Length") == "" {
		return Refuse(LengthRequired, "send a Content-Length, not a chunked body")
	}
	return nil
}

// parseInteger returns the structured field (RFC 9651) called name, and whether it is present. It
// must not be negative.
func parseInteger(fields http.Header, name string) (n int64, given bool, err error) {
	v, given, err := parseItem(fields, name)
	if n, ok := v.(int64); err == nil && given && ok && n >= 0 {
		return n, true, nil
	}
	if given {
		return 0, true, Refuse(BadRequest, "%s is not one number", name)
	}
	return 0, false, err
}

// parseBoolean is [parseInteger] for ?0 and ?1.
func parseBoolean(fields http.Header, name string) (b, given bool, err error) {
	v, given, err := parseItem(fields, name)
	if b, ok := v.(bool); err == nil && given && ok {
		return b, true, nil
	}
	if given {
		return false, true, Refuse(BadRequest, "%s is not one of ?0 and ?1", name)
	}
	return false, false, err
}

func parseItem(fields http.Header, name string) (v any, given bool, err error) {
	values := fields.Values(name)
	if len(values) == 0 {
		return nil, false, nil
	}
	if len(values) > 1 {
		return nil, true, Refuse(BadRequest, "%s is given twice", name)
	}
	item, err := httpsfv.UnmarshalItem(values)
	return item.Value, true, err
}

// parseDigest returns the sha-256 that the fields state. They must state exactly one.
func parseDigest(fields http.Header) (digest.Digest, error) {
	var stated digest.Digest
	for _, name := range []string{reprDigest, contentDigest} {
		values := fields.Values(name)
		if len(values) == 0 {
			continue
		}
		d, err := parseDigestField(values)
		if err != nil {
			return d, err
		}
		if !stated.IsZero() && d != stated {
			return d, Refuse(DigestInvalid, "%s and %s differ", reprDigest, contentDigest)
		}
		stated = d
	}
	if stated.IsZero() {
		return stated, Refuse(DigestMissing, "send %s: sha-256=:<base64>:", reprDigest)
	}
	return stated, nil
}

func parseDigestField(values []string) (digest.Digest, error) {
	if len(values) != 1 || strings.Count(values[0], "sha-256") != 1 {
		return digest.Digest{}, Refuse(DigestInvalid, "send exactly one sha-256")
	}
	dict, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return digest.Digest{}, Refuse(DigestInvalid, "the digest header is malformed")
	}
	member, _ := dict.Get("sha-256")
	item, _ := member.(httpsfv.Item)
	b, _ := item.Value.([]byte)
	if len(b) != digest.Size || digest.Digest(b).IsZero() {
		return digest.Digest{}, Refuse(DigestInvalid, "a sha-256 has %d bytes", digest.Size)
	}
	return digest.Digest(b), nil
}

// formatDigest returns d in the format of RFC 9530.
func formatDigest(d digest.Digest) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(d[:]) + ":"
}

func formatLimits(l Limits) string {
	return "max-size=" + strconv.FormatInt(l.MaxSize, 10) + ", max-age=" + strconv.FormatInt(int64(l.UnfinishedAge/time.Second), 10)
}
