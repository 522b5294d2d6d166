package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// pipes is a listener whose connections are in memory, so that the test uses virtual time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// bubbleClient is a handler and one connection to it.
type bubbleClient struct {
	testing.TB
	conn  net.Conn
	in    *bufio.Reader
	drain context.CancelCauseFunc
	took  time.Duration // until the answer
}

// inBubble runs do in virtual time against a receiver's handler.
func inBubble(t *testing.T, d *fakeBackend, do func(b *bubbleClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d.tb = t
		base, drain := context.WithCancelCause(context.Background())
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := &http.Server{
			Handler: newHandler(d), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 3 * time.Minute,
			BaseContext: func(net.Listener) context.Context { return base }, ErrorLog: log.New(io.Discard, "", 0),
		}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(l) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		do(&bubbleClient{TB: t, conn: ours, in: bufio.NewReader(ours), drain: drain})
		ours.Close()
		srv.Close()
		drain(nil)
		<-done
		time.Sleep(10 * time.Minute) // until the last goroutine of net/http and of this test has ended
	})
}

// begin sends the head of a PUT of size bytes.
func (b *bubbleClient) begin(content []byte, size int) {
	b.Helper()
	_, err := io.WriteString(b.conn, putRequest("", fmt.Sprint("Content-Length: ", size), "Repr-Digest: "+formatDigest(content)))
	fixture.Must(b, err)
}

// send writes in the background, bytes at a time with a pause after each.
func (b *bubbleClient) send(content []byte, bytes int, pause time.Duration) {
	go func() {
		for len(content) > 0 {
			n := min(bytes, len(content))
			if _, err := b.conn.Write(content[:n]); err != nil {
				return
			}
			content = content[n:]
			time.Sleep(pause)
		}
	}()
}

// answer reads one answer.
func (b *bubbleClient) answer() *http.Response {
	b.Helper()
	began := time.Now()
	resp, err := http.ReadResponse(b.in, nil)
	fixture.Must(b, err)
	body, err := io.ReadAll(resp.Body)
	fixture.Must(b, err)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	b.took = time.Since(began)
	return resp
}

func (b *bubbleClient) wantAnswer(status int, code wire.Code) *http.Response {
	b.Helper()
	resp := b.answer()
	if resp.StatusCode != status {
		b.Errorf("%s after %v, want %d", resp.Status, b.took, status)
	}
	if code != "" && !strings.HasSuffix(readProblem(b, resp).Type, string(code)) {
		b.Errorf("%s, want %s", resp.Status, code)
	}
	return resp
}

// The pace of [newHandler].
const (
	idle   = 30 * time.Second
	window = time.Minute
	rate   = 8 << 10
)

func TestStalledBodyIsCut(t *testing.T) {
	for _, sent := range []int{0, 1, 5000} {
		inBubble(t, &fakeBackend{}, func(b *bubbleClient) {
			content := make([]byte, 10_000)
			b.begin(content, len(content))
			b.send(content[:sent], 1000, 0)
			resp := b.wantAnswer(408, wire.Stalled)
			if !resp.Close {
				b.Error("the connection goes on in the middle of a body")
			}
			if b.took < idle*7/8-time.Second || b.took > idle+time.Second {
				b.Errorf("%d bytes: cut after %v, want about %v", sent, b.took, idle)
			}
		})
	}
}

func TestCrawlingBodyIsCut(t *testing.T) {
	for what, c := range map[string]struct {
		bytes int
		pause time.Duration
	}{
		"a byte a second":             {1, time.Second},
		"a byte just before the idle": {1, idle - time.Second},
		"just below the rate":         {rate*10 - 100, 10 * time.Second},
	} {
		inBubble(t, &fakeBackend{}, func(b *bubbleClient) {
			content := make([]byte, 4<<20)
			b.begin(content, len(content))
			b.send(content, c.bytes, c.pause)
			b.wantAnswer(408, wire.Stalled)
			if b.took > 4*window {
				b.Errorf("%s: cut after %v", what, b.took)
			}
		})
	}
}

// TestSlowBodyThatMovesIsNeverCut uploads for hours.
func TestSlowBodyThatMovesIsNeverCut(t *testing.T) {
	for what, c := range map[string]struct {
		bytes int
		pause time.Duration
	}{
		"steady":   {rate + 100, time.Second},
		"in gulps": {rate * 26, 25 * time.Second},
	} {
		inBubble(t, &fakeBackend{}, func(b *bubbleClient) {
			content := make([]byte, 32<<20)
			b.begin(content, len(content))
			b.send(content, c.bytes, c.pause)
			b.wantAnswer(201, "")
			if b.took < time.Hour {
				b.Errorf("%s: the upload took %v only: the test is none", what, b.took)
			}
		})
	}
}

// TestOurOwnDiskIsNotTheSendersFault reads the body more slowly than any sender may send it.
func TestOurOwnDiskIsNotTheSendersFault(t *testing.T) {
	content := make([]byte, 64<<10)
	d := &fakeBackend{take: func(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
		buf := make([]byte, 1000)
		for {
			_, err := body.Read(buf)
			if errors.Is(err, io.EOF) {
				return receiptOf(u), nil
			}
			if err != nil {
				return wire.Receipt{}, err
			}
			time.Sleep(3 * idle)
		}
	}}
	inBubble(t, d, func(b *bubbleClient) {
		b.begin(content, len(content))
		b.send(content, 500, 0)
		b.wantAnswer(201, "")
		if b.took < time.Hour {
			b.Errorf("the upload took %v only: the test is none", b.took)
		}
	})
}

// TestDeadlineEndsWithTheBody: after the last byte net/http continues to read in the
// background. A remaining deadline would end the request, and the next ones, while the disk
// syncs.
func TestDeadlineEndsWithTheBody(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 200_000} {
		d := &fakeBackend{}
		d.take = func(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
			if _, err := io.CopyN(io.Discard, body, u.Size); err != nil {
				return wire.Receipt{}, err
			}
			time.Sleep(idle) // and only then looks for the end
			if n, err := body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				d.tb.Errorf("behind the body: %d, %v", n, err)
			}
			select {
			case <-time.After(20 * idle):
				return receiptOf(u), nil
			case <-ctx.Done():
				d.tb.Errorf("the request ended while the disk was busy: %v", context.Cause(ctx))
				return wire.Receipt{}, ctx.Err()
			}
		}
		inBubble(t, d, func(b *bubbleClient) {
			content := make([]byte, size)
			for range 3 {
				b.begin(content, size)
				b.send(content, 1000, 0)
				if resp := b.wantAnswer(201, ""); resp.Close {
					b.Error("the connection ends")
				}
				time.Sleep(2 * idle) // idle between requests, longer than within
			}
		})
	}
}

func TestDrainTellsTheSenderToComeAgain(t *testing.T) {
	for _, sent := range []int{0, 5000} {
		inBubble(t, &fakeBackend{}, func(b *bubbleClient) {
			content := make([]byte, 10_000)
			b.begin(content, len(content))
			b.send(content[:sent], 1000, 0)
			time.Sleep(time.Second)
			b.drain(wire.ErrDraining)
			resp := b.wantAnswer(503, wire.Draining)
			if resp.Header.Get("Retry-After") != "5" || !resp.Close || b.took > time.Second {
				b.Errorf("Retry-After %q, closes %v, after %v", resp.Header.Get("Retry-After"), resp.Close, b.took)
			}
		})
	}
}

// TestDrainBeforeTheFirstByte: the backend was busy until the drain.
func TestDrainBeforeTheFirstByte(t *testing.T) {
	d := &fakeBackend{}
	d.take = func(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
		<-ctx.Done()
		return d.storeBody(u, body)
	}
	inBubble(t, d, func(b *bubbleClient) {
		content := make([]byte, 10_000)
		b.begin(content, len(content))
		b.send(content, 1000, 0)
		time.Sleep(time.Second)
		b.drain(wire.ErrDraining)
		b.wantAnswer(503, wire.Draining)
	})
}

// TestSenderThatLeavesIsNotStalled: the backend gets an error for a disconnected sender.
func TestSenderThatLeavesIsNotStalled(t *testing.T) {
	left := make(chan error, 1)
	d := &fakeBackend{}
	d.take = func(_ context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
		_, err := io.Copy(io.Discard, body)
		left <- err
		return wire.Receipt{}, err
	}
	inBubble(t, d, func(b *bubbleClient) {
		b.begin(make([]byte, 10_000), 10_000)
		_, err := b.conn.Write(make([]byte, 100))
		fixture.Must(b, err)
		fixture.Must(b, b.conn.Close())
		synctest.Wait()
	})
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// TestRefusedBodyDoesNotHoldTheConnection: net/http reads the rest of a small refused body, and
// a sender that stalls must not block it.
func TestRefusedBodyDoesNotHoldTheConnection(t *testing.T) {
	inBubble(t, &fakeBackend{refuse: wire.Refuse(wire.Full, "no")}, func(b *bubbleClient) {
		b.begin(make([]byte, 10_000), 10_000)
		b.wantAnswer(507, wire.Full)
		if b.took > 2*idle {
			b.Errorf("the answer came after %v, want at most %v", b.took, 2*idle)
		}
	})
}

// The body of a ping is not read, and a sender that announces one and does not send it must not
// occupy the connection.
func TestUnwantedBodyDoesNotHoldTheConnection(t *testing.T) {
	for _, line := range []string{"POST /v1/ping HTTP/1.1", "HEAD /v1/episodes/lab-01/run-1 HTTP/1.1"} {
		inBubble(t, &fakeBackend{}, func(b *bubbleClient) {
			_, err := b.conn.Write([]byte(line + "\r\nHost: r\r\nContent-Length: 10\r\n\r\n"))
			fixture.Must(b, err)
			began := time.Now()
			_, err = io.ReadAll(b.in) // to the end of the connection
			fixture.Must(b, err)
			if took := time.Since(began); took > 2*idle {
				b.Errorf("%s: the connection was held for %v", line, took)
			}
		})
	}
}
