package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// onDisk is the receiver with which those over an object store are compared.
const onDisk = "disk"

// fleetSizes are the numbers of receivers over one object store.
var fleetSizes = []int{1, 2, 4}

// overEngine is the name of a number of receivers over one object store.
func overEngine(receivers int) string { return fmt.Sprintf("s3-%d", receivers) }

// compareFleets runs one, two and four receivers over one object store, and one on a disk, with the
// loads of a receiver alone.
func compareFleets(ctx context.Context, o options) error {
	if _, err := exec.LookPath("versitygw"); err != nil {
		return fmt.Errorf("%w: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0", err)
	}
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	quiet()
	b, err := readBook(o, "fleet")
	if err != nil {
		return err
	}
	if err := b.fill(ctx, o, "fleet", fleetParts(l, o)); err != nil {
		return err
	}
	return b.printFleet(o)
}

func fleetParts(l *lab, o options) []part {
	systems := []string{onDisk}
	for _, n := range fleetSizes {
		systems = append(systems, overEngine(n))
	}
	var all []part
	for _, s := range loads(o) {
		work := "small"
		if s.size >= announceFrom {
			work = "large"
		}
		all = append(all, part{s.name, work, systems, func(ctx context.Context, system string) (row, error) {
			if system == onDisk {
				return l.load(ctx, s, cis490)
			}
			return l.loadFleet(ctx, s, fleetSizes[slices.Index(systems, system)-1])
		}})
	}
	return all
}

// loadFleet runs one load against receivers that share an object store. The client chooses the
// receiver of each connection: a load balancer would cost the same for any number of them.
func (l *lab) loadFleet(ctx context.Context, s loadShape, receivers int) (r row, err error) {
	for i := range loadHosts {
		if _, err := l.host(ctx, hostOf(i)); err != nil {
			return row{}, err
		}
	}
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	engine, err := l.startEngine(ctx)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, engine.stop()) }()
	j := job{engine: engine.process}
	var urls []string
	for i := range receivers {
		srv, err := l.receiverOver(ctx, engine, fmt.Sprintf("receiver-%d", i+1))
		if err != nil {
			return row{}, err
		}
		defer func() { err = errors.Join(err, srv.stop()) }()
		j.servers, urls = append(j.servers, srv.process), append(urls, srv.url)
	}
	if err := settle(l.base); err != nil {
		return row{}, err
	}
	before, err := readCalls(engine.calls)
	if err != nil {
		return row{}, err
	}
	if r, err = l.client(ctx, s, strings.Join(urls, ","), j, "-announce=true"); err != nil {
		return row{}, err
	}
	after, err := readCalls(engine.calls)
	if err != nil {
		return row{}, err
	}
	r.Calls = after.since(before)
	r.Stored, err = stored(engine.data)
	return r, err
}

// startEngine is an object store.
type engine struct {
	*server
	data  string // its folder
	calls string // its log of requests
}

const (
	engineBucket = "lab"
	engineKey    = "bench"
	engineSecret = "bench-secret"
)

func (l *lab) startEngine(ctx context.Context) (*engine, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	e := &engine{data: l.run("engine"), calls: l.run("requests.log")}
	err = errors.Join(
		os.MkdirAll(filepath.Join(e.data, engineBucket), 0o755),
		os.WriteFile(l.run("s3.credentials"), fmt.Appendf(nil, "aws_access_key_id = %s\naws_secret_access_key = %s\n", engineKey, engineSecret), 0o600),
	)
	if err != nil {
		return nil, err
	}
	e.server, err = l.start(ctx, "versitygw", port, []string{
		"env", "ROOT_ACCESS_KEY=" + engineKey, "ROOT_SECRET_KEY=" + engineSecret,
		"versitygw", "-q", "-p", fmt.Sprintf("127.0.0.1:%d", port), "--keep-alive", "--access-log", e.calls, "posix", e.data,
	})
	return e, err
}

// fleetConf has the defaults except for the lab's own paths and ports, too.
const fleetConf = receiverConf + `[store]
kind = "s3"
[store.s3]
endpoints        = ["http://127.0.0.1:%d"]
bucket           = %q
credentials_file = %q
`

// receiverOver starts a receiver over an engine. It chooses its port: it listens only after it has
// checked the engine, and by then its own connections may have taken one that was free.
func (l *lab) receiverOver(ctx context.Context, e *engine, name string) (*server, error) {
	conf := l.run(name + ".conf")
	if err := l.write(conf, fleetConf, "127.0.0.1:0", l.run(name), e.port, engineBucket, l.run("s3.credentials")); err != nil {
		return nil, err
	}
	p, err := l.spawn(l.run(name+".log"), filepath.Join(l.bin, "receiver"), "--config", conf)
	if err != nil {
		return nil, err
	}
	s := &server{process: p}
	err = p.until(ctx, "its address", func() bool {
		_, started, found := strings.Cut(slurp(p.log), "receiver started")
		_, addr, _ := strings.Cut(started, " listen=")
		addr, _, _ = strings.Cut(addr, " ")
		s.url = "https://" + addr
		return found && addr != ""
	})
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return s, nil
}

// calls counts requests to an object store by what they do and to what, such as "PutObject commits".
type calls map[string]int

// readCalls reads the log of an engine, which is in the format of S3's access logs.
func readCalls(log string) (calls, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	all := calls{}
	for line := range strings.Lines(string(text)) {
		if name, found := callOf(line); found {
			all[name]++
		}
	}
	return all, nil
}

// callOf returns what a line of the log counts as. The fields are owner, bucket, time and zone,
// address, requester, id, operation, key and URI.
func callOf(line string) (string, bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return "", false
	}
	operation, isCall := strings.CutPrefix(f[7], "s3_")
	name := f[8]
	if name == "-" { // a list: what it looks for is in the URI
		_, name, _ = strings.Cut(f[9], "prefix=")
		name = strings.ReplaceAll(name, "%2F", "/")
	}
	kind, _, _ := strings.Cut(name, "/")
	kind, _, _ = strings.Cut(kind, "&")
	return strings.TrimSpace(operation + " " + kind), isCall
}

// since returns the calls that were made after before.
func (c calls) since(before calls) calls {
	later := calls{}
	for name, n := range c {
		if n > before[name] {
			later[name] = n - before[name]
		}
	}
	return later
}

func (c calls) sum() (sum int) {
	for _, n := range c {
		sum += n
	}
	return sum
}

// most returns the names of the calls, the most frequent first.
func (c calls) most() []string {
	return slices.SortedFunc(maps.Keys(c), func(a, b string) int {
		if c[a] != c[b] {
			return c[b] - c[a]
		}
		return strings.Compare(a, b)
	})
}
