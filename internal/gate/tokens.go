package gate

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// Tokens has the SHA-256 of each host's token. Tokens are long and random, so a plain hash is
// enough.
type Tokens map[episode.Name]digest.Digest

// ParseTokens parses a tokens file. It has one line per host: its name and the SHA-256 of its token
// in hex. Blank lines and lines that begin with # are ignored. Any other line, and a repeated host
// or token, is an error that names path and line.
func ParseTokens(path string, text []byte) (Tokens, error) {
	tokens := make(Tokens)
	owner := map[digest.Digest]episode.Name{
		sha256.Sum256(nil): "no token", // the sha256 of no bytes, as of a failed pipe
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		host, sum, err := parseTokenLine(fields)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		if _, twice := tokens[host]; twice {
			return nil, fmt.Errorf("%s:%d: host %s has a line already", path, number, host)
		}
		if other, twice := owner[sum]; twice {
			return nil, fmt.Errorf("%s:%d: host %s has the token of %s; each host needs its own", path, number, host, other)
		}
		tokens[host], owner[sum] = sum, host
	}
	return tokens, nil
}

func parseTokenLine(fields []string) (episode.Name, digest.Digest, error) {
	if len(fields) != 2 {
		return "", digest.Digest{}, fmt.Errorf("%d words, not a host's name and the sha256 of its token", len(fields))
	}
	host, err := episode.ParseName(fields[0])
	if err != nil {
		return "", digest.Digest{}, err
	}
	sum, err := digest.Parse(fields[1])
	return host, sum, err
}

// presentedToken is the token of a request. Only its hash is kept.
type presentedToken struct {
	sum digest.Digest
	err error // why there is no token
}

func readToken(h http.Header) presentedToken {
	token, err := parseBearer(h)
	return presentedToken{sha256.Sum256([]byte(token)), err}
}

// checkToken returns nil if the token is that of host. The host comes from the certificate, so that
// another host's token is refused.
func (t Tokens) checkToken(token presentedToken, host episode.Name) error {
	if token.err != nil {
		return fmt.Errorf("%w: %w", ErrToken, token.err)
	}
	want, known := t[host]
	if subtle.ConstantTimeCompare(token.sum[:], want[:]) != 1 || !known {
		return fmt.Errorf("%w: it is not the token of host %s", ErrToken, host)
	}
	return nil
}

func parseBearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return "", fmt.Errorf("%d Authorization fields, not one", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errors.New("the Authorization field holds no Bearer token")
	}
	return token, nil
}
