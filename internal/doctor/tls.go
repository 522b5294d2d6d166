package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DialTLS opens a TLS connection to the receiver. It offers the given groups for the exchange of
// keys.
type DialTLS func(ctx context.Context, groups ...tls.CurveID) (net.Conn, error)

// largeHello are the groups that the daemon offers. The key of the post-quantum one makes the first
// message of a handshake 1.7 KiB long: two packets, the first of which fills the MTU.
var (
	largeHello = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	smallHello = []tls.CurveID{tls.X25519}
)

// HelloOutcome is what happened to a hello of two packets.
type HelloOutcome int

// The outcomes. A hello that got any answer has arrived.
const (
	HelloUnknown HelloOutcome = iota
	HelloArrived
	HelloLost
)

// CheckTLS does a handshake with a hello of two packets, as the daemon does, and one with a small
// hello. If only the first gets no answer, twice, large packets are lost, or a middlebox drops such a
// hello. mtuFits says that packets of the route's MTU arrive. CheckTLS also returns the receiver's
// certificate, or nil, and what happened to the large hello.
func CheckTLS(ctx context.Context, dial DialTLS, r Route, mtuFits bool) ([]Finding, *x509.Certificate, HelloOutcome) {
	large, lerr := tryHandshake(ctx, dial, largeHello)
	small, serr := tryHandshake(ctx, dial, smallHello)
	if isLost(lerr) && serr == nil { // the first may have met a moment without a network
		large, lerr = tryHandshake(ctx, dial, largeHello)
	}
	leaf := large.leaf
	if leaf == nil {
		leaf = small.leaf
	}
	return judgeTLS(r, mtuFits, large, small, lerr, serr), leaf, judgeHello(ctx, lerr)
}

func judgeHello(ctx context.Context, err error) HelloOutcome {
	_, refused := errors.AsType[*tls.CertificateVerificationError](err) // by us
	alert, is := errors.AsType[*net.OpError](err)
	switch {
	case ctx.Err() != nil, errors.Is(err, context.Canceled):
		return HelloUnknown
	case isLost(err):
		return HelloLost
	case err == nil, refused, is && alert.Op == "remote error":
		return HelloArrived
	}
	return HelloUnknown
}

// isLost reports whether a handshake got no answer, or was reset. A receiver that does not get a whole
// hello waits as long as this end does, then closes the connection: an EOF here, if its wait ends first.
// A connection that could not be opened says nothing about the hello.
func isLost(err error) bool {
	if e, is := errors.AsType[*net.OpError](err); is && e.Op == "dial" {
		return false
	}
	timeout, is := errors.AsType[net.Error](err)
	return is && timeout.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.ECONNRESET)
}

func judgeTLS(r Route, mtuFits bool, large, small handshakeResult, lerr, serr error) []Finding {
	const check = "TLS"
	first, second := OKf(check, "%s, hello of two packets", large), OKf(check, "%s, small hello", small)
	if lerr != nil {
		first = failedByNetwork(check, fmt.Errorf("hello of two packets: %w", lerr))
	}
	if serr != nil {
		second = failedByNetwork(check, fmt.Errorf("small hello: %w", serr))
	}
	_, interrupted := CheckCanceled(check, errors.Join(lerr, serr))
	switch {
	case interrupted, lerr == nil:
	case serr != nil && serr.Error() == lerr.Error():
		second = Skippedf(check, "a small hello fails in the same way")
	case serr == nil && isLost(lerr):
		const drops = "a middlebox drops the hello: as the last resort set Environment=GODEBUG=tlsmlkem=0 with 'systemctl edit cis490-shipper'"
		first.Fact += ": only the small hello works"
		first.Remedy = drops
		if !mtuFits {
			first.Remedy = fmt.Sprintf("%s; if that does not help, %s", r.mtuRemedy(fallbackMTU), drops)
		}
	}
	return []Finding{first, second}
}

// fallbackMTU fits through every network with IPv6.
const fallbackMTU = 1280

// handshakeResult describes a handshake.
type handshakeResult struct {
	version uint16
	group   tls.CurveID
	took    time.Duration
	leaf    *x509.Certificate // of the receiver
}

func (h handshakeResult) String() string {
	return fmt.Sprintf("%s with %s in %s", tls.VersionName(h.version), h.group, formatTime(h.took))
}

func tryHandshake(ctx context.Context, dial DialTLS, groups []tls.CurveID) (handshakeResult, error) {
	began := time.Now()
	conn, err := dial(ctx, groups...)
	if err != nil {
		return handshakeResult{}, err
	}
	defer conn.Close()
	h := handshakeResult{took: time.Since(began)}
	if t, is := conn.(*tls.Conn); is {
		state := t.ConnectionState()
		h.version, h.group = state.Version, state.CurveID
		if len(state.PeerCertificates) > 0 {
			h.leaf = state.PeerCertificates[0]
		}
	}
	return h, nil
}

// Limits of the days that a certificate is still valid.
const (
	certificateSoon = 30 * 24 * time.Hour // for one that an operator must renew
	certificateLate = 7 * 24 * time.Hour  // for one that should have renewed itself
)

// CheckCertificate reports for how long a certificate is valid. whose describes it; renewsAt is when it
// renews itself, or zero; renew is what to do if it does not.
func CheckCertificate(check, whose string, notBefore, notAfter, renewsAt, now time.Time, renew string) Finding {
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	left := notAfter.Sub(now)
	fact := fmt.Sprintf("%s is valid until %s, %d days", whose, day(notAfter), int(left.Hours()/24))
	switch {
	case now.Before(notBefore):
		return Failedf(check, "check the clock", "%s is not valid before %s, and the clock says %s", whose, day(notBefore), day(now))
	case left <= 0:
		return Failedf(check, renew, "%s expired on %s, and the clock says %s", whose, day(notAfter), day(now))
	case renewsAt.IsZero() && left < certificateSoon:
		return Warningf(check, renew, "%s", fact)
	case renewsAt.IsZero():
		return OKf(check, "%s", fact)
	case now.After(renewsAt.Add(24*time.Hour)) && left < certificateSoon, left < certificateLate:
		return Warningf(check, "the journal of the daemon says why; or "+renew, "%s, and has not renewed itself since %s", fact, day(renewsAt))
	}
	return OKf(check, "%s, renews itself from %s", fact, day(renewsAt))
}
