package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// loadHosts is how many hosts a load's connections belong to: the receiver
// takes 8 uploads at once of one.
const loadHosts = 8

// loadResult is what the client of a load prints.
type loadResult struct {
	Wall     float64 `json:"wall_s"` // from the first request to the last answer, without the start of the program
	Requests int     `json:"requests"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
}

// loader sends one body again and again, under names that differ, as many at
// once as it has connections.
type loader struct {
	url    string
	papers string
	body   []byte
	digest string
	next   atomic.Int64
	total  int64
}

// load is the client that is the same for both receivers. It speaks as our
// shipper does; nginx ignores the digest.
func load(args []string) error {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	l := &loader{}
	f.StringVar(&l.url, "url", "", "address of the receiver")
	f.StringVar(&l.papers, "papers", "", "folder of the hosts' folders")
	f.Int64Var(&l.total, "requests", 1, "uploads in all")
	conns := f.Int("conns", 1, "uploads at once")
	body := f.String("body", "", "file to send")
	if err := f.Parse(args); err != nil {
		return err
	}
	var err error
	if l.body, err = os.ReadFile(*body); err != nil {
		return err
	}
	sum := sha256.Sum256(l.body)
	l.digest = "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	clients := make([]*http.Client, *conns)
	for i := range clients {
		if clients[i], err = l.client(hostOf(i)); err != nil {
			return err
		}
	}
	return l.drive(clients)
}

func hostOf(conn int) string { return fmt.Sprintf("load-%d", conn%loadHosts) }

func (l *loader) client(host string) (*http.Client, error) {
	dir := filepath.Join(l.papers, host)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, host+".crt"), filepath.Join(dir, host+".key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{ // HTTP/1.1, as it has a TLS configuration of its own
		TLSClientConfig:       &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		ExpectContinueTimeout: time.Minute,
		WriteBufferSize:       64 << 10,
		DisableCompression:    true,
	}}, nil
}

func (l *loader) drive(clients []*http.Client) error {
	took := make([]samples, len(clients))
	errs := make([]error, len(clients))
	var all sync.WaitGroup
	begun := time.Now()
	for i, c := range clients {
		all.Go(func() { took[i], errs[i] = l.connection(c, hostOf(i)) })
	}
	all.Wait()
	wall := time.Since(begun)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var every samples
	for _, s := range took {
		every = append(every, s...)
	}
	return json.NewEncoder(os.Stdout).Encode(loadResult{
		Wall: wall.Seconds(), Requests: len(every), P50: every.quantile(0.5), P99: every.quantile(0.99),
	})
}

// connection sends until all is sent, and returns how long each request took.
func (l *loader) connection(c *http.Client, host string) (samples, error) {
	var took samples
	for {
		n := l.next.Add(1)
		if n > l.total {
			return took, nil
		}
		begun := time.Now()
		if err := l.put(c, host, n); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
	}
}

// expectFrom is the size from which our shipper asks first; the load does too.
const expectFrom = 256 << 10

func (l *loader) put(c *http.Client, host string, n int64) error {
	for try := 0; ; try++ {
		req, err := http.NewRequest(http.MethodPut, l.url+"/v1/episodes/"+host+"/load-"+strconv.FormatInt(n, 10), bytes.NewReader(l.body))
		if err != nil {
			return err
		}
		req.Header.Set("Repr-Digest", l.digest)
		if len(l.body) >= expectFrom {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusCreated {
			return nil
		}
		// The place of the last upload may be given up a moment after its answer.
		if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable || try == 100 {
			return fmt.Errorf("PUT %s: %s: %s", req.URL, resp.Status, answer)
		}
		time.Sleep(time.Millisecond)
	}
}
