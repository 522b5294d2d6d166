package labtest

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// sourceEnv names another source tree to build the programs from, in which something was broken
// on purpose.
const sourceEnv = "LAB_SOURCE"

// programs builds both programs, once per process, and returns their directory. It is package
// state because linking takes longer than most tests.
var programs = sync.OnceValues(buildPrograms)

// Main runs the tests of a package and removes the programs after them. A package that makes
// labs should call it from its TestMain. Otherwise the programs stay in the temporary
// directory.
func Main(m *testing.M) {
	runMoreAtOnce()
	code := m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

// runMoreAtOnce lets more tests run in parallel than there are cores, unless -parallel is set:
// a lab waits for disks, timeouts and certificates most of the time.
func runMoreAtOnce() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	}
}

// programsDir is the folder that [programs] made, for [Main].
var programsDir string

func buildPrograms() (string, error) {
	dir, err := os.MkdirTemp("", "labtest-*")
	if err != nil {
		return "", err
	}
	programsDir = dir
	return dir, Build(dir)
}

// Build builds both programs into a folder.
func Build(dir string) error {
	source := os.Getenv(sourceEnv)
	if source == "" {
		mod, err := exec.Command("go", "env", "GOMOD").Output()
		if err != nil {
			return fmt.Errorf("find the module: %w", err)
		}
		source = filepath.Dir(strings.TrimSpace(string(mod)))
	}
	// go test caches a result until a file changes that the test itself has opened. It does not
	// see the files that this command opens.
	for _, sources := range []string{"cmd", "internal"} {
		if err := filepath.WalkDir(filepath.Join(source, sources), func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./cmd/shipper", "./cmd/receiver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does: static programs start faster, too
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", source, err, out)
	}
	return nil
}
