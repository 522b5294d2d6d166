// Package invite lets a host join a lab with one line that an operator pastes.
//
// The receiver creates an [Invitation] and prints its [Token]. The token tells a host where the
// receiver is, by which CA it is recognized, and a secret that is valid for one certificate. The
// receiver keeps only a hash of the secret, in one file per invitation: see [Book].
//
// Invariant: an invitation gives at most one key a certificate. Its secret is compared before
// anything else of a request is used, ten wrong secrets end the invitation, and what an invitation
// was used for is durable before the host gets its certificate.
package invite

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"

	"cis490/internal/episode"
)

// Limits of an invitation.
const (
	DefaultValid = 24 * time.Hour
	MinValid     = time.Minute
	MaxValid     = 30 * 24 * time.Hour

	maxWrong    = 10 // wrong secrets that end an invitation
	idBytes     = 10
	secretBytes = 20
)

// State says what an invitation can still be used for.
type State string

// The states of an invitation.
const (
	Open    State = "open"
	Used    State = "used"    // a host has its certificate; the same key gets it again until it expires
	Expired State = "expired" // it was not used in time
	Burnt   State = "burnt"   // ended by wrong secrets
	Revoked State = "revoked" // ended by the operator
)

// Invitation is what the receiver knows of a token.
type Invitation struct {
	Version int          `json:"schema_version"` // 1
	ID      string       `json:"id"`
	Host    episode.Name `json:"host_id"`
	Created time.Time    `json:"created"`
	Expires time.Time    `json:"expires"`
	// Again says that the host was known: its former certificates end when the new one is first
	// used.
	Again bool `json:"again,omitempty"`

	SecretSHA256 string `json:"secret_sha256,omitempty"` // of the secret's text, in hex
	// Wrong counts the wrong secrets that came with this id.
	Wrong     int        `json:"wrong,omitempty"`
	RevokedAt *time.Time `json:"revoked,omitempty"`
	Use       *Use       `json:"used,omitempty"`
}

// Use is what an invitation was used for.
type Use struct {
	At        time.Time `json:"at"`
	KeySHA256 string    `json:"key_sha256"` // of the public key's SubjectPublicKeyInfo, in hex
	Serial    string    `json:"serial"`     // of the certificate, 32 hex digits
}

// State returns the state of the invitation at a time.
func (i Invitation) State(now time.Time) State {
	switch {
	case i.RevokedAt != nil:
		return Revoked
	case i.Use != nil:
		return Used
	case i.Wrong >= maxWrong:
		return Burnt
	case !now.Before(i.Expires):
		return Expired
	}
	return Open
}

// answers reports whether a request can get a certificate by the invitation.
func (i Invitation) answers(now time.Time) bool {
	state := i.State(now)
	return state == Open || state == Used && now.Before(i.Expires) && i.Wrong < maxWrong
}

// hasSecret reports whether a secret is the invitation's, in a time that does not depend on it.
func (i Invitation) hasSecret(secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	want, err := hex.DecodeString(i.SecretSHA256)
	return err == nil && subtle.ConstantTimeCompare(sum[:], want) == 1
}

// check returns an error unless i is an invitation that [Book.Create] could have written.
func (i Invitation) check() error {
	if !idGrammar.MatchString(i.ID) {
		return errors.New("its id is not valid")
	}
	if _, err := episode.ParseName(string(i.Host)); err != nil {
		return err
	}
	sum, err := hex.DecodeString(i.SecretSHA256)
	if err != nil || len(sum) != sha256.Size {
		return errors.New("its secret_sha256 is not a SHA-256 in hex")
	}
	if i.Expires.IsZero() || i.Wrong < 0 {
		return errors.New("its expires or wrong is not valid")
	}
	return nil
}

// words is lower-case base32, which people can read aloud and a file name can hold.
var words = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// idGrammar and secretGrammar describe what randomWord returns for idBytes and secretBytes.
var (
	idGrammar     = regexp.MustCompile(`^[a-z2-7]{16}$`)
	secretGrammar = regexp.MustCompile(`^[a-z2-7]{32}$`)
)

func randomWord(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails: see its documentation
	return words.EncodeToString(b)
}

// CheckValid returns an error if an invitation cannot be valid for d.
func CheckValid(d time.Duration) error {
	if d < MinValid || d > MaxValid {
		return fmt.Errorf("an invitation is valid for 1m to 30d, not %v", d)
	}
	return nil
}
