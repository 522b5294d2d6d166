package crashtest_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/labtest"
)

// uploadClient uploads archives over many connections at once, and records each successful answer as
// soon as it comes: that is what was promised. Archives without an answer are sent again in the
// next round.
type uploadClient struct {
	lab    *labtest.Lab
	host   *labtest.Host
	client *http.Client
	sender *labtest.Sender

	mu      sync.Mutex // guards the fields below
	random  *rand.Rand
	made    int
	waiting []*parcel
	acked   map[string]string // sha256 by the name of the episode
	told    map[string]int64  // offsets that uploads in pieces have reached
	fell    []string          // those that were back all the same
	over    bool              // something is cut off, or about to be
}

// parcel is an archive that is not acknowledged yet.
type parcel struct {
	name string
	body []byte
}

// minPiecesSize is the size from which a parcel is sent in pieces.
const minPiecesSize = 64 << 10

// uploaders is how many uploads a client makes at once: as many as one host may.
const uploaders = 6

func newUploadClient(t testing.TB, l *labtest.Lab, random *rand.Rand) *uploadClient {
	h := l.Host("wire-01")
	w := &uploadClient{lab: l, host: h, client: h.Client(t), sender: h.Sender(t), random: random, acked: make(map[string]string), told: make(map[string]int64)}
	w.client.Transport.(*http.Transport).MaxIdleConnsPerHost = uploaders
	return w
}

// start uploads until stop is closed or a connection fails. Each uploader calls Done at its end.
func (w *uploadClient) start(stop <-chan struct{}, all *sync.WaitGroup) {
	for range uploaders {
		all.Go(func() {
			for w.upload(w.nextParcel()) {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
}

// nextParcel returns a waiting parcel, or a new one.
func (w *uploadClient) nextParcel() *parcel {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.waiting); n > 0 {
		p := w.waiting[n-1]
		w.waiting = w.waiting[:n-1]
		return p
	}
	w.made++
	name := fmt.Sprintf("run-%d", w.made)
	return &parcel{name, packRandom(name, randomSize(w.random), w.random)}
}

// randomSize returns the size of a recording. Most are small.
func randomSize(random *rand.Rand) int {
	if random.IntN(8) == 0 {
		return 200<<10 + random.IntN(2<<20)
	}
	return random.IntN(6 << 10)
}

// packRandom makes an archive that verify --deep can read.
func packRandom(name string, size int, random *rand.Rand) []byte {
	noise := make([]byte, size)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], random.Uint64())
	rand.NewChaCha8(seed).Read(noise)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for file, text := range map[string][]byte{"meta.json": []byte("{}\n"), "noise": noise} {
		w.WriteHeader(&tar.Header{Name: name + "/" + file, Mode: 0o644, Size: int64(len(text))})
		w.Write(text)
	}
	w.Close()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		panic(err)
	}
	return enc.EncodeAll(b.Bytes(), nil)
}

// upload sends a parcel, and reports whether to continue.
func (w *uploadClient) upload(p *parcel) bool {
	sum := sha256.Sum256(p.body)
	ok := false
	if len(p.body) < minPiecesSize {
		ok = w.put(p, sum)
	} else {
		ok = w.send(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ok {
		w.waiting = append(w.waiting, p)
		return false
	}
	delete(w.told, p.name)
	w.acked[p.name] = hex.EncodeToString(sum[:])
	return true
}

func (w *uploadClient) put(p *parcel, sum [32]byte) bool {
	req, err := http.NewRequest(http.MethodPut, w.lab.URL("/v1/episodes/"+w.host.Name+"/"+p.name), bytes.NewReader(p.body))
	if err != nil {
		return false
	}
	req.Header.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	resp, err := w.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var receipt struct{ SHA256 string }
	return err == nil && resp.StatusCode/100 == 2 && json.Unmarshal(text, &receipt) == nil && receipt.SHA256 == hex.EncodeToString(sum[:])
}

// acks returns a copy of the receipts so far.
func (w *uploadClient) acks() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.acked)
}

// sendWaiting sends the waiting parcels.
func (w *uploadClient) sendWaiting(t testing.TB) {
	for w.countWaiting() > 0 {
		if p := w.nextParcel(); !w.upload(p) {
			t.Fatalf("%s is refused after the faults", p.name)
		}
	}
}

func (w *uploadClient) countWaiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}
