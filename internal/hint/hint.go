// Package hint explains to an operator what an error of a [wire.Client] means, and what to do
// about it.
//
// Invariant: a hint is one line of printable ASCII, and is advice. The error says what failed.
package hint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"cis490/internal/printable"
	"cis490/internal/wire"
)

// For returns the hint for an error of a [wire.Client], or "" if the error says enough.
func For(err error) string {
	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Code == wire.Full && strings.HasSuffix(p.Detail, wire.HostIsMount) {
		return "run 'receiver check' there: it names the mount; nothing is lost here meanwhile"
	}
	if code, ok := errors.AsType[wire.Code](err); ok {
		return codeHints[code]
	}
	if _, ok := errors.AsType[*wire.UnexpectedResponseError](err); ok {
		return "something between this host and the receiver answered, or receiver.url names another service"
	}
	if hint := tlsHint(err); hint != "" {
		return hint
	}
	return networkHint(err)
}

// Attrs adds a hint, if there is one, to the attributes of a log line.
func Attrs(hint string, attrs ...any) []any {
	if hint == "" {
		return attrs
	}
	return append(attrs, "hint", hint)
}

var codeHints = map[wire.Code]string{
	wire.TokenRefused: "receiver.token_file must hold the token whose sha256 stands in the receiver's tokens_file beside this host",
	wire.Forbidden:    "on the receiver, enable the host with 'receiver hosts enable', or issue a valid certificate with 'receiver pki issue'",
	wire.HostMismatch: "host_id and the certificate in receiver.cert_file are of two hosts",
	wire.Full:         "the receiver's disk is full, or this host's part of it: make room there; nothing is lost here meanwhile",
	wire.Busy:         "the receiver is busy; the shipper retries by itself",
	wire.HostBusy:     "this host has too many uploads in flight; is a second shipper running with the same certificate?",
	wire.Superseded:   "another sender continues this upload; is a second shipper running with the same certificate?",
	wire.Draining:     "the receiver is restarting; the shipper retries by itself",
	wire.Damaged:      "the receiver's copy is damaged: run 'receiver index verify --deep' there",
	wire.Internal:     "the receiver's journal says why: journalctl -u cis490-receiver",
}

// BlamesCredentials reports whether other credentials of this host could help against an
// error of a [wire.Client]: its certificate, its token, or the CA that it trusts.
func BlamesCredentials(err error) bool {
	if code, ok := errors.AsType[wire.Code](err); ok {
		return code == wire.TokenRefused || code == wire.Forbidden || code == wire.HostMismatch
	}
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	alert, ok := errors.AsType[*net.OpError](err)
	return invalid || unknown || ok && alert.Op == "remote error"
}

func tlsHint(err error) string {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return validityHint("the receiver's certificate", e.Cert, time.Now())
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the receiver's certificate is for %s: use one of these in receiver.url, or issue it again for this one with 'receiver pki renew --name'",
			certNames(e.Certificate))
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "receiver.ca_file is not the ca.crt of this receiver's 'pki init'"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return "what listens there does not speak TLS: is the port right?"
	}
	// Alerts of the peer have no error type of their own.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return alertHint(e.Err.Error())
	}
	return ""
}

// alertHint explains an alert with which the receiver refused our certificate.
func alertHint(alert string) string {
	switch {
	case strings.Contains(alert, "expired"):
		return "the receiver says that this host's certificate is not valid now: issue a new one, or set the clock of whichever machine is wrong"
	case strings.Contains(alert, "unknown certificate authority"), strings.Contains(alert, "certificate required"):
		return "the receiver does not trust the CA of receiver.cert_file: issue it with the receiver's own 'pki issue'"
	case strings.Contains(alert, "bad certificate"), strings.Contains(alert, "access denied"):
		return "the receiver refuses this host's certificate: it is revoked, was replaced when the host joined again, or is of another trust domain"
	}
	return "the receiver refused the TLS connection: its journal says why"
}

func validityHint(what string, cert *x509.Certificate, now time.Time) string {
	day := func(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }
	if now.Before(cert.NotBefore) {
		return fmt.Sprintf("%s is not valid before %s, and this machine's clock says %s: is the clock right?", what, day(cert.NotBefore), day(now))
	}
	return fmt.Sprintf("%s expired on %s, and this machine's clock says %s: renew it, if the clock is right", what, day(cert.NotAfter), day(now))
}

// maxNames bounds how much is shown of the names in a certificate, which anyone may have made.
const maxNames = 200

func certNames(cert *x509.Certificate) string {
	all := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	return printable.Text(printable.Clip(strings.Join(all, ", "), maxNames))
}

func networkHint(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	var handshake interface{ Handshake() }
	switch {
	case errors.As(err, &dns):
		return "the name in receiver.url does not resolve: check it, and the DNS or /etc/hosts of this machine"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is the receiver running, and the port in receiver.url right?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route: is the WireGuard tunnel up?"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection broke: the receiver restarted, or something on the way cuts it"
	case errors.As(err, &handshake) && errors.Is(err, context.DeadlineExceeded):
		return "what listens there took the connection and did not answer in TLS: is the port right, or does the receiver hang?"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time: is the WireGuard tunnel up ('wg show'), and does a firewall drop the port?"
	}
	return ""
}
