package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// TestDocsNameTestsThatExist: security.md and other pages name the test that shows each claim.
func TestDocsNameTestsThatExist(t *testing.T) {
	defined := map[string]bool{} // by package.Name, and by Name
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
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
		text, err := os.ReadFile(name)
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			defined[string(m[1])] = true
			defined[filepath.Base(filepath.Dir(name))+"."+string(m[1])] = true
		}
		return err
	})
	fixture.Must(t, err)
	pages, err := filepath.Glob("../docs/*.md")
	decisions, derr := filepath.Glob("../docs/decisions/*.md")
	if err != nil || derr != nil || len(pages) == 0 {
		t.Fatal(err, derr, len(pages))
	}
	name := regexp.MustCompile("`((?:\\w+\\.)?(?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	for _, page := range append(pages, decisions...) {
		text, err := os.ReadFile(page)
		fixture.Must(t, err)
		for _, m := range name.FindAllSubmatch(text, -1) {
			if !defined[string(m[1])] {
				t.Errorf("%s names %s, which does not exist", filepath.Base(page), m[1])
			}
		}
	}
}

// triedBy names what follows each section of docs/operations.md: a test, or a function of scripts/system.
var triedBy = map[string]string{
	"What to look at":                   "TestAdviceNamesCommandsThatExist",
	"When something is wrong":           "TestShipperDoctorNamesTheStepThatFails",
	"Monitoring":                        "TestAlertsFireInARealPrometheus",
	"A webhook fails":                   "TestHooksOutlastTheirServer",
	"Exit codes":                        "TestStartErrorsKeepTheirCodes",
	"A storage fault":                   "receiver_stays_down",
	"A host is silent":                  "TestAlertsFireInARealPrometheus",
	"An episode is held":                "TestEpisodeChangedAfterSealingIsHeldUntilAccepted",
	"A name is taken (409)":             "TestOtherBytesUnderTheSameNameAreAConflictAndBothStay",
	"A disk is full":                    "TestHostPacksAgainAfterAPrune",
	"A disk has no free inodes":         "TestHostsContinueOnceTheReceiverHasInodes",
	"The receiver accepts no uploads":   "TestReadyIsRefusedWhenAnUploadWouldBe",
	"The object store does not answer":  "TestDoctorJudgesAnObjectStore",
	"The receiver is slow":              "", // commands of other packages show why
	"The scrub is late":                 "TestScrubShowsProgressAndEndsClean",
	"The end of the index was torn":     "TestTornTailIsCutAndSaved",
	"An archive is corrupt":             "TestStoreIsRepairedFromTheHostsCopy",
	"An archive that cannot be decoded": "TestAnArchiveThatDoesNotDecodeIsFoundAndKept",
	"Retired episodes that are kept":    "TestPruneDeletesOnlyWhatWasReadBack",
	"Certificates and keys":             "reissue_credentials",
	"A certificate expires":             "aged_certificate",
	"Revoke or disable a host":          "disabled_host",
	"Rotate the CAs":                    "cas_rotate",
	"A host was reinstalled":            "installed_again",
	"A clock is wrong":                  "TestPingShowsAWrongClock",
	"Replace the receiver's machine":    "replaced_machine",
	"Move the store to a new disk":      "store_moves",
	"Back up and restore":               "TestRestoredImageIsRefusedUntilAnOperatorDecides",
	"Restore the index":                 "TestTruncatedIndexIsAnotherStoreToItsHosts",
	"Another store":                     "TestStoreThatReplacesAnotherIsFollowed",
	"Directories and mounts":            "store_is_covered",
}

// TestEachSectionOfOperationsIsTried: advice that no test follows becomes wrong.
func TestEachSectionOfOperationsIsTried(t *testing.T) {
	var sources strings.Builder
	for _, pattern := range []string{"*/*_test.go", "../cmd/*/*_test.go", "../scripts/system/*.sh"} {
		for _, file := range glob(t, pattern) {
			sources.WriteString(readFile(t, file))
		}
	}
	sections := regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(readFile(t, "../docs/operations.md"), -1)
	for _, m := range sections {
		name, known := triedBy[m[1]]
		if !known {
			t.Errorf("section %q: add to triedBy what follows it", m[1])
		} else if name != "" && !strings.Contains(sources.String(), "func "+name+"(") && !strings.Contains(sources.String(), "\n"+name+"() {") {
			t.Errorf("section %q: there is no %s", m[1], name)
		}
	}
	if len(sections) != len(triedBy) {
		t.Errorf("%d sections, but %d in triedBy", len(sections), len(triedBy))
	}
}

// TestLinksOfDocsLead: each relative link leads to a file, and to a heading of it.
func TestLinksOfDocsLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)]+)\)`)
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/decisions/*.md"} {
		for _, page := range glob(t, pattern) {
			for _, m := range link.FindAllStringSubmatch(readFile(t, page), -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				file, anchor, _ := strings.Cut(m[1], "#")
				target := filepath.Join(filepath.Dir(page), file)
				if file == "" {
					target = page
				}
				if _, err := os.Stat(target); err != nil || anchor != "" && !hasHeading(t, target, anchor) {
					t.Errorf("%s: nothing is at %s", page, m[1])
				}
			}
		}
	}
}

// hasHeading reports whether a page has a heading with this anchor.
func hasHeading(t *testing.T, page, anchor string) bool {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(codeBlocks.ReplaceAllString(readFile(t, page), ""), -1) {
		kept := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(kept, " ", "-") == anchor {
			return true
		}
	}
	return false
}
