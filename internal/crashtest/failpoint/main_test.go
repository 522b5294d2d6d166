package failpoint_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cis490/internal/crashtest"
	"cis490/internal/labtest"
)

// TestMain has labtest build programs in which package durable asks, before
// each step, whether it shall fail. The tests run in a second process, so that
// the first can remove what they were built from.
func TestMain(m *testing.M) {
	if os.Getenv("GOFLAGS") != "" && os.Getenv(builtEnv) != "" {
		labtest.Main(m)
	}
	code, ran, err := crashtest.Isolate() // for the memory it has for files; any user can do without
	if ran {
		os.Exit(code)
	}
	if err == nil || errors.Is(err, crashtest.ErrNotRoot) {
		code, err = again()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failpoint:", err)
		code = 1
	}
	os.Exit(code)
}

// builtEnv is set in the process that has the overlay.
const builtEnv = "FAILPOINT_BUILT"

// again runs this program once more, with the overlay in its environment.
func again() (int, error) {
	dir, err := os.MkdirTemp("", "failpoint-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	flags, err := overlay(dir)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS="+flags, builtEnv+"=1")
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		err = nil
	}
	return cmd.ProcessState.ExitCode(), err
}

// hooks say which calls of package durable are steps.
var hooks = []struct{ call, step string }{
	{`\bunix\.(Mkdirat|Linkat|Renameat2|Renameat|Unlinkat|Fsetxattr|Fdatasync|Openat)\(`, `fp$1(`},
	{`\b(\w+\.f)\.Sync\(\)`, `fpSync($1)`},
	{`\b(\w+\.f)\.Write\(`, `fpWrite($1, `},
	{`err := (f)\.WriteAt\(`, `err := fpWriteAt($1, `},
	{`\b(\w+\.f)\.Truncate\(`, `fpTruncate($1, `},
	{`err := (f\.f)\.Close\(\)`, `err := fpClose($1)`},
	{`\bos\.OpenFile\(`, `fpOpenFile(`},
}

// overlay returns what GOFLAGS must be.
func overlay(dir string) (string, error) {
	o, err := crashtest.NewOverlay(dir)
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(o.Root(), "internal/durable/*.go"))
	if err != nil {
		return "", err
	}
	hooked := make([]bool, len(hooks))
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		if err := hook(o, file, hooked); err != nil {
			return "", err
		}
	}
	for i, done := range hooked {
		if !done {
			return "", fmt.Errorf("package durable has no call %s any more", hooks[i].call)
		}
	}
	steps, err := os.ReadFile("testdata/failpoint.go")
	if err != nil {
		return "", err
	}
	if err := o.Put("internal/durable/failpoint.go", string(steps)); err != nil {
		return "", err
	}
	return o.Flags()
}

func hook(o *crashtest.Overlay, file string, hooked []bool) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(b)
	for i, h := range hooks {
		call := regexp.MustCompile(h.call)
		hooked[i] = hooked[i] || call.MatchString(text)
		text = call.ReplaceAllString(text, h.step)
	}
	if text == string(b) {
		return nil
	}
	return o.Put(filepath.Join("internal/durable", filepath.Base(file)), text)
}
