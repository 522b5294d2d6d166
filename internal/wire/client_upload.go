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
		return c.putWhole(ctx, u, archive)
	}
	for p := (sendProgress{first: -1}); ; {
		resp, err := c.announce(ctx, u)
		if err == nil && resp.Upload == "" {
			return resp.Receipt, nil
		}
		if err != nil {
			return Receipt{}, p.wrap(err)
		}
		further := p.advance(resp.Offset)
		receipt, err := c.sendRemaining(ctx, u, resp, archive)
		if err == nil || !further || !retryable(err) {
			return receipt, p.wrap(err)
		}
		select {
		case <-time.After(rand.N(maxRetryJitter)):
		case <-ctx.Done():
			return Receipt{}, ctx.Err()
		}
	}
}

// sendProgress is how far an upload has come in one [Client.Put].
type sendProgress struct {
	first, offset int64
}

// advance notes where the upload goes on, and reports whether that is worth another
// attempt: at the beginning, or further than the last one.
func (p *sendProgress) advance(offset int64) bool {
	further := p.first < 0 || offset > p.offset
	if p.first < 0 {
		p.first = offset
	}
	p.offset = offset
	return further
}

func (p *sendProgress) wrap(err error) error {
	if err == nil || p.first < 0 || p.offset <= p.first {
		return err
	}
	return &InterruptedError{Offset: p.offset, Err: err}
}

// retryable reports whether an upload that met err may go on at once: its connection
// broke, or the receiver has lost it or come elsewhere with it.
func retryable(err error) bool {
	if _, ok := errors.AsType[*UnexpectedResponseError](err); ok || errors.Is(err, context.Canceled) {
		return false
	}
	if code, ok := errors.AsType[Code](err); ok {
		return code == NoUpload || code == OffsetMismatch || code == Stalled || code == Superseded
	}
	return true
}

// maxRetryJitter is the wait before a broken upload goes on, at the most.
const maxRetryJitter = 500 * time.Millisecond

// InterruptedError says that an upload ended before its end, but came further than it
// was: trying again is no repetition.
type InterruptedError struct {
	Offset int64 // so many bytes are on the receiver's disk
	Err    error
}

func (i *InterruptedError) Error() string {
	return fmt.Sprintf("the upload broke off behind its byte %d: %v", i.Offset, i.Err)
}

// Unwrap returns why.
func (i *InterruptedError) Unwrap() error { return i.Err }

// putWhole sends an archive in one request.
func (c *Client) putWhole(ctx context.Context, u Upload, archive io.ReaderAt) (Receipt, error) {
	req, err := c.newUploadRequest(ctx, http.MethodPut, c.episodeURL(u.Key), u)
	if err != nil {
		return Receipt{}, err
	}
	req.Header.Set("Content-Type", "application/zstd")
	var receipt Receipt
	status, err := c.doWithBody(req, archive, 0, u.Size, &receipt, http.StatusOK, http.StatusCreated)
	if err != nil {
		return Receipt{}, err
	}
	return checkReceipt(receipt, status, u)
}

// announce asks for an upload. What it returns covers u, or says where to go on.
func (c *Client) announce(ctx context.Context, u Upload) (announceResponse, error) {
	req, err := c.newUploadRequest(ctx, http.MethodPut, c.episodeURL(u.Key), u)
	if err != nil {
		return announceResponse{}, err
	}
	req.Header.Set(uploadComplete, "?0")
	req.Header.Set(uploadLength, strconv.FormatInt(u.Size, 10))
	var resp announceResponse
	status, err := c.do(req, &resp, http.StatusOK, http.StatusCreated)
	if err != nil {
		return announceResponse{}, err
	}
	promised, unfinished := resp.Receipt, resp.Status == unfinishedStatus
	if unfinished {
		promised.Status = Stored // for Covers to compare all else
	}
	if _, err := checkReceipt(promised, status, u); err != nil {
		return announceResponse{}, err
	}
	if unfinished != (resp.Upload != "") || resp.Offset < 0 || resp.Offset > u.Size {
		return announceResponse{}, &UnexpectedResponseError{Status: status, Err: fmt.Errorf("an announcement was answered with the status %+q, upload %+q, offset %d",
			string(resp.Status), resp.Upload, resp.Offset)}
	}
	return resp, nil
}

// sendRemaining sends all that is left of an archive.
func (c *Client) sendRemaining(ctx context.Context, u Upload, at announceResponse, archive io.ReaderAt) (Receipt, error) {
	req, err := c.newUploadRequest(ctx, http.MethodPatch, c.base.JoinPath(uploadsPath, url.PathEscape(at.Upload)), u)
	if err != nil {
		return Receipt{}, err
	}
	setPieceFields(req, at.Offset, "?1")
	var receipt Receipt
	status, err := c.doWithBody(req, archive, at.Offset, u.Size-at.Offset, &receipt, http.StatusOK, http.StatusCreated)
	if err != nil {
		return Receipt{}, err
	}
	return checkReceipt(receipt, status, u)
}

// checkReceipt returns a receipt that covers u, or an error and none.
func checkReceipt(receipt Receipt, status int, u Upload) (Receipt, error) {
	if err := errors.Join(receipt.Covers(u), receipt.Store.Check()); err != nil {
		return Receipt{}, &UnexpectedResponseError{Status: status, Err: err}
	}
	return receipt, nil
}

// newUploadRequest returns a request about u.
func (c *Client) newUploadRequest(ctx context.Context, method string, to *url.URL, u Upload) (*http.Request, error) {
	req, err := c.newRequest(ctx, method, to, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(reprDigest, formatDigest(u.Digest))
	if u.Skipped > 0 {
		req.Header.Set(skippedField, strconv.Itoa(u.Skipped))
	}
	if u.Resent {
		req.Header.Set(resentField, "?1")
	}
	return req, nil
}

// Open begins to send an archive whose end is not known yet, under the name of an
// episode of ours, and returns the upload's id. Put takes up what [Client.Append] has
// brought of it.
func (c *Client) Open(ctx context.Context, name episode.Name) (string, error) {
	key := episode.Key{Host: c.host, Name: name}
	req, err := c.newRequest(ctx, http.MethodPut, c.episodeURL(key), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(uploadComplete, "?0")
	var resp announceResponse
	status, err := c.do(req, &resp, http.StatusCreated)
	if err == nil && (resp.Status != unfinishedStatus || resp.Host != c.host || resp.Episode != name || resp.Upload == "" || resp.Offset != 0) {
		err = &UnexpectedResponseError{Status: status, Err: errors.New("not an upload that was opened")}
	}
	return resp.Upload, err
}

// Append sends size bytes of an archive from offset on, to an upload that [Client.Open]
// has begun.
func (c *Client) Append(ctx context.Context, id string, archive io.ReaderAt, offset, size int64) error {
	req, err := c.newRequest(ctx, http.MethodPatch, c.base.JoinPath(uploadsPath, url.PathEscape(id)), nil)
	if err != nil {
		return err
	}
	setPieceFields(req, offset, "?0")
	_, err = c.doWithBody(req, archive, offset, size, nil, http.StatusNoContent)
	return err
}

// Forget gives up an upload that [Client.Open] has begun.
func (c *Client) Forget(ctx context.Context, id string) error {
	req, err := c.newRequest(ctx, http.MethodDelete, c.base.JoinPath(uploadsPath, url.PathEscape(id)), nil)
	if err != nil {
		return err
	}
	_, err = c.do(req, nil, http.StatusNoContent)
	return err
}

func setPieceFields(req *http.Request, offset int64, complete string) {
	req.Header.Set("Content-Type", partialUploadType)
	req.Header.Set(uploadOffset, strconv.FormatInt(offset, 10))
	req.Header.Set(uploadComplete, complete)
}

// stallTimeout is how long the other end may take nothing of a body: longer than
// a slow disk needs for a sync, and than [unackedTimeout], which sees to a peer that
// is gone.
const stallTimeout = 2 * time.Minute

// errStalled ends a request whose body nobody takes.
var errStalled = &stalledError{}

type stalledError struct{}

func (*stalledError) Error() string {
	return fmt.Sprintf("the other end took no byte for %v", stallTimeout)
}

func (*stalledError) Timeout() bool { return true }

func (*stalledError) Temporary() bool { return true }

// doWithBody is [Client.do] with a part of an archive as the body.
func (c *Client) doWithBody(req *http.Request, archive io.ReaderAt, offset, size int64, into any, statuses ...int) (int, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	watch := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer watch.Stop()
	part := func() (io.ReadCloser, error) {
		return io.NopCloser(&bodyReader{io.NewSectionReader(archive, offset, size), watch}), nil
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

// bodyReader is a body that says that it is being taken.
type bodyReader struct {
	io.Reader
	timer *time.Timer
}

func (w *bodyReader) Read(p []byte) (int, error) {
	w.timer.Reset(stallTimeout)
	n, err := w.Reader.Read(p)
	if err != nil {
		w.timer.Stop() // the answer has a limit of its own
	}
	return n, err
}
