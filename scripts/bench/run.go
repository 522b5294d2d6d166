package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// host is the name by which every client sends, and the receiver knows it.
const host = "lab-01"

// row is what one run took. Fields that a run does not have are zero.
type row struct {
	System   string  `json:"system"`
	Round    int     `json:"round"`
	At       int     `json:"at,omitempty"` // the size, where something grows
	Wall     float64 `json:"wall_s"`
	Episodes int     `json:"episodes,omitempty"`
	Input    int64   `json:"input_bytes,omitempty"`

	ClientCPU float64 `json:"client_cpu_s"`
	ServerCPU float64 `json:"server_cpu_s"`
	KernelCPU float64 `json:"kernel_cpu_s"` // threads of the kernel, to the end of a last sync
	// AllCPU is what the machine did without the client and the bench, to the end of a last
	// sync.
	AllCPU  float64 `json:"all_cpu_less_client_s"`
	Foreign float64 `json:"foreign_cores"` // busy with none of the above while the clock ran

	// EngineCPU is that of an object store beside the servers.
	EngineCPU float64 `json:"engine_cpu_s,omitempty"`

	ClientMiB float64 `json:"client_mib"`
	ServerMiB float64 `json:"server_mib"` // of the largest server
	EngineMiB float64 `json:"engine_mib,omitempty"`
	Stored    int64   `json:"stored_bytes,omitempty"`
	Sync      float64 `json:"sync_s"` // a last sync of all, after the clock stopped

	Requests int     `json:"requests,omitempty"` // of a load
	P50      float64 `json:"p50_ms,omitempty"`
	P99      float64 `json:"p99_ms,omitempty"`
	Calls    calls   `json:"calls,omitempty"`     // requests to an object store, by kind
	Values   samples `json:"values_ms,omitempty"` // of a wake-up
	Start    float64 `json:"start_ms,omitempty"`  // of a server, until it listens
}

// cpu is the processor time of both ends.
func (r row) cpu() float64 { return r.ClientCPU + r.ServerCPU }

// job is a client with its servers, ready to go.
type job struct {
	client  *exec.Cmd
	servers []*process // of one kind, which share the work; empty without a server
	engine  *process   // the object store of the servers, or nil
	exit    int        // the client's exit code that is right
	disk    string     // a folder of the file system that all write to
}

func (j job) serverCPU() time.Duration {
	var sum time.Duration
	for _, s := range j.servers {
		sum += treeCPU(s.pid())
	}
	return sum
}

func (j job) engineCPU() time.Duration {
	if j.engine == nil {
		return 0
	}
	return treeCPU(j.engine.pid())
}

// watch begins to look at the memory of the client, the servers and the engine.
func (j job) watch() *peaks {
	roots := []int{j.client.Process.Pid}
	for _, s := range j.servers {
		roots = append(roots, s.pid())
	}
	if j.engine != nil {
		roots = append(roots, j.engine.pid())
	}
	return watch(roots...)
}

// measure runs the client to its end and returns what it took. The client must send everything
// before it ends.
func measure(j job) (row, error) {
	var failure bytes.Buffer
	j.client.Stderr = &failure
	j.client.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	j.client.Cancel = func() error { return syscall.Kill(-j.client.Process.Pid, syscall.SIGKILL) }
	serverBefore, engineBefore := j.serverCPU(), j.engineCPU()
	before := look()
	if err := j.client.Start(); err != nil {
		return row{}, err
	}
	memory := j.watch()
	err := j.client.Wait()
	after := look()
	server, engine := j.serverCPU()-serverBefore, j.engineCPU()-engineBefore
	peak := append(memory.end(), 0)
	servers, engines := peak[1:1+len(j.servers)], peak[1+len(j.servers):]
	if code := j.client.ProcessState.ExitCode(); code != j.exit {
		return row{}, fmt.Errorf("%s: %w: %s", strings.Join(j.client.Args, " "), err, failure.Bytes()[max(0, failure.Len()-1000):])
	}
	client := j.client.ProcessState.UserTime() + j.client.ProcessState.SystemTime()
	if err := settle(j.disk); err != nil {
		return row{}, err
	}
	synced := look()

	wall := after.at.Sub(before.at)
	foreign := after.busy - before.busy - client - server - engine - (after.self - before.self) - after.kernelSince(before)
	// The bench's own time in the sync is caused by the server.
	all := synced.busy - before.busy - client - (after.self - before.self)
	return row{
		Wall:      wall.Seconds(),
		ClientCPU: client.Seconds(), ServerCPU: server.Seconds(), EngineCPU: engine.Seconds(),
		KernelCPU: synced.kernelSince(before).Seconds(),
		AllCPU:    all.Seconds(),
		Foreign:   max(0, foreign.Seconds()/wall.Seconds()),
		ClientMiB: peak[0], ServerMiB: slices.Max(append([]float64{0}, servers...)), EngineMiB: engines[0],
		Sync: synced.at.Sub(after.at).Seconds(),
	}, nil
}

// send makes a system send the episodes of a work once.
func (l *lab) send(ctx context.Context, s system, w work) (r row, err error) {
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	if err := errors.Join(copyTree(l.path("work", w.folder()), l.run("src")), warm(l.run("src"))); err != nil {
		return row{}, err
	}
	srv, err := l.serve(ctx, s.server)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	env, err := l.env(ctx, srv)
	if err != nil {
		return row{}, err
	}
	if s.prepare != "" {
		if err := script(ctx, env, s.prepare).Run(); err != nil {
			return row{}, fmt.Errorf("prepare %s: %w", s.name, err)
		}
	}
	if err := settle(l.base); err != nil {
		return row{}, err
	}
	if r, err = measure(job{client: script(ctx, env, s.client), servers: srv.processes(), disk: l.base}); err != nil {
		return row{}, fmt.Errorf("%s of %s: %w", s.name, w.name, err)
	}
	r.System, r.Episodes, r.Input = s.name, w.episodes, w.input()
	r.Stored, err = stored(l.run("data"))
	return r, err
}

// env is what the scripts of a system may use.
func (l *lab) env(ctx context.Context, srv *server) ([]string, error) {
	credentials, err := l.host(ctx, host)
	if err != nil {
		return nil, err
	}
	conf := l.run("lab-host.toml")
	if err := l.write(conf, shipperConf, host, l.run("src"), l.run("outbox"), l.run("shipped"), srv.url, credentials); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return append(
		os.Environ(), "BENCH="+self, "BIN="+l.bin, "CONF="+conf, "HOST="+host,
		"SRC="+l.run("src"), "OUT="+l.run("outbox"), "SHIPPED="+l.run("shipped"), "DATA="+l.run("data"), "TO="+l.run("unpacked"),
		"URL="+srv.url, fmt.Sprintf("PORT=%d", srv.port),
		"CA="+filepath.Join(credentials, "ca.crt"), "CRT="+filepath.Join(credentials, host+".crt"),
		"KEY="+filepath.Join(credentials, host+".key"), "PEM="+filepath.Join(credentials, host+".pem"),
		"ORIGINAL="+original, "RCLONE_CONFIG="+os.DevNull, "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR="+l.run("cache"), "TMPDIR="+l.run("tmp"),
	), nil
}

func script(ctx context.Context, env []string, text string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	cmd.Env = env
	cmd.WaitDelay = time.Second // of a child that holds the pipe of our stderr
	return cmd
}

// warm reads every file once: the first system must not pay for the disk. GNU tar reads nothing
// if it writes to /dev/null.
func warm(dir string) error {
	return exec.Command("tar", "-cf", "/dev/zero", "-C", dir, ".").Run()
}

// prove compares what a system stored with what it was given, for two small episodes: a fast
// system that stores something else does not count.
func (l *lab) prove(ctx context.Context, s system) (err error) {
	w := work{"proof", 2, 12, 1 << 20}
	if err := w.generate(l.path("work", w.folder())); err != nil {
		return err
	}
	if err := errors.Join(l.fresh(), copyTree(l.path("work", w.folder()), l.run("src")), os.Mkdir(l.run("unpacked"), 0o755)); err != nil {
		return err
	}
	srv, err := l.serve(ctx, s.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	env, err := l.env(ctx, srv)
	if err != nil {
		return err
	}
	for _, step := range []string{s.prepare, s.client, s.unpack, `diff -r --exclude=.made "$ORIGINALS" "$TO"`} {
		cmd := script(ctx, append(env, "ORIGINALS="+l.path("work", w.folder())), step)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s does not store what it is given: %w: %s", s.name, err, out)
		}
	}
	say("%s: two episodes came back as they were", s.name)
	return nil
}
