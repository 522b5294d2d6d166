package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"cis490/internal/doctor"
	"cis490/internal/serviceuser"
)

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
