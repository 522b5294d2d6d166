package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// newRenewHandler returns a handler that answers each request for renewal with it.
func newRenewHandler(t testing.TB) *wire.Handler {
	h := newHandler(&fakeBackend{tb: t})
	h.Authority = &fakeAuthority{}
	return h
}

// fakeAuthority answers with what it was asked.
type fakeAuthority struct {
	trusted []string // what the last ping said
}

func (*fakeAuthority) Renew(_ context.Context, host episode.Name, csr []byte) ([]byte, error) {
	if len(csr) == 0 {
		return nil, wire.Refuse(wire.BadRequest, "empty")
	}
	return fmt.Appendf(nil, "%s: %s", host, csr), nil
}

func (a *fakeAuthority) DescribeCAs(_ context.Context, _ episode.Name, trusted []string) *wire.CAs {
	a.trusted = trusted
	return &wire.CAs{Server: []string{"a", "b"}, Renew: len(trusted) == 1}
}

func (*fakeAuthority) ServerCAs() []byte { return []byte("cas") }

func TestRenewalArrivesAsItWasSent(t *testing.T) {
	c := serve(t, newRenewHandler(t)).newClient(t)
	csr := bytes.Repeat([]byte{0, '\n'}, 8<<10)
	for range 2 {
		chain, err := c.Renew(t.Context(), csr)
		if want := append([]byte(thisHost+": "), csr...); err != nil || !bytes.Equal(chain, want) {
			t.Errorf("got %d bytes, %v; want %d", len(chain), err, len(want))
		}
	}
	if _, err := c.Renew(t.Context(), nil); err == nil {
		t.Error("an empty request: got no error")
	}
}

func TestOtherRequestsForRenewalAreRefused(t *testing.T) {
	const length1 = "Content-Length: 1\r\n\r\nx"
	request := func(method, fields string) string {
		return method + " /v1/renew HTTP/1.1\r\nHost: receiver\r\n" + fields
	}
	for name, test := range map[string]struct {
		request string
		want    int
	}{
		"good":             {request("POST", joinType+"\r\n"+length1), 200},
		"GET":              {request("GET", "\r\n"), 405},
		"PUT":              {request("PUT", joinType+"\r\n"+length1), 405},
		"other media type": {request("POST", "Content-Type: application/json\r\n"+length1), 415},
		"no media type":    {request("POST", length1), 415},
		"encoded":          {request("POST", joinType+"\r\nContent-Encoding: gzip\r\n"+length1), 415},
		"chunked":          {request("POST", joinType+"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), 411},
		"too large":        {request("POST", joinType+"\r\nContent-Length: 16385\r\n\r\n"+strings.Repeat("x", 16385)), 413},
		"huge":             {request("POST", joinType+"\r\nContent-Length: 99999999999\r\n\r\n"), 413},
		"another path":     {strings.Replace(request("POST", joinType+"\r\n"+length1), "/v1/renew", "/v1/renew/lab-02", 1), 404},
	} {
		t.Run(name, func(t *testing.T) {
			resp := serve(t, newRenewHandler(t)).sendRaw(t, test.request)
			if resp.StatusCode != test.want {
				t.Errorf("got %s, want %d", resp.Status, test.want)
			}
			if test.want != http.StatusOK {
				readProblem(t, resp)
			}
		})
	}
}

// A receiver that cannot sign is to a host what an older one is.
func TestReceiverThatCannotRenewAnswersNotFound(t *testing.T) {
	c := serve(t, newHandler(&fakeBackend{tb: t})).newClient(t)
	if chain, err := c.Renew(t.Context(), []byte("x")); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %q, %v", chain, err)
	}
	older := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
	if chain, err := serve(t, older).newClient(t).Renew(t.Context(), []byte("x")); err == nil {
		t.Errorf("a service that is no receiver: got %q", chain)
	}
	garbage := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	if chain, err := serve(t, garbage).newClient(t).Renew(t.Context(), []byte("x")); err == nil {
		t.Errorf("an answer that is no chain: got %q", chain)
	}
}

// A ping says which CAs the host trusts, and the response which it should.
func TestPingCarriesTheCAsOfBothEnds(t *testing.T) {
	h := newHandler(&fakeBackend{tb: t})
	authority := &fakeAuthority{}
	h.Authority = authority
	server := serve(t, h)
	trusted := []string{strings.Repeat("ab", 32), strings.Repeat("0f", 32)}
	var heard []wire.PingResponse
	client, err := wire.NewClient(wire.ClientConfig{
		URL: server.URL, Host: thisHost, DialTLS: server.dial,
		TrustedCAs: func() []string { return trusted },
		Pinged:     func(r wire.PingResponse) { heard = append(heard, r) },
	})
	fixture.Must(t, err)
	for _, want := range [][]string{trusted, trusted[:1]} {
		trusted = want
		if _, err := client.Ping(t.Context()); err != nil || !slices.Equal(authority.trusted, want) {
			t.Errorf("the receiver heard %q, %v; want %q", authority.trusted, err, want)
		}
	}
	if len(heard) != 2 || !slices.Equal(heard[0].CAs.Server, []string{"a", "b"}) || heard[0].CAs.Renew || !heard[1].CAs.Renew {
		t.Errorf("the host heard %+v", heard)
	}
	if cas, err := client.ServerCAs(t.Context()); err != nil || string(cas) != "cas" {
		t.Errorf("got %q, %v", cas, err)
	}
	h.Authority = nil
	if cas, err := client.ServerCAs(t.Context()); !errors.Is(err, wire.NotFound) {
		t.Errorf("a receiver without CAs: got %q, %v", cas, err)
	}
	if pong, err := client.Ping(t.Context()); err != nil || pong.CAs != nil {
		t.Errorf("a receiver without CAs: got %+v, %v", pong.CAs, err)
	}
}

func TestHostileListOfCAsIsRefused(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for name, test := range map[string]struct {
		fields string
		want   int
	}{
		"none":              {"", 200},
		"one":               {"Trusted-Cas: " + good, 200},
		"two fields":        {"Trusted-Cas: " + good + "\r\nTrusted-Cas: " + good, 200},
		"empty":             {"Trusted-Cas: ", 400},
		"short":             {"Trusted-Cas: abcd", 400},
		"upper case":        {"Trusted-Cas: " + strings.ToUpper(good), 400},
		"no hex":            {"Trusted-Cas: " + strings.Repeat("x", 64), 400},
		"empty entry":       {"Trusted-Cas: " + good + ",", 400},
		"too many":          {"Trusted-Cas: " + strings.Repeat(good+",", 16) + good, 400},
		"many small fields": {strings.Repeat("Trusted-Cas: "+good+"\r\n", 16) + "Trusted-Cas: " + good, 400},
	} {
		fields := test.fields
		if fields != "" {
			fields += "\r\n"
		}
		request := "POST /v1/ping HTTP/1.1\r\nHost: receiver\r\nContent-Length: 0\r\n" + fields + "\r\n"
		if got := serve(t, newRenewHandler(t)).sendRaw(t, request).StatusCode; got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}
