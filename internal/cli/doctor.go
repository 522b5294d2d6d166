package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/config"
	"cis490/internal/doctor"
	"cis490/internal/progress"
	"cis490/internal/serviceuser"
	"cis490/internal/terminal"
)

// Doctor runs the checks of a doctor command, prints each finding as it comes, and makes the bundle.
// The caller must call [Doctor.Finish] at the end, and [Doctor.Close] in any case.
type Doctor struct {
	doctor.Report
	Unit    doctor.Unit // of the program
	WasRoot bool        // root started the command

	c       *cobra.Command
	options DoctorOptions
	out     io.Writer
	text    bytes.Buffer // what an operator reads, for the bundle
	display *progress.Display
	running atomic.Pointer[string] // what is being checked
	bundle  *doctor.Bundle         // nil unless one was requested
	err     error                  // of stdout

	unresponsive []string // paths for which the kernel does not answer
	stranger     bool     // the command was started by neither root nor the daemon's user
}

// newDoctor is [NewDoctor] without signals and units.
func newDoctor(c *cobra.Command, o DoctorOptions) (*Doctor, error) {
	d := &Doctor{WasRoot: os.Geteuid() == 0, c: c, options: o, display: NewDisplay(c)}
	d.out = d.display.Above(c.OutOrStdout())
	if o.Bundle != "" {
		bundle, err := doctor.CreateBundle(o.Bundle, c.Root().Name()+"-doctor")
		if err != nil {
			return nil, UsageError(err)
		}
		d.bundle = bundle
	}
	paint := terminal.NewPainter(c.OutOrStdout())
	d.Added = func(f doctor.Finding) {
		d.text.WriteString(formatFinding(terminal.Painter{}, f))
		if !o.JSON {
			d.writeText(formatFinding(paint, f))
		}
	}
	start := "configuration"
	d.running.Store(&start)
	d.display.Start(func() progress.Status { return progress.Status{What: "checking " + *d.running.Load()} })
	return d, nil
}

// writeText writes to stdout, and keeps the first error.
func (d *Doctor) writeText(text string) {
	if _, err := io.WriteString(d.out, text); d.err == nil {
		d.err = err
	}
}

// Check runs a check of paths, if it has any, and adds what it found. See [Doctor.Guard].
func (d *Doctor) Check(name string, check func(ctx context.Context) []doctor.Finding, paths ...string) {
	var found []doctor.Finding
	if d.Guard(name, func(ctx context.Context) { found = check(ctx) }, paths...) {
		d.Add(found...)
	}
}

// CheckOne is [Doctor.Check] for a check that returns one finding.
func (d *Doctor) CheckOne(name string, check func(ctx context.Context) doctor.Finding, paths ...string) {
	d.Check(name, func(ctx context.Context) []doctor.Finding { return []doctor.Finding{check(ctx)} }, paths...)
}

// How long [Doctor.Guard] waits. Every check that can end does so before.
const (
	checkLimit = 90 * time.Second
	stopLimit  = 2 * time.Second // after ^C
)

// Guard calls run, which accesses paths, and reports whether it has returned. A dead network mount or
// disk may block it forever, in a system call that nothing can interrupt. So it runs in a separate
// goroutine: after a limit, Guard adds that the check failed, and from then on skips checks of the same
// paths. Unless Guard reports true, run may still be running, and what it writes must not be read. After
// ^C nothing is run.
func (d *Doctor) Guard(name string, run func(ctx context.Context), paths ...string) bool {
	d.running.Store(&name)
	ctx := d.c.Context()
	if ctx.Err() != nil {
		d.Skip(name, "interrupted")
		return false
	}
	if i := slices.IndexFunc(paths, func(path string) bool { return slices.Contains(d.unresponsive, path) }); i >= 0 {
		d.Skip(name, "the kernel does not answer for %s, see above", paths[i])
		return false
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	limit := time.NewTimer(checkLimit)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		limit.Reset(stopLimit)
		select {
		case <-done:
			return true
		case <-limit.C:
		}
		d.Skip(name, "interrupted")
	case <-limit.C:
		d.Add(doctor.Failedf(name, "run 'dmesg' for errors of the disk; if it is a network mount, see whether its server runs, or unmount it with 'umount -f -l'",
			"%s", strings.TrimSuffix(fmt.Sprintf("the kernel did not answer within %v: %s", checkLimit, strings.Join(paths, ", ")), ": ")))
	}
	d.unresponsive = append(d.unresponsive, paths...)
	return false
}

// sudoRemedy replaces advice for a user who is not the daemon's, which would open secrets to that user.
const sudoRemedy = "run it with sudo: it then examines as the daemon's user"

// FromError is [doctor.FromError], except that it explains a permission error. For a user who is neither
// root nor the daemon's, such an error skips the check.
func (d *Doctor) FromError(check string, err error, remedy string) doctor.Finding {
	if d.stranger && errors.Is(err, fs.ErrPermission) {
		fact, _ := doctor.SplitAdvice(err.Error())
		return doctor.Skippedf(check, "%s", fact)
	}
	return doctor.FromError(check, serviceuser.Explain(err, CheckLine(d.c)), remedy)
}

// CheckNetwork is [Doctor.CheckOne] for a check of the network.
func (d *Doctor) CheckNetwork(name string, check func(ctx context.Context) doctor.Finding) {
	d.CheckOne(name, func(ctx context.Context) doctor.Finding {
		f := check(ctx)
		f.Network = true
		return f
	})
}

// AddReport adds the errors and notes of a [CheckReport] and, unless it has errors, a finding for each
// fact. The remedy is for errors and notes that do not say what to do.
func (d *Doctor) AddReport(check string, k *CheckReport, remedy string, facts ...string) {
	for _, err := range k.errs {
		d.AddError(check, err, remedy)
	}
	for _, note := range k.Notes {
		f := doctor.FromNote(check, note, remedy)
		if d.stranger {
			f.Remedy = sudoRemedy
		}
		d.Add(f)
	}
	if len(k.errs) > 0 {
		return
	}
	for _, fact := range facts {
		d.Add(doctor.OKf(check, "%s", fact))
	}
}

// AddError adds an error. See [Doctor.AddReport].
func (d *Doctor) AddError(check string, err error, remedy string) {
	for _, e := range splitErrors(err) {
		d.Add(d.FromError(check, e, remedy))
	}
}

// AddConfig adds the configuration, and what is odd about it: sizes without a unit, and paths that a
// shell would expand.
func (d *Doctor) AddConfig(fact string, sizes error, literal []config.Path) {
	k := &CheckReport{Lenient: true}
	k.AddWarning(sizes)
	for _, path := range literal {
		k.AddNote(fmt.Sprintf("%+q is taken literally: write the whole path, because nothing expands ~ and $ here", string(path)))
	}
	d.AddReport("configuration", k, "change the configuration file", fact)
}

// AddSpace adds the free space and the free inodes, or what is wrong with them.
func (d *Doctor) AddSpace(s *Space, spaceErr, inodesErr error) {
	add := func(check, fact string, err error) {
		if err != nil {
			d.AddError(check, err, "delete files, or move the directory to a larger disk")
			return
		}
		d.Add(doctor.OKf(check, "%s", fact))
	}
	add("space", s.SpaceText(), spaceErr)
	if s.FreeInodes == nil {
		d.Skip("inodes", "the file system does not limit them")
		return
	}
	add("inodes", s.InodesText(), inodesErr)
}

// CheckFileSystems reports the file systems of directories, and whether the daemon can work there.
func (d *Doctor) CheckFileSystems(dirs ...string) {
	d.Check("file system", func(context.Context) []doctor.Finding { return doctor.CheckFileSystems(dirs...) }, dirs...)
	var untried []string
	var err error
	if !d.Guard("file system", func(context.Context) { untried, err = ProbeDisks(dirs...) }, dirs...) {
		return
	}
	for _, text := range untried {
		d.Skip("file system", "%s", text)
	}
	d.AddError("file system", err, "use a local disk with ext4 or xfs")
}

// doctorReport is what --json prints.
type doctorReport struct {
	OK       bool             `json:"ok"` // nothing has failed
	Version  string           `json:"version"`
	Findings []doctor.Finding `json:"findings"`
}

// Finish prints the summary or the JSON, completes the bundle, and returns the error with the exit
// code of the command.
func (d *Doctor) Finish() error {
	d.display.Stop()
	failed, onlyNetwork := d.OnlyNetworkFailed()
	report := doctorReport{OK: !failed, Version: Version(), Findings: d.Findings}
	summary := "\n" + d.Summary() + "\n"
	if d.options.JSON {
		d.err = WriteJSON(d.out, report)
	} else {
		d.writeText(summary)
	}
	err := errors.Join(d.err, d.finishBundle(report, d.text.String()+summary))
	switch {
	case d.HasFault():
		return errors.Join(err, &ExitError{Code: StorageFault})
	case onlyNetwork:
		return errors.Join(err, &ExitError{Code: Unreachable})
	case failed, d.c.Context().Err() != nil:
		return errors.Join(err, &ExitError{Code: Failed})
	}
	return err
}

func (d *Doctor) finishBundle(report doctorReport, text string) error {
	if d.bundle == nil || d.c.Context().Err() != nil { // Close discards it
		return nil
	}
	d.bundle.Add("doctor.txt", []byte(text))
	d.bundle.AddJSON("doctor.json", report)
	d.bundle.Add("version.txt", []byte(d.c.Root().Name()+" "+Version()+"\n"))
	d.bundle.AddMachine()
	if err := d.bundle.Close(); err != nil {
		return err
	}
	Note(d.c, "wrote %s: it has no key and no token; read it before you pass it on", d.options.Bundle)
	return nil
}

// Close removes a bundle that is not complete, and the progress display. It returns err, joined with what
// failed.
func (d *Doctor) Close(err error) error {
	d.display.Stop()
	if d.bundle == nil {
		return err
	}
	return errors.Join(err, d.bundle.Discard())
}

// Columns of a finding.
const (
	verdictColumn = len("skipped") + 2
	checkColumn   = len("configuration") + 2
)

var verdictColors = map[doctor.Verdict]terminal.Color{
	doctor.OK: terminal.Good, doctor.Warning: terminal.Fair, doctor.Failed: terminal.Bad, doctor.Skipped: terminal.Faint,
}

// formatFinding returns the lines of a finding: verdict, check and fact, and below them what to do.
func formatFinding(paint terminal.Painter, f doctor.Finding) string {
	var b strings.Builder
	word := string(f.Verdict)
	if f.Verdict == doctor.Failed {
		word = strings.ToUpper(word)
	}
	head := paint.Paint(word, verdictColors[f.Verdict]) + strings.Repeat(" ", verdictColumn-len(word)) + fmt.Sprintf("%-*s", checkColumn, f.Check)
	for _, line := range WrapLine(f.Fact, tableWidth-verdictColumn-checkColumn) {
		b.WriteString(strings.TrimRight(head+line, " ") + "\n")
		head = strings.Repeat(" ", verdictColumn+checkColumn)
	}
	const mark = "do: "
	lead := mark
	for _, line := range WrapLine(f.Remedy, tableWidth-verdictColumn-len(mark)) {
		if line != "" {
			b.WriteString(strings.Repeat(" ", verdictColumn) + lead + line + "\n")
		}
		lead = strings.Repeat(" ", len(mark))
	}
	return b.String()
}

// DoctorOptions are the flags of a doctor command, and the program that it examines.
type DoctorOptions struct {
	JSON   bool
	Bundle string // the file to create; empty: none

	Config        string // the configuration file
	DefaultConfig string // the one that a unit without --config uses
	Units         doctor.UnitNames
}

// NewDoctor returns a Doctor for a command, and finds the unit of the program. It creates the bundle, with
// the configuration and the unit: root must do so before it becomes the service user.
func NewDoctor(c *cobra.Command, o DoctorOptions) (*Doctor, error) {
	// The first ^C ends the check that runs, and the report; the second one ends the process.
	context.AfterFunc(c.Context(), func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
	if o.Bundle != "" {
		signal.Ignore(syscall.SIGPIPE) // of stdout: it would leave half a bundle
	}
	d, err := newDoctor(c, o)
	if err != nil {
		return nil, err
	}
	d.Unit = doctor.FindUnit(c.Context(), o.Units, o.Config, o.DefaultConfig)
	if d.bundle != nil {
		d.bundle.AddConfig(o.Config)
		d.bundle.AddUnit(c.Context(), d.Unit)
	}
	return d, nil
}

// BecomeServiceUser gives up root for the service user, and adds who that is. The directories are those of
// the daemon, that of its state first. If the kernel does not answer for them, the command stays what it
// is: [serviceuser.Become] waits for all threads.
func (d *Doctor) BecomeServiceUser(s serviceuser.State, dirs ...string) error {
	if !d.reachDirs(dirs) {
		return nil
	}
	_, notes, err := serviceuser.Become(s)
	if err != nil {
		return err
	}
	d.addUser(notes)
	return nil
}

// reachDirs accesses the directories of the daemon, and reports whether the kernel answers for them. A user
// who does not own the first one cannot examine much.
func (d *Doctor) reachDirs(dirs []string) bool {
	stranger := false
	reached := d.Guard("folders", func(context.Context) {
		for i, dir := range dirs {
			info, err := os.Stat(dir)
			if i == 0 && !d.WasRoot {
				stranger = isStranger(info, err)
			}
			if f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0); err == nil {
				_, _ = f.Readdirnames(1) // only whether it returns matters
				f.Close()
			}
		}
	}, dirs...)
	if reached {
		d.stranger = stranger
	}
	return reached
}

func isStranger(info fs.FileInfo, err error) bool {
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	st, is := info.Sys().(*syscall.Stat_t)
	return is && int(st.Uid) != os.Geteuid()
}

// addUser adds the user of the process, and what went wrong when root handed over its files.
func (d *Doctor) addUser(notes error) {
	f := doctor.CheckUser(d.WasRoot)
	if d.stranger {
		f.Verdict, f.Remedy = doctor.Warning, sudoRemedy
		f.Fact += ", who is not the user of the daemon"
	}
	d.Add(f)
	if notes != nil {
		d.Add(doctor.FromNote("user", notes.Error(), "run '"+CheckLine(d.c)+"' as root"))
	}
}

// NewReport returns a report for [Doctor.AddReport]: faults with which a daemon starts are notes.
func (d *Doctor) NewReport() *CheckReport { return &CheckReport{Lenient: true, WasRoot: d.WasRoot} }

// CheckFolders adds what examine finds wrong with directories or, if nothing is, their owners and modes.
func (d *Doctor) CheckFolders(examine func(*CheckReport), dirs ...string) {
	k := d.NewReport()
	if !d.Guard("folders", func(context.Context) { examine(k) }, dirs...) {
		return
	}
	var facts []string
	for _, f := range k.Folders {
		facts = append(facts, f.Path+" "+f.String())
	}
	d.AddReport("folders", k, "change "+d.options.Config+", or the owner of the directory", facts...)
}

// BundleStatus adds the status of the daemon to the bundle, if one was requested. It must be called as the
// service user.
func (d *Doctor) BundleStatus(inspect func() (any, error), dirs ...string) {
	if d.bundle == nil {
		return
	}
	var status any
	var err error
	switch {
	case !d.Guard("status", func(context.Context) { status, err = inspect() }, dirs...):
	case err != nil:
		d.bundle.AddError("status.json", err)
	default:
		d.bundle.AddJSON("status.json", status)
	}
}
