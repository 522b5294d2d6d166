package wire

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
)

// serverCAsPath is where a host gets the roots by which it should recognize the receiver:
//
//	GET /v1/server-cas
//
// The response is PEM: the roots and, for each that follows another one in a rotation, the same key in
// a certificate of the former root.
const serverCAsPath = "/v1/server-cas"

// trustedCAsField is a field of a ping or report: the roots that the host trusts, in the form of [CAs.Server], with
// commas between them.
const trustedCAsField = "Trusted-Cas"

const maxTrustedCAs = 16

// ServerCAs returns the roots that the host should trust, and the certificates that link them, in PEM.
// The error is a [NotFound] if the receiver has none.
func (c *Client) ServerCAs(ctx context.Context) ([]byte, error) {
	req, err := c.newRequest(ctx, http.MethodGet, c.base.JoinPath(serverCAsPath), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.sendRequest(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readChain(resp)
}

func (h *Handler) serveServerCAs(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		return Refuse(BadMethod, "use GET")
	}
	if err := refuseBody(w, r); err != nil {
		return err
	}
	if h.Authority == nil {
		return ErrNoAuthority
	}
	cas := h.Authority.ServerCAs()
	if cas == nil {
		return ErrNoAuthority
	}
	writeChain(w, cas)
	return nil
}

// setTrustedCAs adds the roots that the host trusts to a ping or report.
func (c *Client) setTrustedCAs(r *http.Request) {
	if c.trusted == nil {
		return
	}
	if cas := c.trusted(); len(cas) > 0 && len(cas) <= maxTrustedCAs {
		r.Header.Set(trustedCAsField, strings.Join(cas, ", "))
	}
}

// parseTrustedCAs returns the roots that the sender of a ping or report trusts, or nil if it does not say.
func parseTrustedCAs(fields http.Header) ([]string, error) {
	values := fields.Values(trustedCAsField)
	if len(values) == 0 {
		return nil, nil
	}
	cas := strings.Split(strings.Join(values, ","), ",")
	if len(cas) > maxTrustedCAs {
		return nil, Refuse(BadRequest, "%s has more than %d CAs", trustedCAsField, maxTrustedCAs)
	}
	for i, ca := range cas {
		cas[i] = strings.TrimSpace(ca)
		if !isKeyHash(cas[i]) {
			return nil, Refuse(BadRequest, "%s is not a list of SHA-256 in hex", trustedCAsField)
		}
	}
	return cas, nil
}

// isKeyHash reports whether s is a SHA-256 in lower-case hex.
func isKeyHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}
