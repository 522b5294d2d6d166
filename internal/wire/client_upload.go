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
	"cis490/internal/retry"
)

// Put sends an archive and returns a receipt that covers u. The error is a [*Problem] if the
// receiver refused, an [*UnexpectedResponseError] if something else responded, and a network error
// otherwise. Put may read the bytes more than once.
//
// An archive of [MinAnnounced] bytes or more is resumed after its connection breaks, as long as
// each attempt progresses. If Put gives up after progress, it returns an [*InterruptedError], and
// the next Put resumes there.
func (c *Client) Put(ctx context.Context, u Upload, archive io.ReaderAt) (Receipt, error) {
	if u.Size < MinAnnounced {
		return c.putWhole(ctx, u, archive)
	}
	for p := (sendProgress{first: -1}); ; {
		resp, err := c.announceUpload(ctx, u)
		if err == nil && resp.Upload == "" {
			return resp.Receipt, nil
		}
		if err != nil {
			return Receipt{}, p.wrapError(err)
		}
		further := p.advanceTo(resp.Offset)
		receipt, err := c.sendRemaining(ctx, u, resp, archive)
		if err == nil || !further || !isRetryable(err) {
			return receipt, p.wrapError(err)
		}
		if !retry.Sleep(ctx, rand.N(maxRetryJitter)) {
			return Receipt{}, ctx.Err()
		}
	}
}

// sendProgress is the progress of an upload within one [Client.Put].
type sendProgress struct {
	first, offset int64
}

// advanceTo records where the upload continues. It reports whether to try again: at the first
// offset, and at each larger one.
func (p *sendProgress) advanceTo(offset int64) bool {
	further := p.first < 0 || offset > p.offset
	if p.first < 0 {
		p.first = offset
	}
	p.offset = offset
	return further
}

func (p *sendProgress) wrapError(err error) error {
	if err == nil || p.first < 0 || p.offset <= p.first {
		return err
	}
	return &InterruptedError{Offset: p.offset, Err: err}
}

// isRetryable reports whether an upload can resume at once: the connection broke, or the server
// lost the upload or moved its offset.
func isRetryable(err error) bool {
	if _, ok := errors.AsType[*UnexpectedResponseError](err); ok || errors.Is(err, context.Canceled) {
		return false
	}
	if code, ok := errors.AsType[Code](err); ok {
		return code == NoUpload || code == OffsetMismatch || code == Stalled || code == Superseded
	}
	return true
}

// maxRetryJitter is the maximum wait before a broken upload is resumed.
const maxRetryJitter = 500 * time.Millisecond

// InterruptedError says that an upload ended early but progressed, so that a retry does not repeat
// it.
type InterruptedError struct {
	Offset int64 // bytes on the receiver's disk
	Err    error
}

func (i *InterruptedError) Error() string {
	return fmt.Sprintf("upload interrupted after %d bytes: %v", i.Offset, i.Err)
}

// Unwrap returns i.Err.
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

// announceUpload announces an archive. The response has a receipt that covers u, or the upload to
// continue.
func (c *Client) announceUpload(ctx context.Context, u Upload) (announceResponse, error) {
	req, err := c.newUploadRequest(ctx, http.MethodPut, c.episodeURL(u.Key), u)
	if err != nil {
		return announceResponse{}, err
	}
	req.Header.Set(uploadComplete, "?0")
	req.Header.Set(uploadLength, strconv.FormatInt(u.Size, 10))
	var resp announceResponse
	status, err := c.doRequest(req, &resp, http.StatusOK, http.StatusCreated)
	if err != nil {
		return announceResponse{}, err
	}
	promised, unfinished := resp.Receipt, resp.Status == unfinishedStatus
	if unfinished {
		promised.Status = Stored // so that Covers compares the other fields
	}
	if _, err := checkReceipt(promised, status, u); err != nil {
		return announceResponse{}, err
	}
	if unfinished != (resp.Upload != "") || resp.Offset < 0 || resp.Offset > u.Size {
		return announceResponse{}, &UnexpectedResponseError{Status: status, Err: fmt.Errorf("invalid response to an announcement: status %+q, upload %+q, offset %d",
			string(resp.Status), resp.Upload, resp.Offset)}
	}
	return resp, nil
}

// sendRemaining sends the rest of an announced archive.
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

// checkReceipt returns the receipt if it covers u, and an error otherwise.
func checkReceipt(receipt Receipt, status int, u Upload) (Receipt, error) {
	if err := errors.Join(receipt.Covers(u), receipt.Store.Validate()); err != nil {
		return Receipt{}, &UnexpectedResponseError{Status: status, Err: err}
	}
	return receipt, nil
}

// newUploadRequest returns a request with the headers that describe u.
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

// OpenUpload begins to send an archive whose end is not known yet, and returns the upload's id. A
// later Put continues from what [Client.AppendPiece] has sent.
func (c *Client) OpenUpload(ctx context.Context, name episode.Name) (string, error) {
	key := episode.Key{Host: c.host, Name: name}
	req, err := c.newRequest(ctx, http.MethodPut, c.episodeURL(key), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(uploadComplete, "?0")
	var resp announceResponse
	status, err := c.doRequest(req, &resp, http.StatusCreated)
	if err == nil && (resp.Status != unfinishedStatus || resp.Host != c.host || resp.Episode != name || resp.Upload == "" || resp.Offset != 0) {
		err = &UnexpectedResponseError{Status: status, Err: errors.New("response does not name an opened upload")}
	}
	return resp.Upload, err
}

// AppendPiece sends size bytes of an archive, from offset on, to an upload that [Client.OpenUpload]
// began.
func (c *Client) AppendPiece(ctx context.Context, id string, archive io.ReaderAt, offset, size int64) error {
	req, err := c.newRequest(ctx, http.MethodPatch, c.base.JoinPath(uploadsPath, url.PathEscape(id)), nil)
	if err != nil {
		return err
	}
	setPieceFields(req, offset, "?0")
	_, err = c.doWithBody(req, archive, offset, size, nil, http.StatusNoContent)
	return err
}

// CancelUpload discards an upload that [Client.OpenUpload] began.
func (c *Client) CancelUpload(ctx context.Context, id string) error {
	req, err := c.newRequest(ctx, http.MethodDelete, c.base.JoinPath(uploadsPath, url.PathEscape(id)), nil)
	if err != nil {
		return err
	}
	_, err = c.doRequest(req, nil, http.StatusNoContent)
	return err
}

func setPieceFields(req *http.Request, offset int64, complete string) {
	req.Header.Set("Content-Type", partialUploadType)
	req.Header.Set(uploadOffset, strconv.FormatInt(offset, 10))
	req.Header.Set(uploadComplete, complete)
}

// stallTimeout bounds how long the peer may read nothing of a body. It is longer than an fsync on a
// slow disk, and than [unackedTimeout], which is for a peer that is gone.
const stallTimeout = 2 * time.Minute

// errStalled ends a request whose body the peer does not read.
var errStalled = &stalledError{}

type stalledError struct{}

func (*stalledError) Error() string {
	return fmt.Sprintf("peer read no byte for %v", stallTimeout)
}

func (*stalledError) Timeout() bool { return true }

func (*stalledError) Temporary() bool { return true }

// doWithBody is [Client.doRequest] with a part of an archive as the body.
func (c *Client) doWithBody(req *http.Request, archive io.ReaderAt, offset, size int64, into any, statuses ...int) (int, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	watch := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer watch.Stop()
	part := func() (io.ReadCloser, error) {
		return io.NopCloser(&bodyReader{io.NewSectionReader(archive, offset, size), watch}), nil
	}
	req = req.WithContext(ctx)
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody // another body would be sent chunked
		watch.Stop()           // nothing to send: responseTimeout bounds the response
	} else {
		// net/http replaces a connection that the receiver has closed only if it can get the body
		// again.
		req.Body, _ = part()
		req.GetBody = part
	}
	return c.doRequest(req, into, statuses...)
}

// bodyReader restarts a timer with each read.
type bodyReader struct {
	io.Reader
	timer *time.Timer
}

func (w *bodyReader) Read(p []byte) (int, error) {
	w.timer.Reset(stallTimeout)
	n, err := w.Reader.Read(p)
	if err != nil {
		w.timer.Stop() // responseTimeout bounds the response
	}
	return n, err
}
