package labtest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(lockerDirs); path != "" {
		lockAll(filepath.SplitList(path))
		os.Exit(0)
	}
	if calls := os.Getenv(refusedCalls); calls != "" {
		refuseAndExec(calls)
	}
	selectTests()
	labtest.Main(m)
}

// shortTests are the labs that run under -short: each promise once, in seconds.
var shortTests = []string{
	"TestAlreadyPresentMakesSureOfTheRow",
	"TestBadNamesAreReportedAndOthersContinue",
	"TestCheckSeesEachBreachOfCustody",
	"TestCurlCanUpload",
	"TestDaemonShipsAtOnceWhatBecomesFinished",
	"TestEpisodeChangedAfterSealingIsHeldUntilAccepted",
	"TestEveryCommandPrintsJSONOrRefusesIt",
	"TestFinishedEpisodeIsPackedAndShipped",
	"TestHostAdoptsWithItsFirstReceipt",
	"TestHostCannotReachAnothersPath",
	"TestHostileRequestsAreRefusedAndChangeNothing",
	"TestIndexSchemaTakesRowsAndNothingElse",
	"TestLostAnswerIsAlreadyPresentNextTime",
	"TestOtherBytesUnderTheSameNameAreAConflictAndBothStay",
	"TestPartialLeftByACrashIsOverwritten",
	"TestPingSaysWhoWeAreAndCreatesNothing",
	"TestReadersSnippetsAreAllRun",
	"TestReceiverDownLosesNothingAndRecovers",
	"TestReceiverMakesEachStepDurableBeforeTheNext",
	"TestRetireNeedsReceipt",
	"TestRetiredEpisodeIsNotShippedAgain",
	"TestRoundTripThroughSystemZstdAndTar",
	"TestRowIsOfTheOriginalsForm",
	"TestSealOnce",
	"TestShipperMakesEachStepDurableBeforeTheNext",
	"TestShippingTheSameAgainIsAlreadyPresent",
	"TestSelectedTestsExist",
	"TestStagedFileWithTwoLinksGetsItsRowAtStart",
	"TestTornTailIsCutAndSaved",
	"TestUnfinishedEpisodeWaits",
	"TestWrongCertificatesAreRefused",
}

// slowTests are the labs that make lab runs, and go test leaves out: each takes more processor time
// than most. CI runs both.
var slowTests = []string{
	"TestACertificateThatIsStillExpiredIsSaid",
	"TestACertificateThatWasRenewedOnTheDiskIsUsed",
	"TestAFolderThatGetsItsOwnerLaterShips",
	"TestAHostThatHasItsPartOfTheDiskWaits",
	"TestAPassShipsWhatWasFinishedJustNow",
	"TestARenewedCertificateThatTheServiceCannotReadIsSaid",
	"TestAcceptedAsRoot",
	"TestAcceptedEntryIsGoneForGood",
	"TestAlertsFireInARealPrometheus",
	"TestAnIdleShipperNoticesAWrongPort",
	"TestAnIdleShipperNoticesThatItIsShutOut",
	"TestAnIdleShipperSaysWhetherItsReceiverIsThere",
	"TestAnswersOfThePathJudgeNoEpisode",
	"TestAnyTimeShips",
	"TestBehindAProxyAConflictIsHeld",
	"TestBehindAProxyACutUploadIsSentAgain",
	"TestBehindAProxyARevokedHostIsRefused",
	"TestBehindAProxyEpisodesArrive",
	"TestBehindAProxyItsFaultsJudgeNoEpisode",
	"TestBehindAProxyOneHostLeavesTheReceiverToOthers",
	"TestBehindAProxyTheReceiverVerifiesItself",
	"TestBombsAreStoredUnopened",
	"TestByHandAndThenTheService",
	"TestCAsAreRotatedWhileHostsShip",
	"TestCertificateRenewsItself",
	"TestChangedEpisodeIsKeptUnderASecondName",
	"TestCopiesThatBeginWithTheMarkerAreNotTorn",
	"TestDaemonComesBackByItselfAfterTheReceiver",
	"TestDaemonsRunWithoutAReaderOfTheirLog",
	"TestDeadConnectionGivesItsUploadUp",
	"TestDeadReceiverCostsOneProbeNotOneTimeoutAnEpisode",
	"TestDisabledHostIsShutOutInTheMiddleOfItsUpload",
	"TestEmptyStoreTakesNothingOfItsHosts",
	"TestEpisodeThatIsStillWrittenIsNotSealed",
	"TestEpisodeThatNeverSettlesDelaysNoOther",
	"TestEpisodesThatCannotBePackedAreHeldAndOthersShip",
	"TestEveryCommandOfRootLeavesWhatTheDaemonWould",
	"TestEveryLockFileIsItsOwnersUnderAnyUmask",
	"TestEvilEpisodesDelayNoOther",
	"TestExchangedNamesLeadEpisodesUnitNowhere",
	"TestHooksOutlastTheirServer",
	"TestHooksTellWhatHappened",
	"TestHostPacksAgainAfterAPrune",
	"TestHostThatCannotFollowARotationSaysSoSeldom",
	"TestHostWhoseFolderIsAMountStopsNoOther",
	"TestHostileSendersDelayNoOther",
	"TestHostsContinueOnceTheReceiverHasInodes",
	"TestInstallerWritesNothingByNameInTheEpisodesFolder",
	"TestJSONOnATerminalIsBare",
	"TestJoinedHostShipsBehindAProxy",
	"TestJoiningThroughAProxyThatEndsTLSSendsNothing",
	"TestKilledReceiverLosesNothing",
	"TestKilledShipperLosesNothing",
	"TestLargeEpisodeIsSentWhileItIsPacked",
	"TestLargeEpisodesDelayNoOther",
	"TestLastWordsAreWaitedForInBoundedTime",
	"TestLostAnswerToTheLastPieceCostsNoByte",
	"TestManyAnnouncementsCostLittle",
	"TestManyHostsShareFewSlots",
	"TestMarkerMadeBeforeItsWatchIsSeen",
	"TestMetricsSayWhatStatusSays",
	"TestMinFreeRefusesBeforeTheBodyAndRecovers",
	"TestNameTakenInShippedGetsASuffix",
	"TestNoMarkerIsMissed",
	"TestOlderHostAdoptsOnlyAStoreThatKnowsIt",
	"TestOlderReceiverCostsOneLine",
	"TestOptionalSystemCallsAreMadeUpFor",
	"TestPackingContinuesDuringAnOutage",
	"TestPassRenewsTheCertificate",
	"TestPingShowsAWrongClock",
	"TestPromtoolAcceptsRulesAndTheirTests",
	"TestPruneDeletesOnlyWhatWasReadBack",
	"TestPruneJudgesDurablyBeforeItDeletes",
	"TestPruneKeepsWhatWasWrittenAfterShipping",
	"TestReadOnlyIdentityStopsNoShipping",
	"TestReadersOfArchivesNoticeEachCutAndFlip",
	"TestReadersTakeTheLastRowOfEachKey",
	"TestRealRecordingIsDeliveredWhole",
	"TestReceiverRenewsItself",
	"TestReceiverRestoredFromABackupServesWhoJoinedSince",
	"TestRefusalsOfTheReceiverJudgeAsTheirCodesSay",
	"TestRefusedSystemCallEndsTheStart",
	"TestRenewalIsRepeatedAfterAnyCut",
	"TestRenewedCertificateIsTestedBeforeItIsInstalled",
	"TestRestoredImageIsRefusedUntilAnOperatorDecides",
	"TestRetryWorksBesideTheDaemon",
	"TestScrubShowsProgressAndEndsClean",
	"TestShipperContinuesWhenItsLogIsNotRead",
	"TestShipperFollowsTheNameOfItsFolder",
	"TestShippersFoldersMustBeOnOneMount",
	"TestSlowPieceDoesNotSit",
	"TestStalledUploadDoesNotSit",
	"TestStartSyncsTheParentsOfFoldersThatAKilledProcessMade",
	"TestStatusPageBehindAProxy",
	"TestStatusSaysThatTheReceiverIsAway",
	"TestStoreIsNamedBehindAProxy",
	"TestStoreThatReplacesAnotherIsFollowed",
	"TestSwapsUnderTheShipperNeverLeadOutside",
	"TestTerminatedReceiverEndsInTimeAndLosesNothing",
	"TestTmpfilesLeadTheServiceUserNowhere",
	"TestTruncatedIndexIsAnotherStoreToItsHosts",
	"TestUploadCutAnywhereLosesNothing",
	"TestUploadOutlivesARotation",
	"TestUploadOutlivesEitherProgram",
	"TestUploadSurvivesAnyNumberOfCuts",
	"TestVerifyRemembersWhatItCompared",
	"TestWhatWaitsGoesTogetherWhenAnOutageEnds",
}

var slow = flag.Bool("slow", false, "run the slow labs, and no others")

// selectTests applies [shortTests] and [slowTests], unless -run selects tests.
func selectTests() {
	flag.Parse()
	switch {
	case flag.Lookup("test.run").Value.String() != "":
	case testing.Short():
		flag.Set("test.run", anyOf(shortTests))
	case *slow:
		flag.Set("test.run", anyOf(slowTests))
	default:
		flag.Set("test.skip", anyOf(slowTests))
	}
}

// anyOf returns the pattern that matches these tests alone.
func anyOf(tests []string) string { return "^(" + strings.Join(tests, "|") + ")$" }

// TestSelectedTestsExist guards the lists against a test that was renamed.
func TestSelectedTestsExist(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	fixture.Must(t, err)
	var source strings.Builder
	for _, f := range files {
		source.WriteString(fixture.ReadFile(t, f))
	}
	for _, name := range slices.Concat(shortTests, slowTests) {
		if !strings.Contains(source.String(), "\nfunc "+name+"(t *testing.T)") {
			t.Errorf("no test is named %s", name)
		}
	}
}

// newLab returns a lab with one host, lab-01.
func newLab(t *testing.T, options ...labtest.Option) (*labtest.Lab, *labtest.Host) {
	t.Helper()
	l := labtest.New(t, options...)
	return l, l.Host("lab-01")
}

// putArchive sends any bytes in a PUT, and returns status and body of the answer.
func putArchive(t *testing.T, l *labtest.Lab, c *http.Client, path string, body []byte) (int, string) {
	t.Helper()
	sum := sha256.Sum256(body)
	req, err := http.NewRequest(http.MethodPut, l.URL(path), bytes.NewReader(body))
	fixture.Must(t, err)
	req.Header.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	resp, err := c.Do(req)
	fixture.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fixture.Must(t, err)
	return resp.StatusCode, string(text)
}

// copyTree copies a directory with all its times.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// readHold returns why an episode is held.
func readHold(t *testing.T, h *labtest.Host, name string) (reason, cause string) {
	t.Helper()
	var held struct{ Reason, Cause string }
	fixture.Must(t, json.Unmarshal([]byte(fixture.ReadFile(t, h.Outbox(name+".held"))), &held))
	return held.Reason, held.Cause
}

// wantNoHolds checks that no episode of a host is held.
func wantNoHolds(t *testing.T, h *labtest.Host) {
	t.Helper()
	held, err := filepath.Glob(h.Outbox("*.held"))
	if err != nil || len(held) > 0 {
		t.Errorf("held: %q (%v)", held, err)
	}
}

// writeTokens writes a file that requires a token of lab-01, and configures it.
func writeTokens(t *testing.T, l *labtest.Lab, token string) {
	t.Helper()
	fixture.WriteFile(t, l.Path("tokens"), fmt.Sprintf("lab-01 %x\n", sha256.Sum256([]byte(token))))
}

func mustContain(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not say %q: %s", what, part, text)
		}
	}
}

// hexOf converts a base64 digest to hex.
func hexOf(field string) string {
	b, _ := base64.StdEncoding.DecodeString(field)
	return fmt.Sprintf("%x", b)
}

// packByHand makes an archive <name>.tar.zst in the lab's folder with the system's
// tools.
func packByHand(t *testing.T, h *labtest.Host, name string) {
	t.Helper()
	dir := h.Draft(name)
	runShell(t, `tar -C "$1" -cf - "$2" | zstd -q -o "$3"`, filepath.Dir(dir), name, filepath.Join(filepath.Dir(h.Dir), name+".tar.zst"))
}

// runShell runs a script and returns its output.
func runShell(t *testing.T, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "test"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", script, err, out, stderr.String())
	}
	return string(out)
}
