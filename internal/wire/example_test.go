package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"

	"cis490/internal/wire"
)

// A refusal is a problem document. Its type, not the status, says what the client must do.
func Example() {
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"type": "urn:cis490:problem:host-mismatch", "status": 403, "detail": "the certificate is for lab-02"}`)
	}))
	defer receiver.Close()

	client, err := wire.NewClient(wire.ClientConfig{
		URL:  receiver.URL,
		Host: "lab-01",
		DialTLS: func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := tls.Dialer{Config: receiver.Client().Transport.(*http.Transport).TLSClientConfig}
			return d.DialContext(ctx, network, addr)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Ping(context.Background())
	if problem, ok := errors.AsType[*wire.Problem](err); ok {
		fmt.Println(problem.Code)
	} else {
		fmt.Println(err)
	}
	// Output: host-mismatch
}
