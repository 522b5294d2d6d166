package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"

	"cis490/internal/episode"
)

// renewPath is where a host asks for its next certificate:
//
//	POST /v1/renew
//	Content-Type: application/pkcs10
//
// Body and response are those of [JoinProtocol]. The name in the certificate is that of the
// certificate that the host presents.
const renewPath = "/v1/renew"

// Renew asks for the next certificate of this host by a PKCS#10 request in DER, and returns its chain
// in PEM. The same request gets the same certificate. The error is a [NotFound] if the receiver
// renews no certificates.
func (c *Client) Renew(ctx context.Context, csr []byte) ([]byte, error) {
	req, err := c.newRequest(ctx, http.MethodPost, c.base.JoinPath(renewPath), bytes.NewReader(csr))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", requestMedia)
	resp, err := c.sendRequest(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readChain(resp)
}

// readChain returns the chain in the response to a request for a certificate.
func readChain(resp *http.Response) ([]byte, error) {
	if resp.StatusCode != http.StatusOK {
		return nil, readProblem(resp)
	}
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != chainMedia {
		return nil, &UnexpectedResponseError{Status: resp.StatusCode, Err: errors.New("it is not a certificate chain")}
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxJoinAnswer))
}

// ErrNoAuthority is the refusal of a receiver that cannot sign. Hosts ask again and again.
var ErrNoAuthority = Refuse(NotFound, "this receiver renews no certificates: it has no issuing CA")

// Authority is the part of a receiver that signs certificates.
type Authority interface {
	// Renew returns the next certificate chain of a host for a PKCS#10 request, in PEM, or refuses it
	// with a [*Problem].
	Renew(ctx context.Context, host episode.Name, csr []byte) ([]byte, error)
	// DescribeCAs is part of the response to a ping of a host that trusts the given roots, in the form
	// of [CAs.Server]. They are nil if it does not say which. It may return nil.
	DescribeCAs(ctx context.Context, host episode.Name, trusted []string) *CAs
	// ServerCAs returns the roots that hosts should trust, and the certificates that link them, in PEM,
	// or nil if there are none.
	ServerCAs() []byte
}

func (h *Handler) serveRenew(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := requirePost(w, r); err != nil {
		return err
	}
	if h.Authority == nil {
		return ErrNoAuthority
	}
	if err := checkBodyHeaders(r); err != nil {
		return err
	}
	if err := checkRequestBody(r); err != nil {
		return err
	}
	body := h.StallLimits.newBody(r.Context(), http.NewResponseController(w), r)
	defer body.detach()
	csr, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	chain, err := h.Authority.Renew(r.Context(), caller.Host, csr)
	if err != nil {
		return err
	}
	writeChain(w, chain)
	return nil
}

// checkRequestBody returns an error unless the body of a request can be a PKCS#10 request.
func checkRequestBody(r *http.Request) error {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case media != requestMedia:
		return Refuse(WrongType, "the body must be %s", requestMedia)
	case r.ContentLength < 0:
		return Refuse(LengthRequired, "")
	case r.ContentLength > maxJoinRequest:
		return Refuse(TooLarge, "a request has at most %d bytes", maxJoinRequest)
	}
	return nil
}

// writeChain answers with a certificate chain. It ignores write errors: the host asks again.
func writeChain(w http.ResponseWriter, chain []byte) {
	w.Header().Set("Content-Type", chainMedia)
	w.Header().Set("Cache-Control", "no-store")
	w.Write(chain)
}
