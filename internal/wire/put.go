package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cis490/internal/episode"
)

// stallTimeout is how long the other end may take nothing of a body: longer than
// a slow disk needs for a sync, and than [unackedLimit], which sees to a peer that
// is gone.
const stallTimeout = 2 * time.Minute

// againWithin is the wait before a broken upload goes on, at the most.
const againWithin = 500 * time.Millisecond

// Interrupted says that an upload ended before its end, but came further than it
// was: trying again is no repetition.
type Interrupted struct {
	Offset int64 // so many bytes are on the receiver's disk
	Err    error
}

func (i *Interrupted) Error() string {
	return fmt.Sprintf("the upload broke off behind its byte %d: %v", i.Offset, i.Err)
}

// Unwrap returns why.
func (i *Interrupted) Unwrap() error { return i.Err }

// Put sends an archive and returns the receipt, which covers u. The error is a
// [*Problem] if the receiver refused, a [*UnexpectedResponseError] if something else
// answered, and the network's otherwise. The bytes may be read more than once.
//
// An archive of [MinAnnounced] bytes or more survives cuts of its connection: Put
// goes on where the receiver has come to, as long as it comes further each time.
// When it gives up after that the error is an [*Interrupted], and the next Put
// goes on there.
func (c *Client) Put(ctx context.Context, u Upload, archive io.ReaderAt) (Receipt, error) {
	if u.Size < MinAnnounced {
		return c.whole(ctx, u, archive)
	}
	for p := (pursuit{first: -1}); ; {
		said, err := c.announce(ctx, u)
		if err == nil && said.Upload == "" {
			return said.Receipt, nil
		}
		if err != nil {
			return Receipt{}, p.ended(err)
		}
		further := p.at(said.Offset)
		receipt, err := c.piece(ctx, u, said, archive)
		if err == nil || !further || !goesOn(err) {
			return receipt, p.ended(err)
		}
		select {
		case <-time.After(rand.N(againWithin)):
		case <-ctx.Done():
			return Receipt{}, ctx.Err()
		}
	}
}

// pursuit is how far an upload has come in one [Client.Put].
type pursuit struct {
	first, offset int64
}

// at notes where the upload goes on, and reports whether that is worth another
// attempt: at the beginning, or further than the last one.
func (p *pursuit) at(offset int64) bool {
	further := p.first < 0 || offset > p.offset
	if p.first < 0 {
		p.first = offset
	}
	p.offset = offset
	return further
}

func (p *pursuit) ended(err error) error {
	if err == nil || p.first < 0 || p.offset <= p.first {
		return err
	}
	return &Interrupted{Offset: p.offset, Err: err}
}

// goesOn reports whether an upload that met err may go on at once: its connection
// broke, or the receiver has lost it or come elsewhere with it.
func goesOn(err error) bool {
	if _, ok := errors.AsType[*UnexpectedResponseError](err); ok || errors.Is(err, context.Canceled) {
		return false
	}
	if code, ok := errors.AsType[Code](err); ok {
		return code == NoUpload || code == OffsetMismatch || code == Stalled || code == Superseded
	}
	return true
}

// whole sends an archive in one request.
func (c *Client) whole(ctx context.Context, u Upload, archive io.ReaderAt) (Receipt, error) {
	req, err := c.upload(ctx, http.MethodPut, c.episode(u.Key), u)
	if err != nil {
		return Receipt{}, err
	}
	req.Header.Set("Content-Type", "application/zstd")
	var receipt Receipt
	status, err := c.doBody(req, archive, 0, u.Size, &receipt, http.StatusOK, http.StatusCreated)
	if err != nil {
		return Receipt{}, err
	}
	return covering(receipt, status, u)
}

// covering returns a receipt that covers u, or an error and none.
func covering(receipt Receipt, status int, u Upload) (Receipt, error) {
	if err := errors.Join(receipt.Covers(u), receipt.Store.Check()); err != nil {
		return Receipt{}, &UnexpectedResponseError{Status: status, Err: err}
	}
	return receipt, nil
}

// upload returns a request about u.
func (c *Client) upload(ctx context.Context, method string, to *url.URL, u Upload) (*http.Request, error) {
	req, err := c.request(ctx, method, to, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(reprDigest, digestField(u.Digest))
	if u.Skipped > 0 {
		req.Header.Set(skippedField, strconv.Itoa(u.Skipped))
	}
	if u.Resent {
		req.Header.Set(resentField, "?1")
	}
	return req, nil
}

// announce asks for an upload. What it returns covers u, or says where to go on.
func (c *Client) announce(ctx context.Context, u Upload) (offer, error) {
	req, err := c.upload(ctx, http.MethodPut, c.episode(u.Key), u)
	if err != nil {
		return offer{}, err
	}
	req.Header.Set(uploadComplete, "?0")
	req.Header.Set(uploadLength, strconv.FormatInt(u.Size, 10))
	var said offer
	status, err := c.do(req, &said, http.StatusOK, http.StatusCreated)
	if err != nil {
		return offer{}, err
	}
	promised, unfinished := said.Receipt, said.Status == unfinishedStatus
	if unfinished {
		promised.Status = Stored // for Covers to compare all else
	}
	if _, err := covering(promised, status, u); err != nil {
		return offer{}, err
	}
	if unfinished != (said.Upload != "") || said.Offset < 0 || said.Offset > u.Size {
		return offer{}, &UnexpectedResponseError{Status: status, Err: fmt.Errorf("an announcement was answered with the status %+q, upload %+q, offset %d",
			string(said.Status), said.Upload, said.Offset)}
	}
	return said, nil
}

// piece sends all that is left of an archive.
func (c *Client) piece(ctx context.Context, u Upload, at offer, archive io.ReaderAt) (Receipt, error) {
	req, err := c.upload(ctx, http.MethodPatch, c.base.JoinPath(uploadsPath, url.PathEscape(at.Upload)), u)
	if err != nil {
		return Receipt{}, err
	}
	pieceFields(req, at.Offset, "?1")
	var receipt Receipt
	status, err := c.doBody(req, archive, at.Offset, u.Size-at.Offset, &receipt, http.StatusOK, http.StatusCreated)
	if err != nil {
		return Receipt{}, err
	}
	return covering(receipt, status, u)
}

// Open begins to send an archive whose end is not known yet, under the name of an
// episode of ours, and returns the upload's id. Put takes up what [Client.Append] has
// brought of it.
func (c *Client) Open(ctx context.Context, name episode.Name) (string, error) {
	key := episode.Key{Host: c.host, Name: name}
	req, err := c.request(ctx, http.MethodPut, c.episode(key), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(uploadComplete, "?0")
	var said offer
	status, err := c.do(req, &said, http.StatusCreated)
	if err == nil && (said.Status != unfinishedStatus || said.Host != c.host || said.Episode != name || said.Upload == "" || said.Offset != 0) {
		err = &UnexpectedResponseError{Status: status, Err: errors.New("not an upload that was opened")}
	}
	return said.Upload, err
}

// Append sends size bytes of an archive from offset on, to an upload that [Client.Open]
// has begun.
func (c *Client) Append(ctx context.Context, id string, archive io.ReaderAt, offset, size int64) error {
	req, err := c.request(ctx, http.MethodPatch, c.base.JoinPath(uploadsPath, url.PathEscape(id)), nil)
	if err != nil {
		return err
	}
	pieceFields(req, offset, "?0")
	_, err = c.doBody(req, archive, offset, size, nil, http.StatusNoContent)
	return err
}

// Forget gives up an upload that [Client.Open] has begun.
func (c *Client) Forget(ctx context.Context, id string) error {
	req, err := c.request(ctx, http.MethodDelete, c.base.JoinPath(uploadsPath, url.PathEscape(id)), nil)
	if err != nil {
		return err
	}
	_, err = c.do(req, nil, http.StatusNoContent)
	return err
}

func pieceFields(req *http.Request, offset int64, complete string) {
	req.Header.Set("Content-Type", partialUpload)
	req.Header.Set(uploadOffset, strconv.FormatInt(offset, 10))
	req.Header.Set(uploadComplete, complete)
}

// errStalled ends a request whose body nobody takes.
var errStalled = &stalledError{}

type stalledError struct{}

func (*stalledError) Error() string {
	return fmt.Sprintf("the other end took no byte for %v", stallTimeout)
}
func (*stalledError) Timeout() bool   { return true }
func (*stalledError) Temporary() bool { return true }

// doBody is [Client.do] with a part of an archive as the body.
func (c *Client) doBody(req *http.Request, archive io.ReaderAt, offset, size int64, into any, statuses ...int) (int, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	watch := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer watch.Stop()
	part := func() (io.ReadCloser, error) {
		return io.NopCloser(&watched{io.NewSectionReader(archive, offset, size), watch}), nil
	}
	req = req.WithContext(ctx)
	if req.ContentLength = size; size == 0 {
		req.Body = http.NoBody // anything else would be sent as a body of unknown length
		watch.Stop()           // nothing to be taken: the answer has a limit of its own
	} else {
		// A connection that the receiver closed while it was idle is replaced
		// without our seeing it only if the body can be had again.
		req.Body, _ = part()
		req.GetBody = part
	}
	return c.do(req, into, statuses...)
}

// watched is a body that says that it is being taken.
type watched struct {
	io.Reader
	watch *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	w.watch.Reset(stallTimeout)
	n, err := w.Reader.Read(p)
	if err != nil {
		w.watch.Stop() // the answer has a limit of its own
	}
	return n, err
}
