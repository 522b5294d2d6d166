package invite

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cis490/internal/episode"
)

// Token is what a host needs to join. Its text is secret until the host has joined.
type Token struct {
	Host   episode.Name
	URLs   []string // of the receiver, in the order in which the host tries them
	CA     [sha256.Size]byte
	ID     string
	Secret string
	// Created and Expires are in seconds, by the receiver's clock.
	Created time.Time
	Expires time.Time
}

const (
	tokenPrefix   = "cis490_join_"
	maxToken      = 4 << 10 // of its text
	maxURLs       = 16
	maxURLBytes   = 2 << 10 // of all URLs, so that a token with them is shorter than maxToken
	checksumBytes = 4

	// maxClockSkew is how far a host's clock may be behind the receiver's. The receiver's
	// certificates are backdated by an hour.
	maxClockSkew = 30 * time.Minute
)

// tokenJSON is the content of a token.
type tokenJSON struct {
	Version int          `json:"v"`
	Host    episode.Name `json:"h"`
	URLs    []string     `json:"u"`
	CA      []byte       `json:"c"` // SHA-256 of the server CA's SubjectPublicKeyInfo
	ID      string       `json:"i"`
	Secret  string       `json:"s"`
	Created int64        `json:"t"`
	Expires int64        `json:"e"`
}

// String returns the token as one word that can be pasted into a shell.
func (t Token) String() string {
	content, err := json.Marshal(tokenJSON{
		1, t.Host, t.URLs, t.CA[:], t.ID, t.Secret, t.Created.Unix(), t.Expires.Unix(),
	})
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(content)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(content, sum[:checksumBytes]...))
}

// ParseToken parses the text of a token. Its error never contains a part of it.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	switch {
	case text == "":
		return Token{}, errors.New("the token is empty: paste the whole line that 'receiver invite' printed")
	case !ok:
		return Token{}, fmt.Errorf("this is not a token: it begins with %s; paste the whole line that 'receiver invite' printed", tokenPrefix)
	case len(text) > maxToken:
		return Token{}, fmt.Errorf("the token is longer than %d characters", maxToken)
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(data) < checksumBytes {
		return Token{}, errDamaged
	}
	content, sum := data[:len(data)-checksumBytes], sha256.Sum256(data[:len(data)-checksumBytes])
	if !bytes.Equal(sum[:checksumBytes], data[len(content):]) {
		return Token{}, errDamaged
	}
	var version struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(content, &version); err != nil || version.Version < 1 {
		return Token{}, errDamaged
	}
	if version.Version != 1 {
		return Token{}, errors.New("the token was made by a newer receiver: upgrade the shipper first")
	}
	var raw tokenJSON
	if err := json.Unmarshal(content, &raw); err != nil {
		return Token{}, errDamaged
	}
	return raw.token()
}

var errDamaged = errors.New("the token is incomplete or was altered: paste the whole line that 'receiver invite' printed")

// token checks the content of a token whose checksum is right. Anyone can make such a token.
func (raw tokenJSON) token() (Token, error) {
	t := Token{
		Host: raw.Host, URLs: raw.URLs, ID: raw.ID, Secret: raw.Secret,
		Created: time.Unix(raw.Created, 0).UTC(), Expires: time.Unix(raw.Expires, 0).UTC(),
	}
	if _, err := episode.ParseName(string(t.Host)); err != nil {
		return Token{}, fmt.Errorf("the token is not valid: %w", err)
	}
	if len(raw.CA) != sha256.Size || !idGrammar.MatchString(t.ID) || !secretGrammar.MatchString(t.Secret) {
		return Token{}, errDamaged
	}
	copy(t.CA[:], raw.CA)
	if err := CheckURLs(t.URLs); err != nil {
		return Token{}, fmt.Errorf("the token is not valid: %w", err)
	}
	return t, nil
}

// CheckClock returns an error if the token is not valid at a time of this machine's clock. It must
// be called before anything is sent.
func (t Token) CheckClock(now time.Time) error {
	const layout = "2006-01-02 15:04 UTC"
	switch {
	case now.Before(t.Created.Add(-maxClockSkew)):
		return fmt.Errorf("this machine's clock says %s, but the token was made at %s: set the clock, then join again; nothing was sent",
			now.UTC().Format(layout), t.Created.Format(layout))
	case !now.Before(t.Expires):
		return fmt.Errorf("the token expired at %s (this machine's clock says %s): ask for another, with 'receiver invite %s' on the receiver; nothing was sent",
			t.Expires.Format(layout), now.UTC().Format(layout), t.Host)
	}
	return nil
}

// CheckURLs returns an error unless a token can have these URLs of a receiver.
func CheckURLs(urls []string) error {
	if len(urls) == 0 {
		return errors.New("the receiver needs a URL")
	}
	if size := len(strings.Join(urls, "")); len(urls) > maxURLs || size > maxURLBytes {
		return fmt.Errorf("%d URLs of a receiver with %d bytes are more than a token can have, which is %d with %d bytes",
			len(urls), size, maxURLs, maxURLBytes)
	}
	for _, u := range urls {
		if _, err := Address(u); err != nil {
			return err
		}
	}
	return nil
}

// urlGrammar describes the URL of a receiver. It is stricter than package url, which accepts
// characters that a terminal would obey.
var urlGrammar = regexp.MustCompile(`^https://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?/*$`)

// maxHostname is the length of the longest DNS name. In the expression it would be slow to compile.
const maxHostname = 253

// Address returns the host and port of a receiver's URL, which has nothing else.
func Address(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || !urlGrammar.MatchString(text) || len(u.Hostname()) > maxHostname {
		return "", errors.New("a receiver's URL must be https://NAME:PORT")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("the port of a receiver's URL must be 1 to 65535")
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
