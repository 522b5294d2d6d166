package pki_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// TestRefusedRequestKeepsEarlierKeys: the answer to an earlier request may have been lost, and its
// certificate is for the earlier key.
func TestRefusedRequestKeepsEarlierKeys(t *testing.T) {
	identity := filepath.Join(t.TempDir(), "identity")
	open := func(invitation string) *pki.Pending {
		t.Helper()
		p, err := pki.OpenPending(identity, invitation)
		fixture.Must(t, err)
		return p
	}
	keyOf := func(p *pki.Pending) string {
		t.Helper()
		r, err := pki.ParseRequest(p.Request)
		fixture.Must(t, err)
		return r.KeySHA256
	}
	first := keyOf(open("first"))
	fixture.Must(t, open("first").Discard())
	if got := keyOf(open("first")); got != first {
		t.Error("a refusal of a repeated request took its key")
	}
	other := open("other")
	if keyOf(other) == first {
		t.Error("two invitations have one key")
	}
	fixture.Must(t, other.Discard())
	if got := keyOf(open("first")); got != first {
		t.Error("a refusal took the key of another invitation")
	}

	identity = filepath.Join(t.TempDir(), "identity")
	p := open("first")
	fixture.Must(t, p.Discard())
	if again := open("first"); bytes.Equal(again.Request, p.Request) || keyOf(again) == keyOf(p) {
		t.Error("the key of a refused request is still there")
	}
}
