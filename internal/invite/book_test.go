package invite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/invite"
)

// lab is a book with a count of the certificates that it let be issued.
type lab struct {
	*testing.T
	dir    string
	book   *invite.Book
	issued atomic.Int64
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, dir: fixture.MemoryDir(t)}
	l.book = l.open()
	return l
}

func (l *lab) open() *invite.Book {
	l.Helper()
	b, err := invite.OpenBook(l.dir, "the test")
	fixture.Must(l, err)
	l.Cleanup(func() { b.Close() })
	return b
}

func (l *lab) create(host episode.Name) (invite.Invitation, string) {
	l.Helper()
	i, secret, err := l.book.Create(l.Context(), host, invite.CreateOptions{}, made)
	fixture.Must(l, err)
	return i, secret
}

func (l *lab) issue(invite.Invitation) (string, error) {
	return fmt.Sprintf("%032x", l.issued.Add(1)), nil
}

func (l *lab) redeem(id, secret, key string, now time.Time) (invite.Invitation, error) {
	return l.book.Redeem(l.Context(), id, secret, key, now, l.issue)
}

// wantRefused fails the test unless err is a refusal in the given state.
func (l *lab) wantRefused(err error, want invite.State) {
	l.Helper()
	if refused, ok := errors.AsType[*invite.RefusedError](err); !ok || refused.State != want {
		l.Errorf("got %v, want a refusal as %q", err, want)
	}
}

func (l *lab) wantIssued(want int64) {
	l.Helper()
	if got := l.issued.Load(); got != want {
		l.Errorf("%d certificates were issued, want %d", got, want)
	}
}

func (l *lab) path(id string) string { return filepath.Join(l.dir, "invitations", id+".json") }

func TestSecretIsKeptNowhere(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	if text := fixture.ReadFile(t, l.path(i.ID)); strings.Contains(text, secret) {
		t.Errorf("the file has the secret: %s", text)
	}
	info, err := os.Stat(l.path(i.ID))
	fixture.Must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, want 0600", info.Mode())
	}
	if len(secret) < 128/5 {
		t.Errorf("a secret of %d characters of 5 bits has fewer than 128 bits", len(secret))
	}
}

func TestInvitationGivesOneKeyItsCertificate(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	first, err := l.redeem(i.ID, secret, "k1", made)
	fixture.Must(t, err)
	again, err := l.redeem(i.ID, secret, "k1", made.Add(time.Hour)) // its answer was lost
	fixture.Must(t, err)
	if first.Use == nil || again.Use == nil || first.Use.Serial != again.Use.Serial {
		t.Errorf("got %+v, then %+v; want the same certificate", first.Use, again.Use)
	}
	_, err = l.redeem(i.ID, secret, "k2", made.Add(time.Hour))
	l.wantRefused(err, invite.Used)
	_, err = l.redeem(i.ID, secret, "k1", i.Expires)
	l.wantRefused(err, invite.Expired)
	l.wantIssued(1)
}

func TestTenWrongSecretsEndAnInvitation(t *testing.T) {
	for wrong := range 12 {
		l := newLab(t)
		i, secret := l.create("lab-07")
		other, otherSecret := l.create("lab-08")
		for range wrong {
			_, err := l.redeem(i.ID, secret[1:]+"a", "k1", made)
			l.wantRefused(err, "")
		}
		l.book = l.open() // what was counted is durable
		_, err := l.redeem(i.ID, secret, "k1", made)
		if wrong < 10 {
			fixture.Must(t, err)
			l.wantIssued(1)
			continue
		}
		l.wantRefused(err, invite.Burnt)
		l.wantIssued(0)
		if _, err := l.redeem(other.ID, otherSecret, "k2", made); err != nil {
			t.Errorf("another host's invitation: %v", err)
		}
	}
}

// The host may ask again with the right secret while another user guesses.
func TestWrongSecretsEndAUsedInvitationToo(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	_, err := l.redeem(i.ID, secret, "k1", made)
	fixture.Must(t, err)
	for range 10 {
		_, err := l.redeem(i.ID, "wrong", "k2", made)
		l.wantRefused(err, "")
	}
	_, err = l.redeem(i.ID, secret, "k1", made)
	l.wantRefused(err, invite.Burnt)
}

// A sender without the secret learns nothing about an invitation.
func TestRefusalTellsOnlyWhoHasTheSecret(t *testing.T) {
	l := newLab(t)
	unknown := strings.Repeat("z", 16)
	_, want := l.redeem(unknown, "x", "k", made)
	l.wantRefused(want, "")
	i, secret := l.create("secret-name")
	_, err := l.redeem(i.ID, secret, "k1", made)
	fixture.Must(t, err)
	for _, id := range []string{i.ID, "", ".", "../hosts/lab-01", strings.Repeat("a", 300), i.ID + ".json", "\x00"} {
		if _, err := l.redeem(id, "x", "k", made); err == nil || err.Error() != want.Error() {
			t.Errorf("id %q: got %v, want %v", id, err, want)
		}
	}
	l.wantIssued(1)
}

func TestEndedInvitationIsRefused(t *testing.T) {
	l := newLab(t)
	expired, expiredSecret := l.create("lab-01")
	_, err := l.redeem(expired.ID, expiredSecret, "k", expired.Expires)
	l.wantRefused(err, invite.Expired)

	replaced, replacedSecret := l.create("lab-02")
	l.create("lab-02")
	_, err = l.redeem(replaced.ID, replacedSecret, "k", made)
	l.wantRefused(err, invite.Revoked)

	for _, by := range []func(invite.Invitation) string{
		func(i invite.Invitation) string { return i.ID },
		func(i invite.Invitation) string { return string(i.Host) },
	} {
		i, secret := l.create("lab-03")
		revoked, err := l.book.Revoke(t.Context(), by(i), made)
		if err != nil || len(revoked) != 1 || revoked[0].ID != i.ID {
			t.Errorf("got %+v, %v; want %s", revoked, err, i.ID)
		}
		_, err = l.redeem(i.ID, secret, "k", made)
		l.wantRefused(err, invite.Revoked)
	}
	l.wantIssued(0)
}

// A used invitation whose answer was lost is worth a certificate to the holder of key and secret; the
// operator can end that.
func TestUsedInvitationCanBeRevoked(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	_, err := l.redeem(i.ID, secret, "k", made)
	fixture.Must(t, err)
	_, err = l.book.Revoke(t.Context(), "lab-07", made)
	fixture.Must(t, err)
	_, err = l.redeem(i.ID, secret, "k", made)
	l.wantRefused(err, invite.Revoked)
}

// Two machines with one token, each with its own key, and the receiver as two processes would be.
func TestOneTokenAtTheSameTimeGivesOneCertificate(t *testing.T) {
	for range 5 {
		l := newLab(t)
		i, secret := l.create("lab-07")
		books := []*invite.Book{l.book, l.open()}
		var won atomic.Int64
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				_, err := books[n%2].Redeem(t.Context(), i.ID, secret, fmt.Sprint("key ", n), made, l.issue)
				if err == nil {
					won.Add(1)
					return
				}
				l.wantRefused(err, invite.Used)
			})
		}
		all.Wait()
		l.wantIssued(1)
		if won.Load() != 1 {
			t.Errorf("%d machines got a certificate, want 1", won.Load())
		}
	}
}

func TestWrongSecretsAtTheSameTimeAreAllCounted(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	books := []*invite.Book{l.book, l.open()}
	var all sync.WaitGroup
	for n := range 10 {
		all.Go(func() {
			_, err := books[n%2].Redeem(t.Context(), i.ID, "wrong", "k", made, l.issue)
			l.wantRefused(err, "")
		})
	}
	all.Wait()
	_, err := l.redeem(i.ID, secret, "k", made)
	l.wantRefused(err, invite.Burnt)
}

// A failed issue leaves the invitation open: no certificate was handed out.
func TestFailedIssueLeavesTheInvitationOpen(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	full := errors.New("disk full")
	_, err := l.book.Redeem(t.Context(), i.ID, secret, "k1", made, func(invite.Invitation) (string, error) { return "", full })
	if !errors.Is(err, full) {
		t.Fatalf("got %v, want %v", err, full)
	}
	_, err = l.redeem(i.ID, secret, "k2", made)
	fixture.Must(t, err)
}

func TestUseIsDurableBeforeRedeemReturns(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	_, err := l.redeem(i.ID, secret, "k1", made)
	fixture.Must(t, err)
	list, err := invite.List(l.dir)
	fixture.Must(t, err)
	if len(list) != 1 || list[0].Use == nil || list[0].Use.KeySHA256 != "k1" {
		t.Errorf("got %+v, want the use on disk", list)
	}
}

func TestUnreadableInvitationIsNamedAndNotAnswered(t *testing.T) {
	for name, change := range map[string]func(text string) string{
		"empty":        func(string) string { return "" },
		"not JSON":     func(string) string { return "{" },
		"another's id": func(text string) string { return strings.Replace(text, `"id": "`, `"id": "z`, 1) },
		"newer schema": func(text string) string {
			return strings.Replace(text, `"schema_version": 1`, `"schema_version": 2`, 1)
		},
		"no secret": func(text string) string { return strings.Replace(text, `"secret_sha256": "`, `"x": "`, 1) },
		"bad host":  func(text string) string { return strings.Replace(text, "lab-07", "../07", 1) },
		"negative count": func(text string) string {
			return strings.Replace(text, `"secret_sha256"`, `"wrong": -100, "secret_sha256"`, 1)
		},
		"too large": func(text string) string { return text + strings.Repeat(" ", 17<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			i, secret := l.create("lab-07")
			fixture.WriteFile(t, l.path(i.ID), change(fixture.ReadFile(t, l.path(i.ID))))
			_, err := l.redeem(i.ID, secret, "k", made)
			if _, refused := errors.AsType[*invite.RefusedError](err); err == nil || refused {
				t.Errorf("got %v, want an error of the receiver", err)
			}
			l.wantIssued(0)
			if l.book.HasOpen(made) {
				t.Error("it keeps the door open")
			}
			if _, err := l.book.List(); err == nil || !strings.Contains(err.Error(), i.ID) {
				t.Errorf("got %v, want the name of the file", err)
			}
		})
	}
}

func TestUnreadableInvitationDoesNotHideOthers(t *testing.T) {
	l := newLab(t)
	bad, _ := l.create("lab-01")
	good, secret := l.create("lab-02")
	fixture.WriteFile(t, l.path(bad.ID), "")
	if !l.book.HasOpen(made) {
		t.Error("the door is shut for the other host")
	}
	if list, err := l.book.List(); err == nil || len(list) != 1 {
		t.Errorf("got %+v, %v; want the other one and an error", list, err)
	}
	if revoked, err := l.book.Revoke(t.Context(), "lab-02", made); err == nil || len(revoked) != 1 {
		t.Errorf("got %+v, %v; want the other one revoked and an error", revoked, err)
	}
	_, err := l.redeem(good.ID, secret, "k", made)
	l.wantRefused(err, invite.Revoked)
	l.create("lab-03")
}

// What power loss leaves is neither an invitation nor in the way of one.
func TestLeftoversOfPowerLossAreNoInvitations(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	text := fixture.ReadFile(t, l.path(i.ID))
	dir := filepath.Join(l.dir, "invitations")
	fixture.WriteFile(t, filepath.Join(dir, "."+i.ID+".json.tmp"), text[:len(text)/2])
	fixture.WriteFile(t, filepath.Join(dir, "."+strings.Repeat("c", 16)+".json.tmp"), text)
	if list, err := l.book.List(); err != nil || len(list) != 1 {
		t.Fatalf("got %+v, %v; want one invitation", list, err)
	}
	_, err := l.redeem(i.ID, secret, "k", made)
	fixture.Must(t, err)
}

func TestDoorIsOpenWhileAnInvitationCanBeAnswered(t *testing.T) {
	l := newLab(t)
	other := l.open() // the receiver's; invitations are another process's
	want := func(want bool, now time.Time) {
		t.Helper()
		if got := other.HasOpen(now); got != want {
			t.Errorf("HasOpen at %v: got %v, want %v", now, got, want)
		}
	}
	want(false, made)
	i, secret := l.create("lab-07")
	want(true, made)
	want(false, i.Expires)
	_, err := l.redeem(i.ID, secret, "k", made)
	fixture.Must(t, err)
	want(true, made) // the answer may be lost
	_, err = l.book.Revoke(t.Context(), i.ID, made)
	fixture.Must(t, err)
	want(false, made)
}

// A machine without a battery clock may have had a time in the future when it read the directory.
func TestDoorOpensAfterTheClockWasSetBack(t *testing.T) {
	l := newLab(t)
	l.book.SetReadAt(time.Now().AddDate(5, 0, 0))
	if l.book.HasOpen(made) {
		t.Fatal("open without an invitation")
	}
	l.book.SetReadAt(time.Now().AddDate(5, 0, 0))
	l.create("lab-07")
	if !l.book.HasOpen(made) {
		t.Error("the invitation is not seen")
	}
}

// A lock that another process holds for long must not delay connections, which ask HasOpen.
func TestDoorDoesNotWaitForTheLock(t *testing.T) {
	l := newLab(t)
	i, secret := l.create("lab-07")
	inside, done := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_, err := l.book.Redeem(context.WithoutCancel(t.Context()), i.ID, secret, "k", made, func(invite.Invitation) (string, error) {
			close(inside)
			<-done
			return "1", nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-inside
	if !l.book.HasOpen(made) { // hangs if it waits
		t.Error("the door is shut")
	}
	close(done)
	all.Wait()
}

func TestInvitationsAreFewAndOldOnesGo(t *testing.T) {
	l := newLab(t)
	old, _ := l.create("lab-01")
	_, _, err := l.book.Create(t.Context(), "lab-02", invite.CreateOptions{}, old.Expires.AddDate(0, 0, 31))
	fixture.Must(t, err)
	if list, err := l.book.List(); err != nil || len(list) != 1 || list[0].Host != "lab-02" {
		t.Errorf("got %+v, %v; want that of lab-02 alone", list, err)
	}
	for _, d := range []time.Duration{time.Second, -time.Hour, 31 * 24 * time.Hour} {
		if _, _, err := l.book.Create(t.Context(), "lab-03", invite.CreateOptions{Valid: d}, made); err == nil {
			t.Errorf("an invitation is valid for %v", d)
		}
	}
}
