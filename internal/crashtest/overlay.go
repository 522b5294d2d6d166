package crashtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Overlay is the module with some of its files changed, for go build and go test. Nothing is
// written in the source tree. The caller removes the directory.
type Overlay struct {
	root  string // of the module
	dir   string
	files map[string]string // what stands for what
	puts  int
}

// NewOverlay returns an overlay in dir that changes nothing yet.
func NewOverlay(dir string) (*Overlay, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	return &Overlay{root: filepath.Dir(strings.TrimSpace(string(mod))), dir: dir, files: make(map[string]string)}, nil
}

// Root returns the folder of the module.
func (o *Overlay) Root() string { return o.root }

// Put replaces the content of a file, named relative to the module's root, which need not
// exist.
func (o *Overlay) Put(file, text string) error {
	o.puts++
	instead := filepath.Join(o.dir, strconv.Itoa(o.puts)+"-"+filepath.Base(file))
	o.files[filepath.Join(o.root, file)] = instead
	return os.WriteFile(instead, []byte(text), 0o644)
}

// Edit replaces old, which must occur in the file once: a change that missed its place would
// test nothing.
func (o *Overlay) Edit(file, old, text string) error {
	path := filepath.Join(o.root, file)
	if instead, again := o.files[path]; again {
		path = instead
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := strings.Count(string(b), old); n != 1 {
		return fmt.Errorf("%s has %d times, want once:\n%s", file, n, old)
	}
	return o.Put(file, strings.Replace(string(b), old, text, 1))
}

// Flags returns the value of GOFLAGS that applies the overlay.
func (o *Overlay) Flags() (string, error) {
	b, err := json.Marshal(map[string]any{"Replace": o.files})
	if err != nil {
		return "", err
	}
	path := filepath.Join(o.dir, "overlay.json")
	return "-overlay=" + path, os.WriteFile(path, b, 0o644)
}

// builtEnv is set in the process that [Overlaid] started.
const builtEnv = "CRASHTEST_OVERLAID"

// Overlaid runs the program once more, with the overlay that change makes in the environment of
// its go commands, and returns its exit code and true. In that process it returns false, and
// the caller continues. The second process is needed so that the first can remove the overlay.
func Overlaid(change func(*Overlay) error) (int, bool, error) {
	if os.Getenv(builtEnv) != "" {
		return 0, false, nil
	}
	dir, err := os.MkdirTemp("", "overlay-*")
	if err != nil {
		return 0, false, err
	}
	defer os.RemoveAll(dir)
	o, err := NewOverlay(dir)
	if err == nil {
		err = change(o)
	}
	if err != nil {
		return 0, false, err
	}
	flags, err := o.Flags()
	if err != nil {
		return 0, false, err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS="+flags, builtEnv+"=1")
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return 0, false, err
	}
	return cmd.ProcessState.ExitCode(), true, nil
}
