package invite

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Names below the directory that a [Book] is opened in.
const (
	bookDir  = "invitations"
	bookLock = ".invitations.lock"
	suffix   = ".json"
)

const (
	maxInvitations = 1000
	maxFile        = 16 << 10
	// keepExpired is for how long after its expiry an invitation is listed.
	keepExpired = 30 * 24 * time.Hour
	// timeGranularity is how far the time of a change in a directory may lie behind the clock.
	timeGranularity = time.Second
)

// Book has the invitations of a receiver, one file each. Several processes may use it at once.
type Book struct {
	parent *durable.Dir
	dir    *durable.Dir
	holder string // describes this process to others that wait for the lock

	changing sync.Mutex // held with the lock, so that the goroutines of a process wait in turn

	mu      sync.Mutex // guards the fields below
	changed time.Time  // when the directory had changed when latest was read; zero if never
	readAt  time.Time  // when latest was read
	latest  time.Time  // when the last invitation that can be answered expires
}

// OpenBook opens the invitations below a directory, which only the receiver's user may write to.
// It creates their directory if it is missing.
func OpenBook(path, holder string) (*Book, error) {
	parent, err := durable.Open(path)
	if err != nil {
		return nil, err
	}
	dir, err := parent.MakeDirMode(bookDir, 0o700)
	if err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	return &Book{parent: parent, dir: dir, holder: holder}, nil
}

// Close closes the directories.
func (b *Book) Close() error { return errors.Join(b.dir.Close(), b.parent.Close()) }

// CreateOptions are options of [Book.Create].
type CreateOptions struct {
	Valid time.Duration // zero means [DefaultValid]
	Again bool          // see [Invitation]
}

// Create writes an invitation and returns it with its secret, which is kept nowhere. Earlier open
// invitations of the host are revoked, so that one token is valid per host.
func (b *Book) Create(ctx context.Context, host episode.Name, o CreateOptions, now time.Time) (Invitation, string, error) {
	if o.Valid == 0 {
		o.Valid = DefaultValid
	}
	if err := CheckValid(o.Valid); err != nil {
		return Invitation{}, "", err
	}
	now = now.UTC().Truncate(time.Second)
	secret := randomWord(secretBytes)
	sum := sha256.Sum256([]byte(secret))
	made := Invitation{
		Version: 1, ID: randomWord(idBytes), Host: host, Created: now, Expires: now.Add(o.Valid),
		Again: o.Again, SecretSHA256: hex.EncodeToString(sum[:]),
	}
	err := b.withLock(ctx, func() error {
		if err := b.makeRoom(host, now); err != nil {
			return err
		}
		return b.writeInvitation(made)
	})
	return made, secret, err
}

// makeRoom revokes the open invitations of a host, and removes those that expired long ago.
func (b *Book) makeRoom(host episode.Name, now time.Time) error {
	all, _ := b.List() // one that cannot be read is not answered, and must not prevent others
	kept := 0
	for _, i := range all {
		switch {
		case now.After(i.Expires.Add(keepExpired)):
			if err := b.dir.Remove(i.ID + suffix); err != nil {
				return err
			}
			continue
		case i.Host == host && i.State(now) == Open:
			i.RevokedAt = &now
			if err := b.writeInvitation(i); err != nil {
				return err
			}
		}
		kept++
	}
	if kept >= maxInvitations {
		return fmt.Errorf("there are %d invitations, the maximum; remove old files from %s", kept, b.dir.Path(""))
	}
	return nil
}

// List returns the invitations, the oldest first. If a file cannot be read, it returns an error
// with the rest of the list.
func (b *Book) List() ([]Invitation, error) {
	var all []Invitation
	var broken []error
	for entry, err := range b.dir.Names() {
		if err != nil {
			return all, errors.Join(append(broken, err)...)
		}
		id, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok || !idGrammar.MatchString(id) { // a temporary file that power loss left
			continue
		}
		i, err := b.loadInvitation(id)
		if err != nil {
			broken = append(broken, err)
			continue
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(x, y Invitation) int {
		return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.ID, y.ID))
	})
	return all, errors.Join(broken...)
}

// Revoke ends the open invitations of a host, or the one with an id, and returns them.
func (b *Book) Revoke(ctx context.Context, hostOrID string, now time.Time) ([]Invitation, error) {
	now = now.UTC().Truncate(time.Second)
	var revoked []Invitation
	err := b.withLock(ctx, func() error {
		all, err := b.List()
		for _, i := range all {
			if string(i.Host) != hostOrID && i.ID != hostOrID || !i.answers(now) {
				continue
			}
			i.RevokedAt = &now
			if werr := b.writeInvitation(i); werr != nil {
				return errors.Join(err, werr)
			}
			revoked = append(revoked, i)
		}
		return err
	})
	return revoked, err
}

// HasOpen reports whether a request to join could be answered now. It reads the files only after a
// change.
func (b *Book) HasOpen(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	st, err := b.dir.Stat()
	if err != nil {
		return false
	}
	// Any other time counts, not only a later one: the clock may have been set back.
	if at := st.ChangedAt(); !at.Equal(b.changed) || !at.Before(b.readAt.Add(-timeGranularity)) {
		b.changed, b.readAt, b.latest = at, time.Now(), time.Time{}
		all, _ := b.List() // an unreadable invitation is not answered; [Book.Redeem] says why
		for _, i := range all {
			if i.answers(now) && i.Expires.After(b.latest) {
				b.latest = i.Expires
			}
		}
	}
	return now.Before(b.latest)
}

// RefusedError says that a request to join gets no certificate. Its text may be sent and logged.
type RefusedError struct {
	// State is that of the invitation, or "" if there is none with this id and secret.
	State State
	Host  episode.Name // empty unless the secret was right
}

func (e *RefusedError) Error() string {
	again := ""
	if e.Host != "" {
		again = fmt.Sprintf(": ask for another, with 'receiver invite %s' on the receiver", e.Host)
	}
	switch e.State {
	case Used:
		return fmt.Sprintf("the token was already used by another machine or key: if that was wrong, run 'receiver invite %s --again' on the receiver", e.Host)
	case Expired:
		return "the token has expired" + again
	case Burnt:
		return "the token was ended after too many wrong secrets" + again
	case Revoked:
		return "the token was revoked" + again
	}
	return "the receiver does not know this token: it was made by another receiver, was removed, or was altered; ask for another, with 'receiver invite'"
}

// Redeem uses an invitation. It calls issue, which must make the certificate for a key durable
// before it returns its serial, unless that was done for this key before. The returned invitation
// names the serial. The error is a [*RefusedError] if the request gets no certificate.
//
// A crash between issue and the end leaves the invitation open: the certificate on record was never
// handed out, and the next request gets another.
func (b *Book) Redeem(ctx context.Context, id, secret string, keySHA256 string, now time.Time, issue func(Invitation) (serial string, err error)) (Invitation, error) {
	if !idGrammar.MatchString(id) {
		return Invitation{}, &RefusedError{}
	}
	var used Invitation
	err := b.withLock(ctx, func() error {
		i, err := b.loadInvitation(id)
		if errors.Is(err, fs.ErrNotExist) {
			return &RefusedError{}
		}
		if err != nil {
			return err
		}
		if used, err = b.admitRequest(i, secret, keySHA256, now); err != nil || used.Use != nil {
			return err
		}
		serial, err := issue(i)
		if err != nil {
			return err
		}
		used.Use = &Use{At: now.UTC().Truncate(time.Second), KeySHA256: keySHA256, Serial: serial}
		return b.writeInvitation(used)
	})
	return used, err
}

// admitRequest returns i if a request with this secret and key may have a certificate by it.
func (b *Book) admitRequest(i Invitation, secret, keySHA256 string, now time.Time) (Invitation, error) {
	if !i.hasSecret(secret) {
		if i.answers(now) {
			i.Wrong++
			if err := b.writeInvitation(i); err != nil {
				return i, err
			}
		}
		return i, &RefusedError{}
	}
	switch state := i.State(now); {
	case state == Used && i.Use.KeySHA256 != keySHA256:
		return i, &RefusedError{State: Used, Host: i.Host}
	case state == Used && i.Wrong >= maxWrong:
		return i, &RefusedError{State: Burnt, Host: i.Host}
	case state == Used && !now.Before(i.Expires):
		return i, &RefusedError{State: Expired, Host: i.Host}
	case !i.answers(now):
		return i, &RefusedError{State: state, Host: i.Host}
	}
	return i, nil
}

func (b *Book) withLock(ctx context.Context, do func() error) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	lock, err := b.parent.WaitLock(ctx, bookLock, b.holder)
	if err != nil {
		return err
	}
	return errors.Join(do(), lock.Unlock())
}

func (b *Book) loadInvitation(id string) (Invitation, error) {
	var i Invitation
	f, err := b.dir.Open(id + suffix)
	if err != nil {
		return i, err
	}
	defer f.Close()
	data, err := durable.ReadAtMost(f, b.dir.Path(id+suffix), maxFile)
	if err != nil {
		return i, err
	}
	err = json.Unmarshal(data, &i)
	switch {
	case err == nil && i.Version != 1:
		err = fmt.Errorf("schema_version is %d, not 1", i.Version)
	case err == nil && i.ID != id:
		err = errors.New("its id is that of another file")
	case err == nil:
		err = i.check()
	}
	if err != nil {
		return i, fmt.Errorf("%s is not an invitation: %w; remove it: its token is not valid any more", b.dir.Path(id+suffix), err)
	}
	return i, nil
}

func (b *Book) writeInvitation(i Invitation) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return b.dir.WriteFile(i.ID+suffix, append(data, '\n'), 0o600)
}

// Layout lists the names of a [Book] in its directory.
func Layout() []durable.LayoutEntry {
	file := func(name string) bool { return strings.HasSuffix(name, suffix) }
	return []durable.LayoutEntry{
		{Match: durable.MatchNames(bookLock), Perm: 0o600},
		{Match: durable.MatchNames(bookDir), Perm: 0o700, Dir: true, Below: durable.Layout{{Match: file, Perm: 0o600}}},
	}
}

// List returns the invitations below a directory, as [Book.List] does. It creates nothing: the
// directory may be missing, or path empty.
func List(path string) ([]Invitation, error) {
	if path == "" {
		return nil, nil
	}
	dir, err := durable.Open(filepath.Join(path, bookDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := Book{dir: dir}
	defer dir.Close()
	return b.List()
}
