package wire

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"cis490/internal/digest"
	"cis490/internal/episode"

	"github.com/dunglas/httpsfv"
)

// parseUpload reads what a PUT says of its body. What is said twice is refused:
// two readers of it might take one each.
func parseUpload(r *http.Request, key episode.Key) (Upload, error) {
	u := Upload{Key: key, Size: r.ContentLength}
	for _, field := range []string{"Content-Range", "Upload-Offset", "Upload-Complete"} {
		if len(r.Header.Values(field)) > 0 {
			return u, Refuse(BadRequest, "%s: send the whole archive in one PUT", field)
		}
	}
	if v := r.Header.Values("Content-Encoding"); len(v) > 1 || len(v) == 1 && v[0] != "identity" {
		return u, Refuse(Unsupported, "send the bytes as they are")
	}
	if len(r.TransferEncoding) > 0 || r.Header.Get("Content-Length") == "" {
		return u, Refuse(LengthRequired, "send a Content-Length, not a chunked body")
	}
	var err error
	if u.Digest, err = parseDigest(r.Header); err != nil {
		return u, err
	}
	if v := r.Header.Values(skippedField); len(v) > 0 {
		n, err := strconv.ParseUint(v[0], 10, 31)
		if err != nil || len(v) > 1 {
			return u, Refuse(BadRequest, "%s is no number", skippedField)
		}
		u.Skipped = int(n)
	}
	return u, nil
}

// parseDigest returns the one sha-256 that the fields state.
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
		return digest.Digest{}, Refuse(DigestInvalid, "the digest field does not parse")
	}
	member, _ := dict.Get("sha-256")
	item, _ := member.(httpsfv.Item)
	b, _ := item.Value.([]byte)
	if len(b) != digest.Size || digest.Digest(b).IsZero() {
		return digest.Digest{}, Refuse(DigestInvalid, "a sha-256 has %d bytes", digest.Size)
	}
	return digest.Digest(b), nil
}

// digestField writes RFC 9530's form.
func digestField(d digest.Digest) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(d[:]) + ":"
}
