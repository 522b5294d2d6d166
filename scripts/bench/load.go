package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
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

// loader sends archives of one episode under different names, as many at once as it has
// connections. Each archive contains its own name: a receiver that looks for meta.json must
// find it where a real archive has it.
type loader struct {
	urls        []string
	credentials string
	bodies      []body
	// announces means that the server is cis490's receiver, which the client addresses as the
	// shipper does.
	announces bool
	next      atomic.Int64
}

// body is an archive, padded with a frame that every zstd skips.
type body struct {
	name    string
	archive []byte
	zeros   []byte // shared by all
	digest  digest.Digest
}

func (b body) size() int { return len(b.archive) + len(b.zeros) }

func (b body) reader() io.Reader {
	return io.MultiReader(bytes.NewReader(b.archive), bytes.NewReader(b.zeros))
}

// load is the same client for both receivers, except that it announces large archives to
// cis490's. nginx ignores the digest.
func load(args []string) error {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	l := &loader{}
	urls := f.String("url", "", "`addresses` of the receivers, with commas")
	f.StringVar(&l.credentials, "credentials", "", "folder of the hosts' folders")
	total := f.Int("requests", 1, "uploads in all")
	conns := f.Int("conns", 1, "uploads at once")
	src := f.String("src", "", "`folder` of the one episode to send; it gets other names")
	size := f.Int("size", 17_000, "`bytes` of an upload")
	f.BoolVar(&l.announces, "announce", false, "announce large archives, as our shipper does")
	if err := f.Parse(args); err != nil {
		return err
	}
	l.urls = strings.Split(*urls, ",")
	err := l.pack(*src, *total, *size)
	if err != nil {
		return err
	}
	clients := make([]*http.Client, *conns)
	for i := range clients {
		if clients[i], err = l.client(hostOf(i)); err != nil {
			return err
		}
	}
	return l.drive(clients)
}

// pack makes the bodies before the clock runs.
func (l *loader) pack(src string, total, size int) error {
	dir, err := os.Open(src)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return fmt.Errorf("%s has %d episodes: want one", src, len(names))
	}
	p, zeros := archive.NewPacker(), make([]byte, size)
	for i, old := 0, names[0]; i < total; i++ {
		name := "load-" + strconv.Itoa(i)
		if err := os.Rename(filepath.Join(src, old), filepath.Join(src, name)); err != nil {
			return err
		}
		old = name
		b, err := packOne(p, dir, name)
		if err != nil {
			return err
		}
		gap := size - len(b) - 8
		if gap < 0 {
			return fmt.Errorf("an archive has %d bytes: take a smaller episode", len(b))
		}
		b = append(b, 0x50, 0x2a, 0x4d, 0x18, byte(gap), byte(gap>>8), byte(gap>>16), byte(gap>>24))
		full := body{name: name, archive: b, zeros: zeros[:gap]}
		if full.digest, _, err = digest.Of(full.reader()); err != nil {
			return err
		}
		l.bodies = append(l.bodies, full)
	}
	return nil
}

func packOne(p *archive.Packer, dir *os.File, name string) ([]byte, error) {
	tree, err := archive.OpenTree(dir, name, episode.Name(name), archive.Limits{})
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	s, err := tree.Survey(context.Background())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = p.Pack(context.Background(), &out, tree, s)
	return out.Bytes(), err
}

// urlOf returns the receiver of a connection. The connections of each host lead to all receivers.
func (l *loader) urlOf(conn int) string { return l.urls[(conn+conn/loadHosts)%len(l.urls)] }

func hostOf(conn int) string { return fmt.Sprintf("load-%d", conn%loadHosts) }

func (l *loader) client(host string) (*http.Client, error) {
	dir := filepath.Join(l.credentials, host)
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
		all.Go(func() { took[i], errs[i] = l.connection(c, l.urlOf(i), hostOf(i)) })
	}
	all.Wait()
	wall := time.Since(begun)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return told(wall, took)
}

// connection sends until all is sent, and returns how long each request took.
func (l *loader) connection(c *http.Client, url, host string) (samples, error) {
	var took samples
	for {
		n := int(l.next.Add(1)) - 1
		if n >= len(l.bodies) {
			return took, nil
		}
		begun := time.Now()
		if err := l.put(c, url, host, l.bodies[n]); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
	}
}

// announceFrom is the size from which the shipper announces an archive, and sends its bytes
// with PATCH.
const announceFrom = 256 << 10

func (l *loader) put(c *http.Client, url, host string, b body) error {
	to := url + "/v1/episodes/" + host + "/" + b.name
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(b.digest[:]) + ":"
	whole := map[string]string{"Repr-Digest": digest}
	if b.size() < announceFrom {
		_, err := l.ask(c, http.MethodPut, to, whole, b)
		return err
	}
	if !l.announces {
		whole["Expect"] = "100-continue"
		_, err := l.ask(c, http.MethodPut, to, whole, b)
		return err
	}
	offer, err := l.ask(c, http.MethodPut, to, map[string]string{
		"Repr-Digest": digest, "Upload-Complete": "?0", "Upload-Length": strconv.Itoa(b.size()),
	}, body{})
	if err != nil {
		return err
	}
	_, err = l.ask(c, http.MethodPatch, url+offer.Get("Location"), map[string]string{
		"Repr-Digest": digest, "Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1",
	}, b)
	return err
}

// ask sends a request until it is not refused because of others, and returns the header of the
// answer.
func (l *loader) ask(c *http.Client, method, to string, header map[string]string, b body) (http.Header, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequest(method, to, b.reader())
		if err != nil {
			return nil, err
		}
		req.ContentLength = int64(b.size())
		if req.ContentLength == 0 {
			req.Body = http.NoBody
		}
		for field, value := range header {
			req.Header.Set(field, value)
		}
		resp, err := c.Do(req)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusCreated {
			return resp.Header, nil
		}
		// The slot of the last upload may be released a moment after its answer.
		if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable || try == 100 {
			return nil, fmt.Errorf("%s %s: %s: %s", method, req.URL, resp.Status, answer)
		}
		time.Sleep(time.Millisecond)
	}
}
