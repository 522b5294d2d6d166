package labtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// aJSONRun is a command with arguments, its exit code, and the number of objects it prints.
type aJSONRun struct {
	args    string
	code    int
	objects int
}

// jsonRuns are the commands that print JSON. The others refuse --json.
func jsonRuns(pki, dir string) map[string][]aJSONRun {
	return map[string][]aJSONRun{
		"shipper":                 {{"--once", 3, 1}, {"--ping", 0, 1}},
		"shipper check":           {{"", 0, 1}, {"--reload", 0, 1}},
		"shipper status":          {{"", 3, 1}},
		"shipper held":            {{"", 3, 1}},
		"shipper retry":           {{"run-3 none ../x", 2, 3}},
		"shipper verify":          {{"--all", 0, 3}},
		"shipper prune":           {{"--dry-run --max-age 1ns", 0, 3}},
		"shipper resend":          {{"run-1 none", 1, 2}},
		"shipper join":            {{"garbage", 2, 0}},
		"shipper doctor":          {{"", 0, 1}},
		"shipper version":         {{"", 0, 1}},
		"receiver check":          {{"", 0, 1}, {"--reload", 0, 1}},
		"receiver doctor":         {{"", 0, 1}},
		"receiver status":         {{"", 0, 1}},
		"receiver hosts":          {{"", 0, 2}},
		"receiver invite":         {{"lab-09 --url https://127.0.0.1:8443", 0, 1}, {"--list", 0, 1}, {"--revoke lab-08", 1, 0}},
		"receiver store":          {{"", 0, 1}},
		"receiver scrub":          {{"--rate 0", 0, 1}},
		"receiver index verify":   {{"", 0, 1}},
		"receiver index backfill": {{"--dry-run", 0, 1}},
		"receiver pki list":       {{"--dir " + pki, 0, 1}},
		"receiver version":        {{"", 0, 1}},
		"receiver hosts disable":  {{"lab-50 lab-51", 0, 2}},
		"receiver hosts enable":   {{"lab-50", 0, 1}},
		"receiver hosts remove":   {{"lab-51", 0, 1}},
		"receiver store replaces": {{"--rewound", 0, 1}},
		"receiver store copy":     {{"--to s3 --new-config missing.toml", 2, 0}}, // see fleettest
		"receiver pki init":       {{"--dir " + dir + "/new --name localhost", 0, 1}},
		"receiver pki issue":      {{"lab-60 --out " + dir + "/lab-60 --dir " + pki, 0, 1}},
		"receiver pki revoke":     {{"lab-60 --dir " + pki, 0, 1}},
		"receiver pki renew":      {{"--dir " + pki, 0, 1}},
		"receiver pki rotate":     {{"--force", 2, 0}}, // rotate.txtar has the rest
		"receiver setup":          {{"--name localhost", 0, 1}},
		"receiver hooks list":     {{"", 0, 1}},
		"receiver hooks test":     {{"", 0, 1}},
		"receiver probe":          {{"", 2, 0}}, // this store is on a disk; see fleettest
	}
}

// TestEveryCommandPrintsJSONOrRefusesIt: a script must not take text for JSON. A command that
// accepts --json prints one object per line, even if it fails in part. The others exit with 2
// and print nothing.
func TestEveryCommandPrintsJSONOrRefusesIt(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Set("hooks.queue_dir", `"queue"`))
	fixture.Must(t, os.Mkdir(l.Path("queue"), 0o750))
	h.Set("limits.episode_entries", "30")
	h.Episode("run-1")
	h.Episode("run-2")
	var many []labtest.File
	for i := range 40 {
		many = append(many, labtest.File{Name: fmt.Sprint("file-", i)})
	}
	h.Episode("run-3", many...)
	l.SetUp()
	run := func(command string, args ...string) labtest.Result {
		program, words, _ := strings.Cut(command, " ")
		args = append(strings.Fields(words), args...)
		if program == "shipper" {
			return h.Run(args...)
		}
		if !strings.HasPrefix(words, "pki") && words != "version" {
			args = append([]string{"--config", l.Path("receiver.toml")}, args...)
		}
		return l.Receiver(args...)
	}
	runs := jsonRuns(l.Path("pki"), t.TempDir())
	for _, command := range []string{
		"shipper", "shipper check", "shipper status", "shipper held", "shipper retry", "shipper verify", "shipper prune",
		"shipper resend", "shipper join", "shipper doctor", "shipper version", "receiver check", "receiver doctor", "receiver invite", "receiver status", "receiver hosts", "receiver store",
		"receiver scrub", "receiver index verify", "receiver index backfill", "receiver pki list", "receiver version",
		"receiver hosts disable", "receiver hosts enable", "receiver hosts remove", "receiver store replaces", "receiver store copy", "receiver pki init", "receiver pki issue",
		"receiver pki revoke", "receiver pki renew", "receiver pki rotate", "receiver setup", "receiver hooks test", "receiver hooks list", "receiver probe",
	} {
		for _, want := range runs[command] {
			r := run(command, append(strings.Fields(want.args), "--json")...)
			if n := countObjects(t, command, r.Stdout); r.Code != want.code || n != want.objects {
				t.Errorf("%s %s --json: exit code %d, want %d; %d objects, want %d:\n%s%s", command, want.args, r.Code, want.code, n, want.objects, r.Stdout, r.Stderr)
			}
		}
	}
	others := []string{"shipper generate man " + l.Path("man"), "shipper generate completion " + l.Path("man"), "shipper", "receiver"}
	for _, program := range []string{"shipper", "receiver"} {
		for _, command := range l.Commands(t, program) {
			if runs[program+" "+command] == nil {
				others = append(others, program+" "+command)
			}
		}
	}
	for _, command := range others {
		r := run(command, "--json")
		if r.Code != 2 || r.Stdout != "" || !strings.Contains(r.Stderr, "json") {
			t.Errorf("%s --json: exit code %d, want 2:\n%s%s", command, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// countObjects checks that each line is an object.
func countObjects(t *testing.T, command, text string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(text) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Errorf("%s --json printed %q: %v", command, line, err)
		}
		n++
	}
	return n
}
