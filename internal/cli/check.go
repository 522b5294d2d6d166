package cli

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"cis490/internal/admin"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/printable"
	"cis490/internal/serviceuser"
)

// CheckReport collects the findings of a check that both daemons share.
type CheckReport struct {
	Folders []serviceuser.Folder `json:"folders"`
	Secrets []serviceuser.Secret `json:"secrets"`
	Space   *Space               `json:"space,omitempty"`
	Notes   []string             `json:"notes,omitempty"`
	// AdminListen is where metrics are served. It is empty if they are not.
	AdminListen string `json:"admin_listen,omitempty"`

	// Lenient makes notes of faults with which a daemon starts.
	Lenient bool `json:"-"`
	// WasRoot says that root ran the check, which has become the service user.
	WasRoot bool `json:"-"`

	errs []error
}

// Space is the free space where a daemon writes, and its minimum free space.
type Space struct {
	Unknown       bool   `json:"unknown,omitempty"` // the file system does not state its size
	FreeBytes     int64  `json:"free_bytes"`
	MinFree       int64  `json:"min_free"`
	FreeInodes    *int64 `json:"free_inodes,omitempty"` // nil if the file system has no limit
	MinFreeInodes int64  `json:"min_free_inodes"`
}

// AddNote adds a note, unless it is empty.
func (k *CheckReport) AddNote(text string) {
	if text != "" {
		k.Notes = append(k.Notes, text)
	}
}

// AddError adds an error, unless it is nil or a repetition: a missing file is found more than once.
func (k *CheckReport) AddError(err error) {
	for _, e := range splitErrors(err) {
		if !slices.ContainsFunc(k.errs, func(said error) bool { return said.Error() == e.Error() }) {
			k.errs = append(k.errs, e)
		}
	}
}

// HasErrors reports whether there are errors.
func (k *CheckReport) HasErrors() bool { return len(k.errs) > 0 }

// AddWarning adds faults with which a daemon starts: as a misuse or, with Lenient, as notes.
func (k *CheckReport) AddWarning(err error) {
	for _, e := range splitErrors(err) {
		if k.Lenient {
			k.AddNote(e.Error())
		} else {
			k.AddError(UsageError(e))
		}
	}
}

// ExamineAdmin records where metrics are served, and tries that address unless a daemon may be running.
func (k *CheckReport) ExamineAdmin(c admin.Config, mayRun bool) {
	k.AdminListen = c.Listen.String()
	k.NoteParent("admin.listen", c.SocketPath())
	if mayRun {
		return
	}
	note, err := c.Probe()
	k.AddNote(note)
	k.AddError(AdminError(err))
}

// MetricsRow returns the row of a table with the address of the metrics.
func (k *CheckReport) MetricsRow() TableRow {
	return TableRow{Name: "metrics", Lines: []string{cmp.Or(printable.Text(k.AdminListen), "not served")}}
}

// AdminError gives an error of the admin listener its exit code.
func AdminError(err error) error {
	if errors.Is(err, syscall.EACCES) {
		return UsageError(err)
	}
	return err
}

// Finish prints the notes to stderr and returns all errors.
func (k *CheckReport) Finish(c *cobra.Command) error {
	for _, note := range k.Notes {
		Note(c, "%s", note)
	}
	return errors.Join(k.errs...)
}

// ExamineFolders reports whether the user of this process can work in the directories, or create
// them. It must be called after [BecomeServiceUser].
func (k *CheckReport) ExamineFolders(paths ...string) (usable bool) {
	usable = true
	for _, path := range paths {
		f, err := serviceuser.ExamineFolder(path, k.WasRoot)
		k.Folders = append(k.Folders, f)
		k.AddNote(f.Note)
		if err != nil {
			k.AddError(UsageError(StartError(err)))
			usable = false
		}
	}
	return usable
}

// NoteParent notes that the directory of a key's file is missing, or cannot be entered by the
// user of this process. A unit or systemd-tmpfiles may create it before a start.
func (k *CheckReport) NoteParent(key, file string) {
	if file == "" {
		return
	}
	dir := filepath.Dir(file)
	f, err := serviceuser.ExamineFolder(dir, false)
	if err != nil {
		k.AddNote(fmt.Sprintf("%s cannot be made: %v", key, err))
	} else if !f.Exists {
		k.AddNote(fmt.Sprintf("%s cannot be made: %s is missing, and no start makes it (see systemd-tmpfiles, or RuntimeDirectory= of the unit)", key, dir))
	}
}

// CheckMove returns a [*durable.SeparateError] if nothing can be moved between two directories, or
// between their nearest existing parents. It changes nothing.
func CheckMove(from, to string) error {
	a, err := serviceuser.OpenNearest(from)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := serviceuser.OpenNearest(to)
	if err != nil {
		return err
	}
	defer b.Close()
	return a.CheckMove(b)
}

// ExamineSecrets checks modes and owners of files that only the daemon and root should read. It
// must be called after [BecomeServiceUser].
func (k *CheckReport) ExamineSecrets(paths ...string) {
	for _, path := range paths {
		s, err := serviceuser.ExamineSecret(path)
		if s.Path != "" {
			k.Secrets = append(k.Secrets, s)
		}
		k.AddNote(s.Note)
		if errors.Is(err, serviceuser.ErrExposed) {
			k.AddWarning(err)
		}
		// Missing and unreadable files are reported elsewhere.
	}
}

// FreeAt returns the free space of the file system that a directory is on, or will be on.
func FreeAt(path string) (durable.Free, error) {
	dir, err := serviceuser.OpenNearest(path)
	if err != nil {
		return durable.Free{}, err
	}
	defer dir.Close()
	return dir.FreeSpace()
}

// WarnAtStart logs faults of a configuration with which a daemon starts: sizes without a unit,
// secrets that others can read, and a disk that does not state its size.
func WarnAtStart(log *slog.Logger, sizes error, disk string, secrets ...string) {
	for _, e := range splitErrors(sizes) {
		log.Warn("size has no unit", "err", e)
	}
	for _, path := range secrets {
		if s, err := serviceuser.ExamineSecret(path); errors.Is(err, serviceuser.ErrExposed) {
			log.Warn("secret readable by everyone", "err", err)
		} else if s.Note != "" {
			log.Warn("secret has a wide mode", "file", path, "hint", s.Note)
		}
	}
	if free, err := FreeAt(disk); err == nil && free.IsUnknown() {
		log.Warn("free space is not known", "dir", disk, "hint", "its file system reports a size of 0: min_free has no effect")
	}
}

// FolderRow returns the row of a directory.
func FolderRow(name string, f serviceuser.Folder) TableRow {
	return TableRow{name, []string{f.Path, f.String()}}
}

// FileRow returns the row of the files that a start reads, with owner and mode of the secret ones.
func (k *CheckReport) FileRow(user string, files []string) TableRow {
	lines := []string{"readable for " + user + ":"}
	for _, path := range files {
		for _, s := range k.Secrets {
			if s.Path == path {
				path += fmt.Sprintf(" (%s, mode %s)", s.Owner, s.Mode)
				break
			}
		}
		lines = append(lines, path)
	}
	return TableRow{"files", lines}
}

// SpaceText describes the free space.
func (s Space) SpaceText() string {
	if s.Unknown {
		return "not known: the file system does not say how much is free"
	}
	return fmt.Sprintf("%s free, %s kept free", config.Bytes(s.FreeBytes), config.Bytes(s.MinFree))
}

// InodesText describes the free inodes. FreeInodes must not be nil.
func (s Space) InodesText() string {
	return fmt.Sprintf("%d free, %d kept free", *s.FreeInodes, s.MinFreeInodes)
}

// SpaceRows returns the rows of the free space.
func (k *CheckReport) SpaceRows() []TableRow {
	s := cmp.Or(k.Space, &Space{Unknown: true})
	rows := []TableRow{{"space", []string{s.SpaceText()}}}
	if !s.Unknown && s.FreeInodes != nil {
		rows = append(rows, TableRow{"inodes", []string{s.InodesText()}})
	}
	return rows
}
