package failpoint_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cis490/internal/crashtest"
	"cis490/internal/labtest"
)

// TestMain makes labtest build programs in which package durable asks before each step whether
// it must fail.
func TestMain(m *testing.M) {
	code, ran, err := crashtest.Isolate() // for its file system in memory; other users run without
	if !ran && (err == nil || errors.Is(err, crashtest.ErrNotRoot)) {
		code, ran, err = crashtest.Overlaid(overlayDurable)
	}
	switch {
	case ran:
		os.Exit(code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "failpoint:", err)
		os.Exit(1)
	}
	labtest.Main(m)
}

// hooks define which calls of package durable are steps.
var hooks = []struct{ call, step string }{
	{`\bunix\.(Mkdirat|Linkat|Renameat2|Renameat|Unlinkat|Fsetxattr|Fdatasync|Openat)\(`, `fp$1(`},
	{`\b(\w+\.f)\.Sync\(\)`, `fpSync($1)`},
	{`\b(\w+\.f)\.Write\(`, `fpWrite($1, `},
	{`err := (f)\.WriteAt\(`, `err := fpWriteAt($1, `},
	{`\b(\w+\.f)\.Truncate\(`, `fpTruncate($1, `},
	{`err := (f\.f)\.Close\(\)`, `err := fpClose($1)`},
	{`\bos\.OpenFile\(`, `fpOpenFile(`},
}

// overlayDurable changes package durable in the overlay.
func overlayDurable(o *crashtest.Overlay) error {
	files, err := filepath.Glob(filepath.Join(o.Root(), "internal/durable/*.go"))
	if err != nil {
		return err
	}
	hooked := make([]bool, len(hooks))
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		if err := insertHook(o, file, hooked); err != nil {
			return err
		}
	}
	for i, done := range hooked {
		if !done {
			return fmt.Errorf("package durable has no call %s any more", hooks[i].call)
		}
	}
	if err := shortenDeleteDelay(o); err != nil {
		return err
	}
	steps, err := os.ReadFile("testdata/failpoint.go")
	if err != nil {
		return err
	}
	return o.Put("internal/durable/failpoint.go", string(steps))
}

// shortenDeleteDelay lets a shipper delete what changed just now, so that no case takes 3 s.
func shortenDeleteDelay(o *crashtest.Overlay) error {
	const file, wait, none = "internal/shipped/delete.go", "minUnchanged = 3 * time.Second", "minUnchanged = 1"
	b, err := os.ReadFile(filepath.Join(o.Root(), file))
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), wait) {
		return fmt.Errorf("%s has no %q any more", file, wait)
	}
	return o.Put(file, strings.Replace(string(b), wait, none, 1))
}

func insertHook(o *crashtest.Overlay, file string, hooked []bool) error {
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
