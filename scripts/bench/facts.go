package main

import (
	"fmt"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// commit says which sources the programs were built of.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude", "*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// facts are what a reader must know of the machine.
func facts() string {
	model := "unknown"
	if _, rest, found := strings.Cut(slurp("/proc/cpuinfo"), "model name"); found {
		line, _, _ := strings.Cut(rest, "\n")
		model = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), ":"))
	}
	return fmt.Sprintf("%s, %d cores, %.0f GiB, Linux %s; loopback, one machine for both ends, sources in the page cache.",
		model, runtime.NumCPU(), float64(field("/proc/meminfo", "MemTotal:"))/(1<<20), strings.TrimSpace(slurp("/proc/sys/kernel/osrelease")))
}

// versions names what was compared.
func versions() string {
	var all []string
	ask := map[string]string{
		"curl": "--version", "nginx": "-v", "rclone": "version", "restic": "version", "rsync": "--version", "zstd": "--version", "tar": "--version",
	}
	for _, name := range slices.Sorted(maps.Keys(ask)) {
		out, err := exec.Command(name, ask[name]).CombinedOutput()
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(out)) {
			word = strings.Trim(word, "v,")
			word = strings.TrimPrefix(word, "nginx/")
			if word != "" && word[0] >= '0' && word[0] <= '9' && strings.Contains(word, ".") {
				all = append(all, name+" "+word)
				break
			}
		}
	}
	return strings.Join(append(all, "Go "+strings.TrimPrefix(runtime.Version(), "go")), ", ")
}
