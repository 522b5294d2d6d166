// Package internal_test holds the rules of the repository that a test can check:
// who may import whom, and what the files of a package look like.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

const module = "cis490"

// importRule lists the packages of this module that a package may import, named below
// internal/.
type importRule struct {
	may string
	why string
}

// importRules has a row for each package. A missing import is added here, with a convincing
// reason, or not at all.
var importRules = map[string]importRule{
	// The lowest layer: they import only printable.
	"internal/printable":  {"", "untrusted text for a terminal or a log, whoever shows it"},
	"internal/digest":     {"printable", "names bytes and knows nothing else"},
	"internal/episode":    {"printable", "names episodes and knows nothing else"},
	"internal/durable":    {"printable", "package os, but on the disk when it returns: whose files they are is not its matter"},
	"internal/config":     {"printable suggestion", "reads any program's file: the struct is the program's"},
	"internal/device":     {"", "answers for an open file, whoever opened it"},
	"internal/systemd":    {"printable", "talks to the service manager for any program"},
	"internal/logging":    {"printable terminal", "writes one line for one event, whoever logs it"},
	"internal/progress":   {"printable", "shows the progress of any command on a terminal"},
	"internal/retry":      {"", "how long anything waits before another attempt"},
	"internal/suggestion": {"", "compares names of any kind"},
	"internal/terminal":   {"", "colours words of any program for people"},
	// One layer up: one hands over files that durable created, one watches where its directories are.
	"internal/pathwatch":   {"durable printable", "finds out where any open directory is"},
	"internal/serviceuser": {"durable", "makes any program's command the daemon's user; which names the program makes is told to it"},

	// The next layers, in the order in which an episode passes them.
	"internal/source":      {"archive digest durable episode printable", "compares an episode with what was sealed before it retires it"},
	"internal/archive":     {"digest durable episode printable", "turns a directory into a stream; the stream's place is its caller's matter, but what is opened beneath an open directory is durable's, once for all"},
	"internal/outbox":      {"digest durable episode printable", "keeps sealed bytes and does not look into them"},
	"internal/wire":        {"digest episode printable retry", "the protocol has no disk, neither end of it"},
	"internal/hint":        {"printable wire", "explains what an error of the client means to an operator"},
	"internal/pki":         {"durable episode printable serviceuser", "certificates, lists and the files that have them, for both ends: root opens a directory as the commands that become the service user do"},
	"internal/credentials": {"durable episode pki", "what a host presents and whom it trusts: which requests it makes with that is the matter of wire and the shipper"},
	"internal/hostrecord":  {"durable episode pki", "what a receiver remembers of a host: what follows from it is decided by gate and the receiver"},
	"internal/gate":        {"digest episode hostrecord pki printable", "says who is at the other end, not what they may send"},
	"internal/access":      {"datadir episode gate wire", "who may send at this moment: what is sent is the receiver's matter"},
	"internal/ca":          {"durable episode pathwatch pki serviceuser", "what an operator does with a directory of CAs: its commands stay root"},
	"internal/revocation":  {"ca episode pki printable suggestion", "ends what ca issued: which hosts are let in meanwhile is the receiver's matter"},
	"internal/rotation":    {"ca durable pki revocation serviceuser", "replaces a directory of CAs by another, with its revocations"},
	"internal/invite":      {"durable episode", "what an operator hands to a host, and who may use it: certificates are pki's matter, requests those of wire"},
	"internal/unixsocket":  {"durable", "a socket of any daemon, in a directory that other users may write to"},
	"internal/admission":   {"episode", "decides what may begin, and does not do it: no protocol, no store"},
	"internal/store":       {"device digest durable episode", "keeps opaque bytes under a key; what it notes of a file counts on the disk alone that it was read from, so it asks device"},
	"internal/index":       {"digest durable episode printable", "one file of rows: what they say of archives is checked elsewhere"},

	"internal/bandwidth": {"config", "limits readers, whatever they read"},
	"internal/settling":  {"archive digest", "surveys a tree that its caller opened, and decides by its marks"},
	"internal/hostdir":   {"archive config durable outbox pathwatch serviceuser source", "opens the directories of source and outbox, for the daemon and the commands alike"},
	"internal/shipped":   {"archive config digest durable episode hostdir outbox printable source uplink wire", "serves the commands; the daemon only prunes with it, so it must not need the dispatcher"},
	"internal/uplink":    {"digest durable hostdir outbox retry source wire", "daemon and commands must check the store of every response in the same way"},

	"internal/backlog":  {"device durable episode hostdir outbox printable settling source wire", "reads what is on the disk, for the daemon and the commands alike; a report is the protocol's"},
	"internal/transfer": {"archive bandwidth digest durable episode hostdir outbox settling source uplink wire", "packs and sends one episode: which is next is the daemon's matter"},

	"internal/doctor": {"config durable hint pathwatch printable serviceuser systemd wire", "examines a machine and a way for the commands of both programs, which bring what depends on their configurations"},

	"internal/fleet": {"durable episode printable wire", "keeps what hosts report, and judges it for the commands: no store, whose count its caller brings"},

	"internal/notify": {"config digest durable episode printable retry", "tells other programs of events that its callers pass in: it judges nothing"},

	"internal/snapshot": {"", "shares readings of any state"},
	"internal/metrics":  {"wire", "turns any facts into metrics; both programs serve those of a report"},
	"internal/admin":    {"config printable unixsocket", "serves metrics, health and pages of any daemon, which passes them in"},
	"internal/activity": {"episode index", "recent events at a receiver, for people: it judges nothing"},

	"internal/hosts": {"datadir durable episode fleet hostrecord invite pki revocation wire", "joins what other packages know about a host, for the commands and the metrics: the daemon's requests do not need it"},

	"internal/statuspage": {"activity datadir diskbackend durable episode fleet hosts printable s3backend", "shows what the commands know about a receiver and its hosts: it reads no file, and changes nothing"},

	// The daemons. Neither imports the packages of the other: they meet in wire.
	"internal/shipper":  {"admin archive backlog bandwidth config credentials durable episode hint hostdir logging notify outbox pathwatch pki retry serviceuser settling shipped source transfer uplink wire", "moves an episode from stage to stage; a folder whose path another user can change is opened as root's commands open theirs"},
	"internal/receiver": {"access activity admin admission batchlog bucket config datadir digest diskbackend durable episode fleet gate hostrecord index invite logging notify pki printable refusal retry s3backend scrub sharedhosts store unixsocket wire", "serves a backend, which it opens; of store and index it knows the error for an unsuitable directory, and the row that an event is about"},

	"internal/bucket":      {"config digest durable pki printable retry", "keeps objects under names, and does not know what they are"},
	"internal/batchlog":    {"bucket digest durable episode index retry", "the index as objects, and a copy of it on the disk: what commits are is not its matter"},
	"internal/storecopy":   {"bandwidth batchlog bucket datadir digest durable episode index retry s3backend sharedhosts store", "copies a store from one kind of place to the other, with its list of disabled hosts, so it knows both; no protocol"},
	"internal/sharedhosts": {"batchlog bucket datadir durable episode fleet retry wire", "what receivers must agree on about hosts, in a bucket which the store has not left, and the refusal of a report that comes too soon: who acts on it is the receiver's matter"},
	"internal/readback":    {"digest episode", "remembers readings, whoever made them"},
	"internal/refusal":     {"admission wire", "what both backends refuse in the same words: each finds out by itself what there is to refuse"},
	"internal/resumable":   {"episode wire", "which request continues an upload: what has arrived of it is the backend's"},
	"internal/shards":      {"bucket digest retry scrub", "who of several receivers reads what: how archives are read is not its matter"},
	"internal/s3backend":   {"access admission archive batchlog bucket datadir digest durable episode fsck index readback refusal resumable retry scrub shards store wire", "stores what the protocol brings in a bucket: a sibling of diskbackend, from which it takes nothing"},
	"internal/diskbackend": {"access admission archive datadir device digest durable episode fleet index pathwatch readback refusal resumable scrub store wire", "stores what the protocol brings: connections, certificates, metrics and hooks are the server's matter; it tells the operator how long a reading counts on this disk, and when that is full"},

	// The programs wire things up.
	"internal/manual": {"", "describes the commands of any program, as it is given them"},
	"internal/cli":    {"admin config doctor durable logging printable progress serviceuser suggestion systemd terminal", "what both programs have in common, so it knows neither daemon; it tells of the paths in their configurations"},
	"cmd/shipper":     {"admin backlog cli config credentials doctor durable episode hint hostdir invite logging manual metrics notify outbox pki printable progress retry serviceuser shipped shipper snapshot suggestion systemd terminal uplink wire", "the lab host's half"},
	"cmd/receiver":    {"activity admin bandwidth batchlog bucket ca cli config datadir diskbackend doctor durable episode fleet fsck gate hostrecord hosts index invite logging manual metrics notify pki printable progress receiver revocation rotation s3backend scrub serviceuser sharedhosts snapshot statuspage storecopy suggestion systemd terminal wire", "the receiver's half; wire says what the id of a store is"},

	"internal/datadir": {"durable episode printable store wire", "what operators change in the data directory; wire says what the id of a store is"},
	"internal/fsck":    {"archive digest durable episode index printable store", "compares rows with stored archives, so it reads both"},
	"internal/scrub":   {"archive config digest durable episode index retry store", "verifies what is stored, beside a receiver or without one: no protocol, and no uploads"},

	// A whole lab in one test, so it may import everything except the programs.
	"internal/fleettest": {"bucket buckettest config fixture labtest", "several receivers over one object store"},
	"internal/labtest":   {"archive cli config credentials digest durable episode fixture gate index outbox pki receiver shipper source store systemd wire", "both ends meet in tests only"},

	// Test helpers.
	"internal/fixture":     {"", "what any test needs, of no program"},
	"internal/backendtest": {"datadir episode fixture index store wire", "stores through any backend, and looks at what is on the disk, for the tests of diskbackend and receiver"},
	"internal/buckettest":  {"bucket config digest fixture", "object stores for the tests of what keeps objects"},
	"internal/indextest":   {"durable episode fixture index", "rows and indexes for the tests of index and fsck"},
	"internal/pkitest":     {"ca credentials episode fixture gate hostrecord pki rotation serviceuser", "a receiver that asks for certificates, with its hosts, for the tests of the packages that make and check them"},
	"internal/scripttest":  {"cli durable fixture labtest", "runs a program's command, and the other program as it is shipped"},

	// The packages that break the programs import none of them; their tests may.
	"internal/crashtest":           {"", "file systems without power, and other sources for the build"},
	"internal/crashtest/failpoint": {"", "tests of the programs with steps that fail"},
	"internal/crashtest/mutation":  {"", "tests of the tests"},
	"internal/crashtest/soak":      {"", "tests of the programs for as long as one likes"},
	"internal/linktest":            {"", "two machines and a bad way between them"},

	// The benchmarks run the programs as users do.
	"scripts/bench": {"archive digest durable episode index outbox source store", "never shipped; it knows the programs by their command lines and files, as it knows their peers: the packages are for what it measures them against"},
}

// owners says which packages may import modules of others. All packages may import
// golang.org/x/sys and the standard library, except for the rows below.
var owners = map[string]string{
	"github.com/klauspost/compress":     "internal/archive internal/backendtest internal/scripttest",
	"github.com/BurntSushi/toml":        "internal/config",
	"github.com/coreos/go-systemd/v22":  "internal/systemd",
	"github.com/dunglas/httpsfv":        "internal/wire",
	"github.com/spf13/cobra":            "cmd/receiver cmd/shipper internal/cli internal/labtest internal/manual internal/scripttest",
	"github.com/spf13/pflag":            "internal/cli internal/manual", // the flags of cobra are pflag's
	"github.com/dustin/go-humanize":     "cmd/receiver cmd/shipper internal/cli internal/config internal/fleet internal/progress internal/statuspage",
	"golang.org/x/term":                 "internal/cli internal/logging internal/progress internal/terminal",
	"golang.org/x/time":                 "internal/admission internal/bandwidth internal/receiver internal/scrub internal/shipped",
	"github.com/schollz/progressbar/v3": "internal/cli cmd/shipper",

	// The client library that Prometheus documents; receiver counts its requests with it.
	"github.com/prometheus/client_golang": "internal/labtest internal/metrics internal/receiver cmd/receiver",
	"github.com/prometheus/common":        "internal/metrics", // the encoder of client_golang, for a file
	"golang.org/x/net":                    "internal/admin",   // netutil.LimitListener

	"golang.org/x/sync":               "internal/admin internal/cli internal/diskbackend internal/labtest internal/receiver internal/s3backend internal/shipper internal/storecopy",
	"golang.org/x/sys":                "*",
	"github.com/minio/minio-go/v7":    "internal/bucket", // signs requests of S3
	"github.com/google/go-cmp":        "internal/labtest",
	"github.com/rogpeppe/go-internal": "internal/labtest internal/scripttest",
	"net/http":                        "cmd/receiver internal/access internal/admin internal/bucket internal/buckettest internal/gate internal/hint internal/labtest internal/metrics internal/notify internal/pkitest internal/receiver internal/retry internal/statuspage internal/wire scripts/bench", // only wire knows headers and status codes; the bench loads nginx with the same requests
	"testing":                         "internal/backendtest internal/buckettest internal/fixture internal/indextest internal/labtest internal/pkitest internal/scripttest",
}

// testOnly are the packages that no program may import.
var testOnly = map[string]bool{"internal/backendtest": true, "internal/buckettest": true, "internal/labtest": true, "internal/fixture": true, "internal/indextest": true, "internal/pkitest": true, "internal/scripttest": true}

func TestImportsFollowTheTable(t *testing.T) {
	for _, p := range project(t) {
		l, known := importRules[p.dir]
		if !known {
			t.Errorf("%s has no row in importRules: say what it may import, and why", p.dir)
			continue
		}
		if l.why == "" {
			t.Errorf("%s: its row gives no reason", p.dir)
		}
		for _, f := range p.files {
			for _, imported := range f.imports() {
				if why := refusal(p.dir, f.test, imported); why != "" {
					t.Errorf("%s imports %s: %s", f.path, imported, why)
				}
			}
		}
	}
}

// refusal returns why a package may not import another, or "". Tests may import what they need.
func refusal(dir string, test bool, imported string) string {
	if test {
		return ""
	}
	if pkg, own := strings.CutPrefix(imported, module+"/"); own {
		if !slices.Contains(strings.Fields(importRules[dir].may), strings.TrimPrefix(pkg, "internal/")) {
			return "its row in importRules does not have it"
		}
		if testOnly[pkg] && !testOnly[dir] {
			return "it is for tests only"
		}
		return ""
	}
	for owned, by := range owners {
		if imported == owned || strings.HasPrefix(imported, owned+"/") {
			if by == "*" || slices.Contains(strings.Fields(by), dir) {
				return ""
			}
			return "only " + by + " may"
		}
	}
	if domain, _, _ := strings.Cut(imported, "/"); strings.Contains(domain, ".") {
		return "a new dependency needs a row in owners, and a sentence why the program is better with it"
	}
	return ""
}

// The programs run on two machines. The packages of one must not reach those of the other
// indirectly either.
func TestHalvesMeetInWireOnly(t *testing.T) {
	packages := project(t)
	for _, half := range []struct{ from, never string }{
		{"internal/shipper", "store index fsck scrub datadir receiver gate hostrecord ca revocation rotation"},
		{"cmd/shipper", "store index fsck scrub datadir receiver gate hostrecord ca revocation rotation"},

		{"internal/receiver", "source outbox shipper credentials ca revocation rotation"},
		{"internal/diskbackend", "source outbox shipper credentials admin invite metrics notify receiver"}, // the server is above it
		{"cmd/receiver", "source outbox shipper credentials"},
	} {
		reached := map[string]bool{}
		reach(packages, half.from, reached)
		for pkg := range strings.FieldsSeq(half.never) {
			if reached["internal/"+pkg] {
				t.Errorf("%s reaches internal/%s", half.from, pkg)
			}
		}
	}
}

// reach adds to reached the packages of this module that dir imports, directly or indirectly.
func reach(packages map[string]*pkg, dir string, reached map[string]bool) {
	p := packages[dir]
	if p == nil || reached[dir] {
		return
	}
	reached[dir] = true
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, imported := range f.imports() {
			if pkg, own := strings.CutPrefix(imported, module+"/"); own {
				reach(packages, pkg, reached)
			}
		}
	}
}

// A row without its package would make the table misleading.
func TestTableNamesRealPackages(t *testing.T) {
	for dir := range importRules {
		if info, err := os.Stat(filepath.Join("..", dir)); err != nil || !info.IsDir() {
			t.Errorf("importRules has a row for %s, which is no package", dir)
		}
	}
}

func TestPackageCommentIsInItsFile(t *testing.T) {
	for dir, p := range project(t) {
		begins, home := "Package "+p.name+" ", p.name+".go"
		if p.name == "main" {
			name := path.Base(dir)
			begins = strings.ToUpper(name[:1]) + name[1:] + " "
		}
		found := false
		for _, f := range p.files {
			if f.test || f.ast.Doc == nil {
				continue
			}
			base := path.Base(f.path)
			if base != home && base != "doc.go" {
				t.Errorf("%s has a package comment: it belongs into %s", f.path, home)
			}
			if !strings.HasPrefix(f.ast.Doc.Text(), begins) {
				t.Errorf("%s: its package comment does not begin with %q", f.path, begins)
			}
			found = true
		}
		if !found && !p.onlyTests() {
			t.Errorf("%s: %s has no package comment: what it is for, what it promises, and its invariant", dir, home)
		}
	}
}

func TestPackagesAreNamedForWhatTheyProvide(t *testing.T) {
	for dir, p := range project(t) {
		for name := range strings.FieldsSeq("util utils common helper helpers type types model models manager service base impl misc") {
			if p.name == name || slices.Contains(strings.Split(dir, "/"), name) {
				t.Errorf("%s: %s is no name for a package", dir, name)
			}
		}
	}
}

func TestNothingRunsBeforeMain(t *testing.T) {
	for _, p := range project(t) {
		for _, f := range p.files {
			for fn := range f.functions() {
				if fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s has an init function", f.path)
				}
			}
		}
	}
}

func TestFilesAndFunctionsFitAReader(t *testing.T) {
	const file, function = 500, 70
	for _, p := range project(t) {
		for _, f := range p.files {
			if f.test {
				continue
			}
			if n := f.set.File(f.ast.Pos()).LineCount(); n >= file {
				t.Errorf("%s has %d lines: under %d, please; one verb, one file", f.path, n, file)
			}
			for fn := range f.functions() {
				if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > function {
					t.Errorf("%s: %s has %d lines: at most %d, please", f.path, fn.Name.Name, n, function)
				}
			}
		}
	}
}

// With two implementations of locking, or of opening what others can change, one has a hole.
func TestLocksAndOpenat2AreOfPackageDurable(t *testing.T) {
	call := regexp.MustCompile(`\bunix\.(Openat2|Flock|FcntlFlock)\(|\bsyscall\.(Flock|FcntlFlock)\(|\bF_(OFD_)?SETLK`)
	for dir, p := range project(t) {
		for _, f := range p.files {
			if found := call.FindString(f.text); found != "" && !f.test && dir != "internal/durable" {
				t.Errorf("%s has %s: use what package durable has", f.path, found)
			}
		}
	}
}

// Unfinished work is an issue, where people look for it.
func TestNothingIsLeftAsANote(t *testing.T) {
	note := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, p := range project(t) {
		for _, f := range p.files {
			for i, line := range strings.Split(f.text, "\n") {
				if found := note.FindString(line); found != "" {
					t.Errorf("%s:%d: a %s: write it down as an issue", f.path, i+1, found)
				}
			}
		}
	}
}

// The module must build with any Go 1.26, and must not fetch another one.
func TestModuleAsksForGo126(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	fixture.Must(t, err)
	if !regexp.MustCompile(`(?m)^go 1\.26\.0$`).Match(text) {
		t.Error("go.mod: want the line: go 1.26.0")
	}
	if regexp.MustCompile(`(?m)^toolchain `).Match(text) {
		t.Error("go.mod: want no toolchain line")
	}
}

// pkg is one folder of Go files.
type pkg struct {
	dir   string // from the module's root
	name  string // without _test
	files []*file
}

func (p *pkg) onlyTests() bool {
	return !slices.ContainsFunc(p.files, func(f *file) bool { return !f.test })
}

type file struct {
	path string // from the module's root
	test bool
	text string
	set  *token.FileSet
	ast  *ast.File
}

func (f *file) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func (f *file) functions() func(yield func(*ast.FuncDecl) bool) {
	return func(yield func(*ast.FuncDecl) bool) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && !yield(fn) {
				return
			}
		}
	}
}

// project reads all Go files of the module, by directory. It fails if it finds too few, since a
// rule without packages always passes.
func project(t *testing.T) map[string]*pkg {
	t.Helper()
	packages := map[string]*pkg{}
	err := filepath.WalkDir("..", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return enter(name, e)
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		f, err := parse(name)
		if err != nil {
			return err
		}
		dir := path.Dir(f.path)
		if dir == "internal" { // these rules themselves
			return nil
		}
		p := packages[dir]
		if p == nil {
			p = &pkg{dir: dir, name: strings.TrimSuffix(f.ast.Name.Name, "_test")}
			packages[dir] = p
		}
		p.files = append(p.files, f)
		return nil
	})
	fixture.Must(t, err)
	if len(packages) < 10 {
		t.Fatalf("found %d packages only: %v", len(packages), slices.Sorted(maps.Keys(packages)))
	}
	return packages
}

// enter skips the directories that the go command skips.
func enter(name string, e fs.DirEntry) error {
	if name == ".." {
		return nil
	}
	if strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "_") || e.Name() == "testdata" {
		return fs.SkipDir
	}
	return nil
}

func parse(name string) (*file, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	rel := strings.TrimPrefix(filepath.ToSlash(name), "../")
	return &file{rel, strings.HasSuffix(name, "_test.go"), string(text), set, tree}, nil
}
