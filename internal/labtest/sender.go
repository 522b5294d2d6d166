package labtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// Sender sends archives in pieces, like a client that was written from the protocol's
// documentation.
type Sender struct {
	lab    *Lab
	host   string
	client *http.Client
}

// Sender returns a sender with the certificate of a host.
func (h *Host) Sender(t testing.TB) *Sender {
	t.Helper()
	return &Sender{h.lab, h.Name, h.Client(t)}
}

// Answer is an answer to a [Sender].
type Answer struct {
	Status int
	Where  string // of an upload, after it was announced
	Offset int64  // its offset, -1 if the answer has none
	SHA256 string // of the archive, in a receipt or in an offer
	Told   string // all of it, for a test that fails
}

// Receipt reports whether the answer is one for an archive.
func (a Answer) Receipt(archive []byte) bool {
	return a.Where == "" && a.Status/100 == 2 && a.SHA256 == fmt.Sprintf("%x", sha256.Sum256(archive))
}

// Announce announces an archive of an episode of the sender's host.
func (s *Sender) Announce(name string, archive []byte) (Answer, error) {
	sum := sha256.Sum256(archive)
	return s.Send(http.MethodPut, "/v1/episodes/"+s.host+"/"+name, nil, map[string]string{
		"Content-Length": "0", "Upload-Complete": "?0", "Upload-Length": strconv.Itoa(len(archive)),
		"Repr-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":",
	})
}

// Patch sends a piece of an upload, starting at an offset. Last marks the last piece.
func (s *Sender) Patch(where string, offset int64, piece []byte, last bool) (Answer, error) {
	return s.PatchFrom(where, offset, bytes.NewReader(piece), int64(len(piece)), last)
}

// PatchFrom is like [Sender.Patch] for a body that may break off or block.
func (s *Sender) PatchFrom(where string, offset int64, body io.Reader, size int64, last bool) (Answer, error) {
	complete := "?0"
	if last {
		complete = "?1"
	}
	return s.Send(http.MethodPatch, where, body, map[string]string{
		"Content-Type": "application/partial-upload", "Content-Length": strconv.FormatInt(size, 10),
		"Upload-Offset": strconv.FormatInt(offset, 10), "Upload-Complete": complete,
	})
}

// Send sends any request. The field Content-Length is the body's length.
func (s *Sender) Send(method, path string, body io.Reader, fields map[string]string) (Answer, error) {
	req, err := http.NewRequest(method, s.lab.URL(path), body)
	if err != nil {
		return Answer{}, err
	}
	for name, value := range fields {
		req.Header.Set(name, value)
	}
	if size, given := fields["Content-Length"]; given {
		if req.ContentLength, err = strconv.ParseInt(size, 10, 64); err != nil {
			return Answer{}, err
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: resp.StatusCode, Where: resp.Header.Get("Location"), Offset: -1, Told: resp.Status + ": " + string(text)}
	if said := resp.Header.Get("Upload-Offset"); said != "" {
		if a.Offset, err = strconv.ParseInt(said, 10, 64); err != nil {
			return a, err
		}
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		var said struct{ SHA256 string }
		err = json.Unmarshal(text, &said)
		a.SHA256 = said.SHA256
	}
	return a, err
}
