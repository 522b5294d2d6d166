package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cis490/internal/config"
)

// The struct has the defaults before the file is read. All mistakes of the file are reported at
// once, each with its place and a remedy.
func ExampleLoad() {
	folder, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "lab-host.toml")
	err = os.WriteFile(path, []byte("scan_intervall = \"10s\"\nmin_free = \"lots\"\n"), 0o600)
	if err != nil {
		panic(err)
	}

	settings := struct {
		ScanInterval config.Duration `toml:"scan_interval"`
		MinFree      config.Bytes    `toml:"min_free"`
	}{config.Duration(30 * time.Second), 1 << 30}
	err = config.Load(path, &settings)
	fmt.Println(strings.ReplaceAll(err.Error(), folder, "/etc/cis490"))
	// Output:
	// /etc/cis490/lab-host.toml:1: unknown key "scan_intervall"; did you mean "scan_interval"?
	// /etc/cis490/lab-host.toml:2: min_free: "lots" is not a valid size: write a number with a unit, such as "1MiB" or "500MB"
}
