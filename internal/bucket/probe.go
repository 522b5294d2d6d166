package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"cis490/internal/digest"
)

// Check is the result of one check of [Probe].
type Check struct {
	Name string
	Took time.Duration
	Err  error // nil if it passed
}

// Report is the result of [Probe].
type Report struct {
	Endpoints []string
	Servers   []string // what each endpoint calls itself; "" if it does not say
	At        time.Time
	Checks    []Check
}

// ProbeError says which checks an engine failed. It must not be used.
type ProbeError struct{ Failed []Check }

func (e *ProbeError) Error() string {
	var all []string
	for _, c := range e.Failed {
		all = append(all, fmt.Sprintf("%s: %v", c.Name, c.Err))
	}
	return "the object store failed the probe: " + strings.Join(all, "; ")
}

func (e *ProbeError) Unwrap() []error {
	var all []error
	for _, c := range e.Failed {
		all = append(all, c.Err)
	}
	return all
}

// probeDir has the objects of all probes.
const probeDir = "probe/"

// IsProbe reports whether an object is one of a probe.
func IsProbe(name string) bool { return strings.HasPrefix(name, probeDir) }

const (
	cutGrace       = time.Second // in which an engine may notice that a body has ended early
	cleanupTimeout = 3 * time.Second
	leftoverAge    = 24 * time.Hour // of objects that an interrupted probe left
)

// Probe checks that an engine does what [Bucket] promises, at each of its endpoints. It writes only
// below "probe/", and removes that. It returns a [*ProbeError] that has the checks that failed, or the
// error of ctx.
func Probe(ctx context.Context, endpoints ...Endpoint) (Report, error) {
	p := &probe{endpoints: endpoints, dir: probeDir + strings.ToLower(rand.Text()) + "/"}
	r := Report{At: time.Now()}
	defer p.cleanUp(ctx)
	for _, check := range []struct {
		name  string
		check func(context.Context) error
	}{
		{"access", p.eachEndpoint(p.checkAccess)},
		{"settings", p.eachEndpoint(p.checkSettings)},
		{"create-only", p.checkCreate},
		{"signed-digest", p.eachEndpoint(p.checkDigest)},
		{"cut-body", p.eachEndpoint(p.checkCutBody)},
		{"list", p.eachEndpoint(p.checkList)},
		{"multipart", p.eachEndpoint(p.checkMultipart)},
		{"same-objects", p.checkSameObjects},
		{"remove", p.eachEndpoint(p.checkRemove)},
	} {
		begun := time.Now()
		err := check.check(ctx)
		if ctx.Err() != nil {
			return r, fmt.Errorf("probe the object store: %w", context.Cause(ctx))
		}
		c := Check{check.name, time.Since(begun), err}
		r.Checks = append(r.Checks, c)
		if err != nil {
			p.failed = append(p.failed, c)
		}
		if err != nil && c.Name == "access" {
			break // the others would fail for the same reason
		}
	}
	for _, e := range endpoints {
		server := ""
		if s, ok := e.Bucket.(interface{ Server() string }); ok {
			server = s.Server()
		}
		r.Endpoints, r.Servers = append(r.Endpoints, e.Name), append(r.Servers, server)
	}
	if len(p.failed) > 0 {
		return r, &ProbeError{p.failed}
	}
	return r, nil
}

// probe is one run of [Probe].
type probe struct {
	endpoints []Endpoint
	dir       string
	names     []string // of the objects that may exist
	failed    []Check
}

// eachEndpoint returns a check of all endpoints. Its error names the endpoint.
func (p *probe) eachEndpoint(check func(context.Context, Bucket) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, e := range p.endpoints {
			if err := check(ctx, e.Bucket); err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
		}
		return nil
	}
}

// name returns the name of an object for the probe, and has it removed at the end.
func (p *probe) name(base string) string {
	name := p.dir + base
	p.names = append(p.names, name)
	return name
}

// newName returns a name that the probe has not used.
func (p *probe) newName(base string) string { return p.name(fmt.Sprintf("%s-%d", base, len(p.names))) }

// cleanUp removes the objects of this probe, and those that an interrupted one left.
func (p *probe) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	b := p.endpoints[0].Bucket
	for _, name := range p.names {
		if b.Remove(ctx, name) != nil {
			return // a later probe removes what stays
		}
	}
	for o, err := range b.List(ctx, probeDir, "") {
		if err != nil || time.Since(o.ModifiedAt) > leftoverAge && b.Remove(ctx, o.Name) != nil {
			return
		}
	}
}

func createBytes(ctx context.Context, b Bucket, name string, content []byte) error {
	return b.Create(ctx, name, bytes.NewReader(content), int64(len(content)), digestOf(content))
}

func digestOf(content []byte) digest.Digest {
	d, _, _ := digest.Of(bytes.NewReader(content)) // memory does not fail
	return d
}

// expect returns an error unless got wraps want.
func expect(what string, got, want error) error {
	switch {
	case errors.Is(got, want):
		return nil
	case got == nil:
		return fmt.Errorf("%s succeeded, but must fail", what)
	}
	return fmt.Errorf("%s: %w", what, got)
}
