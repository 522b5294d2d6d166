package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/doctor"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/terminal"
)

func TestDoctorsJSONIsDocumented(t *testing.T) {
	for _, s := range []any{doctorReport{}, doctor.Finding{}} {
		fixture.CheckMembers(t, "../../docs/json.md", "doctor", s)
	}
}

// TestFindingFitsATerminal: verdict, check and fact in columns, and below what to do.
func TestFindingFitsATerminal(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", 30))
	for _, c := range []struct {
		f    doctor.Finding
		want string
	}{
		{doctor.OKf("disk", "fast"), "ok       disk           fast\n"},
		{doctor.Skippedf("authorisation", "why"), "skipped  authorisation  why\n"},
		{doctor.Failedf("disk", "run x", "slow"), "FAILED   disk           slow\n         do: run x\n"},
		{doctor.Warningf("disk", long, "%s", long), "warning  disk           word word word"},
	} {
		got := formatFinding(terminal.Painter{}, c.f)
		if !strings.HasPrefix(got, c.want) || c.f.Fact != long && got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		for line := range strings.Lines(got) {
			if len(line) > 81 {
				t.Errorf("%d columns: %q", len(line)-1, line)
			}
		}
		if c.f.Fact == long && (strings.Count(got, "word") != 60 || strings.Count(got, "do: ") != 1) {
			t.Errorf("got %q", got)
		}
	}
}

// newTestDoctor returns a Doctor whose command has a context, and what it prints.
func newTestDoctor(t *testing.T, ctx context.Context, bundle string) (*Doctor, *bytes.Buffer) {
	t.Helper()
	c := &cobra.Command{Use: "shipper"}
	out := &bytes.Buffer{}
	c.SetOut(out)
	c.SetErr(out)
	c.SetContext(ctx)
	d, err := newDoctor(c, DoctorOptions{Bundle: bundle})
	fixture.Must(t, err)
	return d, out
}

// TestDeadMountEndsACheckAndSkipsTheRest of its paths: a system call may block forever.
func TestDeadMountEndsACheckAndSkipsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := newTestDoctor(t, t.Context(), "")
		answer := make(chan struct{})
		hang := func(context.Context) []doctor.Finding { <-answer; return nil }
		began := time.Now()
		d.Check("disk", hang, "/dead")
		if took := time.Since(began); took != checkLimit {
			t.Errorf("took %v, want %v", took, checkLimit)
		}
		d.Check("space", hang, "/live", "/dead")
		d.Check("clock", func(context.Context) []doctor.Finding { return []doctor.Finding{doctor.OKf("clock", "right")} })
		var got []string
		for _, f := range d.Findings {
			got = append(got, f.Check+" "+string(f.Verdict))
		}
		if want := []string{"disk failed", "space skipped", "clock ok"}; !slices.Equal(got, want) || d.Findings[0].Remedy == "" || !strings.HasSuffix(d.Findings[0].Fact, ": /dead") {
			t.Errorf("got %+v, want %q", d.Findings, want)
		}
		close(answer)
	})
}

// TestInterruptEndsABlockedCheck, and leaves no bundle.
func TestInterruptEndsABlockedCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d, _ := newTestDoctor(t, ctx, path)
		answer := make(chan struct{})
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		d.Check("disk", func(context.Context) []doctor.Finding { <-answer; return nil }, "/dead")
		d.Check("clock", func(context.Context) []doctor.Finding { t.Error("it ran"); return nil })
		if took := time.Since(began); took != time.Second+stopLimit {
			t.Errorf("took %v", took)
		}
		if err := d.Close(d.Finish()); ExitCodeOf(err) != Failed {
			t.Errorf("got %v", err)
		}
		if len(d.Findings) != 2 || d.Count(doctor.Skipped) != 2 {
			t.Errorf("got %+v", d.Findings)
		}
		close(answer)
	})
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bundle is left: %v", err)
	}
}

// TestStorageFaultDecidesTheExitCode, as for every other command (invariant 4).
func TestStorageFaultDecidesTheExitCode(t *testing.T) {
	d, _ := newTestDoctor(t, t.Context(), "")
	d.AddError("files", errors.New("missing"), "make it")
	d.AddError("storage", fmt.Errorf("sync: %w", durable.ErrFault), "look at it")
	if err := d.Finish(); ExitCodeOf(err) != StorageFault {
		t.Errorf("got %v", err)
	}
}

// TestStrangerIsNotToldToOpenSecrets: the advice of a permission error is for the daemon's user.
func TestStrangerIsNotToldToOpenSecrets(t *testing.T) {
	denied := fmt.Errorf("%w; /etc/key belongs to root: run chgrp alice /etc/key", &fs.PathError{Op: "open", Path: "/etc/key", Err: fs.ErrPermission})
	d, out := newTestDoctor(t, t.Context(), "")
	d.stranger, d.WasRoot = true, false
	d.addUser(nil)
	k := &CheckReport{Lenient: true}
	k.AddError(denied)
	k.AddNote("/etc/key belongs to cis490: run chown root:alice /etc/key")
	d.AddReport("files", k, "run x")
	fixture.Must(t, d.Finish())
	if d.Findings[0].Verdict != doctor.Warning || d.Count(doctor.Failed) != 0 || d.Count(doctor.Skipped) != 1 || strings.Contains(out.String(), "run ch") || strings.Contains(out.String(), "alice") {
		t.Errorf("got %+v\n%s", d.Findings, out)
	}
}

// TestStrangerDoesNotOwnTheState of the daemon. Without one, before the first start, no user is one.
func TestStrangerDoesNotOwnTheState(t *testing.T) {
	own, err := os.Stat(t.TempDir())
	fixture.Must(t, err)
	if isStranger(own, nil) || isStranger(nil, fs.ErrNotExist) || !isStranger(nil, fs.ErrPermission) {
		t.Error("the owner of the state is a stranger, or who may not read it is none")
	}
	if root, err := os.Stat("/"); err != nil || isStranger(root, nil) != (os.Geteuid() != 0) {
		t.Errorf("the state of root: %v", err)
	}
}
