package receiver_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
)

func TestCommitAsksAgainWhoSends(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *accessLab, *visitor) waitingRequest{
		"put":   kinds["put before its commit"],
		"piece": kinds["piece before its commit"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newAccessLab(t)
			v := d.newVisitor(victim, "port", time.Hour)
			u := begin(t, d, v)
			// Neither a reload nor the timer has ended the request.
			d.clockOffset.Store(int64(2 * time.Hour))
			u.release()
			if r := fixture.ReceiveWithin(t, time.Minute, u.answer, "the answer"); r.status != http.StatusForbidden {
				t.Errorf("got %+v, %v, want status %d", r, r.err, http.StatusForbidden)
			}
			if rows := d.Rows(); len(rows) != 0 {
				t.Errorf("rows were written: %+v", rows)
			}
			if _, err := os.Lstat(d.StoredPath(key(string(victim), "e"))); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the archive was stored: %v", err)
			}
		})
	}
}

func TestAnswerAsksAgainWhoSends(t *testing.T) {
	t.Parallel()
	for kind, begin := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := newAccessLab(t)
			v := d.newVisitor(victim, "port", time.Hour)
			u := begin(t, d, v)
			d.clockOffset.Store(int64(2 * time.Hour))
			if u.release != nil {
				u.release()
			}
			if r := fixture.ReceiveWithin(t, time.Minute, u.answer, "the answer"); r.status != http.StatusForbidden {
				t.Errorf("got %+v, %v, want status %d", r, r.err, http.StatusForbidden)
			}
		})
	}
}

func TestBytesOfAHostThatLostAccessAreKept(t *testing.T) {
	t.Parallel()
	d := newAccessLab(t)
	v := d.newVisitor(victim, "port", time.Hour)
	content := packNoise(300_000, 1)
	to := v.announce("e", content)
	answer := v.send(lastPiece(to, content, halfBody(t, content)))
	d.waitArrived(t, len(content)/4)
	list := datadir.HostList{Dir: string(d.cfg.DataDir), Holder: "the test"}
	_, err := list.Disable(t.Context(), []episode.Name{victim}, time.Now())
	fixture.Must(t, err)
	if r := fixture.ReceiveWithin(t, time.Minute, answer, "the answer"); r.status != http.StatusForbidden {
		t.Errorf("got %+v, %v, want status %d", r, r.err, http.StatusForbidden)
	}
	_, err = list.Enable(t.Context(), []episode.Name{victim})
	fixture.Must(t, err)
	if r := v.do(request{method: "HEAD", path: to}); r.status != http.StatusNoContent || r.fields.Get("Upload-Offset") == "0" {
		t.Errorf("what came is not kept: %+v, %v", r, r.err)
	}
}

func TestIdleConnectionOfAHostThatLostAccessServesNoMore(t *testing.T) {
	t.Parallel()
	for how, w := range withdrawals {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			d := newAccessLab(t)
			idle := map[episode.Name]net.Conn{}
			for _, host := range []episode.Name{victim, witness} {
				v := d.newVisitor(host, "port", map[episode.Name]time.Duration{victim: time.Hour, witness: 24 * time.Hour}[host])
				dial := v.http.Transport.(*http.Transport)
				conn, err := tls.Dial("tcp", d.addr, dial.TLSClientConfig)
				fixture.Must(t, err)
				defer conn.Close()
				idle[host] = conn
				sendPing(t, conn, host)
			}
			w.do(t, d)
			if status := pingStatus(t, idle[victim], victim); status != http.StatusForbidden && status != http.StatusUnauthorized {
				t.Errorf("the connection answers %d", status)
			}
			if n, err := idle[victim].Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection is open: %d, %v", n, err)
			}
			sendPing(t, idle[witness], witness)
		})
	}
}

// sendPing sends a ping by a connection that stays open.
func sendPing(t *testing.T, conn net.Conn, host episode.Name) {
	t.Helper()
	if status := pingStatus(t, conn, host); status != http.StatusOK {
		t.Fatalf("a ping of %s is answered with %d", host, status)
	}
}

// pingStatus returns the status of a ping on a connection.
func pingStatus(t *testing.T, conn net.Conn, host episode.Name) int {
	t.Helper()
	_, err := conn.Write([]byte("POST /v1/ping HTTP/1.1\r\nHost: receiver\r\nAuthorization: Bearer token of " + string(host) + "\r\nContent-Length: 0\r\n\r\n"))
	fixture.Must(t, err)
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fixture.Must(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	fixture.Must(t, err)
	return resp.StatusCode
}

func TestDisabledHostMayPingAgainOnceEnabled(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"port", "proxy"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			d := newAccessLab(t)
			v := d.newVisitor(victim, door, time.Hour)
			for range 3 {
				if r := v.ping(); r.status != http.StatusOK {
					t.Fatalf("got %+v, %v, want status %d", r, r.err, http.StatusOK)
				}
				_, err := datadir.HostList{Dir: string(d.cfg.DataDir), Holder: "the test"}.Disable(t.Context(), []episode.Name{victim}, time.Now())
				fixture.Must(t, err)
				r := v.do(request{method: "HEAD", path: v.path("e")})
				if r.status != http.StatusForbidden || !r.close {
					t.Fatalf("%+v, %v", r, r.err)
				}
				if r := v.ping(); r.status != http.StatusForbidden || !strings.Contains(r.doc.Detail, "disabled") {
					t.Fatalf("got %+v, %v, want status %d and %q in it", r, r.err, http.StatusForbidden, "disabled")
				}
				_, err = datadir.HostList{Dir: string(d.cfg.DataDir), Holder: "the test"}.Enable(t.Context(), []episode.Name{victim})
				fixture.Must(t, err)
			}
		})
	}
}

// The clock of this test is that of synctest.
func TestRequestEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		req := l.newRequest(t, "lab-01", time.Hour)
		unlock := sync.OnceFunc(l.HoldKey(key("lab-01", "e")))
		defer unlock()
		answer := httptest.NewRecorder()
		began, done := time.Now(), make(chan time.Time, 1)
		go func() {
			l.r.PortHandler().ServeHTTP(answer, req)
			done <- time.Now()
		}()
		var took time.Duration
		select {
		case at := <-done:
			took = at.Sub(began)
		case <-time.After(2 * time.Hour):
			t.Error("the request outlives its certificate by an hour")
			unlock()
			took = (<-done).Sub(began)
		}
		if answer.Code != http.StatusForbidden || !strings.Contains(answer.Body.String(), "expired") {
			t.Errorf("got %d %s, want Code %d and %q in it", answer.Code, answer.Body, http.StatusForbidden, "expired")
		}
		if took < time.Hour || took > time.Hour+2*time.Second {
			t.Errorf("the request ended after %v, and its certificate after an hour", took)
		}
	})
}

// newRequest returns the announcement of an archive, by a host with a new certificate.
func (l *lab) newRequest(t *testing.T, host episode.Name, valid time.Duration) *http.Request {
	t.Helper()
	out := t.TempDir()
	_, err := ca.IssueHost(l.pki, host, out, ca.IssueOptions{Valid: valid})
	fixture.Must(t, err)
	text, err := os.ReadFile(filepath.Join(out, string(host)+".crt"))
	fixture.Must(t, err)
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	fixture.Must(t, err)
	req := httptest.NewRequestWithContext(t.Context(), "PUT", "/v1/episodes/"+string(host)+"/e", http.NoBody)
	req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	req.Header.Set("Content-Length", "0")
	req.Header.Set("Repr-Digest", digestOf(nil))
	req.Header.Set("Upload-Complete", "?0")
	req.Header.Set("Upload-Length", "300000")
	return req
}

func TestReloadEndsWhatItNoLongerAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		crl := filepath.Join(l.pki, "hosts.crl")
		l.stop()
		l.cfg.TLS.CRLFile = config.Path(crl)
		l.start()
		unlock := l.HoldKey(key("lab-01", "e"))
		defer unlock()
		answer := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			l.r.PortHandler().ServeHTTP(answer, l.newRequest(t, "lab-01", 24*time.Hour))
			close(done)
		}()
		synctest.Wait()
		good, err := os.ReadFile(crl)
		fixture.Must(t, err)
		fixture.Must(t, os.WriteFile(crl, []byte("damaged"), 0o644))
		if err := l.r.Reload(); err == nil {
			t.Error("a damaged CRL was accepted")
		}
		synctest.Wait()
		select {
		case <-done:
			t.Fatalf("a reload that failed ended a request: %d %s", answer.Code, answer.Body)
		default:
		}
		fixture.Must(t, os.WriteFile(crl, good, 0o644))
		_, err = revocation.RevokeHost(l.pki, "lab-01", time.Now())
		fixture.Must(t, errors.Join(err, l.r.Reload()))
		began := time.Now()
		<-done
		if answer.Code != http.StatusForbidden || time.Since(began) > 0 {
			t.Errorf("%d after %v: %s", answer.Code, time.Since(began), answer.Body)
		}
	})
}

func TestListOfDisabledHostsFailsClosed(t *testing.T) {
	t.Parallel()
	valid := `{"schema_version":1,"disabled":[]}`
	for name, damage := range map[string]func(path string) error{
		"empty":    func(path string) error { return os.WriteFile(path, nil, 0o640) },
		"torn":     func(path string) error { return os.WriteFile(path, []byte(valid[:20]), 0o640) },
		"followed": func(path string) error { return os.WriteFile(path, []byte(valid+valid), 0o640) },
		"of a newer one": func(path string) error {
			return os.WriteFile(path, []byte(`{"schema_version":2,"disabled":[]}`), 0o640)
		},
		"without members": func(path string) error { return os.WriteFile(path, []byte(`{"schema_version":1}`), 0o640) },
		"with a bad name": func(path string) error {
			return os.WriteFile(path, []byte(`{"schema_version":1,"disabled":[{"host_id":"../x","since":"2026-11-29T10:00:00Z"}]}`), 0o640)
		},
		"twice a host": func(path string) error {
			entry := `{"host_id":"x","since":"2026-11-29T10:00:00Z"}`
			return os.WriteFile(path, []byte(`{"schema_version":1,"disabled":[`+entry+","+entry+`]}`), 0o640)
		},
		"too large": func(path string) error {
			return os.WriteFile(path, append([]byte(valid), make([]byte, 1<<20)...), 0o640)
		},
		"writable for others": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(valid), 0o640), os.Chmod(path, 0o660))
		},
		"a directory": func(path string) error { return os.Mkdir(path, 0o750) },
		"a link":      func(path string) error { return os.Symlink("index.jsonl", path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newAccessLab(t)
			v := d.newVisitor(victim, "port", time.Hour)
			content := packNoise(300_000, 1)
			answer := v.send(v.put("e", content, halfBody(t, content)))
			labtest.Eventually(t, "the upload is under way", func() bool { return d.b.Uploads().ActiveCount() == 1 })
			path := filepath.Join(d.Data, "disabled-hosts.json")
			fixture.Must(t, damage(path))
			if r := fixture.ReceiveWithin(t, time.Minute, answer, "the answer"); r.status != http.StatusInternalServerError {
				t.Errorf("a request under way ended with %+v, %v", r, r.err)
			}
			if r := v.ping(); r.status != http.StatusInternalServerError || !strings.Contains(r.doc.Detail, "disabled hosts") {
				t.Errorf("a ping gets %+v, %v", r, r.err)
			}
			// Neither a start nor a command treats it as an empty list.
			if _, err := (datadir.HostList{Dir: string(d.cfg.DataDir), Holder: "the test"}).Enable(t.Context(), []episode.Name{victim}); !errors.Is(err, datadir.ErrDisabledList) || !strings.Contains(err.Error(), path) {
				t.Errorf("enabling: %v", err)
			}
			if _, err := datadir.ListHosts(string(d.cfg.DataDir)); !errors.Is(err, datadir.ErrDisabledList) {
				t.Errorf("listing: %v", err)
			}
			fixture.Must(t, os.RemoveAll(path))
			labtest.Eventually(t, "hosts are served again", func() bool { return v.ping().status == http.StatusOK })
		})
	}
}

func TestReceiverDoesNotStartWithADamagedListOfDisabledHosts(t *testing.T) {
	l := newLab(t, nil)
	l.stop()
	fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "disabled-hosts.json"), []byte("{"), 0o640))
	r, err := receiver.OpenGateAndNew(t.Context(), l.cfg, "test", "the lab", slog.New(slog.DiscardHandler))
	if !errors.Is(err, datadir.ErrDisabledList) {
		t.Errorf("got %v, %v, want %v", r, err, datadir.ErrDisabledList)
	}
}
