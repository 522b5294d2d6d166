package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/pathwatch"
	"cis490/internal/serviceuser"
)

// CheckFileSystems reports the file system of each directory, or of the parent in which it will be
// made. A file system that contains several of them is reported once.
func CheckFileSystems(dirs ...string) []Finding {
	var findings []Finding
	var seen []uint64
	for _, path := range dirs {
		m, err := findMount(path)
		switch {
		case err != nil:
			findings = append(findings, Skippedf("file system", "%v", err))
		case !slices.Contains(seen, m.ID):
			seen = append(seen, m.ID)
			findings = append(findings, judgeMount(path, m))
		}
	}
	return findings
}

func findMount(path string) (pathwatch.Mount, error) {
	dir, err := serviceuser.OpenNearest(path)
	if err != nil {
		return pathwatch.Mount{}, err
	}
	defer dir.Close()
	return pathwatch.MountOf(dir)
}

// Kinds of file systems that lose data, or cannot do what the programs need.
var (
	networkFileSystems = []string{"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "afs", "lustre", "beegfs"}
	memoryFileSystems  = []string{"tmpfs", "ramfs"}
	fatFileSystems     = []string{"vfat", "msdos", "exfat", "fat", "ntfs", "ntfs3", "fuseblk"}
)

func judgeMount(path string, m pathwatch.Mount) Finding {
	const check, localDisk = "file system", "use a local disk with ext4 or xfs"
	fact := fmt.Sprintf("%s is on %s (%s at %s, %s)", path, m.Type, m.Source, m.Point, strings.Join(dedupeOptions(m.Options), ","))
	switch {
	case slices.Contains(m.Options, "ro"):
		return Failedf(check, "run 'dmesg' for errors of the disk; if there are none, mount it for writing, or add it to ReadWritePaths= of the unit",
			"%s: read-only", fact)
	case slices.Contains(networkFileSystems, m.Type) || strings.HasPrefix(m.Type, "fuse"):
		return Warningf(check, localDisk, "%s: over a network or in user space, an fsync may not reach a disk", fact)
	case slices.Contains(memoryFileSystems, m.Type):
		return Warningf(check, localDisk, "%s: it is in memory, and lost at the next boot", fact)
	case m.Type == "overlay":
		return Warningf(check, "mount a volume of a local disk there", "%s: it ends with its container", fact)
	case slices.Contains(fatFileSystems, m.Type):
		return Warningf(check, localDisk, "%s: it has no hard links or no durable renames", fact)
	case slices.Contains(m.Options, "nobarrier") || slices.Contains(m.Options, "barrier=0"):
		return Warningf(check, "remove nobarrier from its mount options", "%s: without barriers, a power failure may lose data that was synced", fact)
	}
	return OKf(check, "%s", fact)
}

// dedupeOptions removes repeated options: those of the mount and of the file system overlap.
func dedupeOptions(options []string) []string {
	var once []string
	for _, o := range options {
		if !slices.Contains(once, o) {
			once = append(once, o)
		}
	}
	return once
}

// How [CheckDisk] measures, and how long a write with its fsync may take. An SD card takes 5 to 50 ms, a
// busy disk about 100 ms. A receiver lets a commit wait for longer, but an idle disk that takes seconds
// has a fault.
const (
	syncRounds  = 8
	syncSize    = 4 << 10
	slowSync    = 100 * time.Millisecond
	brokenSync  = 5 * time.Second
	syncTimeout = 60 * time.Second
)

// CheckDisk times writes with an fsync in a directory of the daemon. It creates a file there, and
// removes it: the layout of the directory must allow its name ([durable.IsProbe]). It must be called as
// the daemon's user.
func CheckDisk(ctx context.Context, path string) Finding {
	dir, err := serviceuser.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Skippedf("disk", "%s is missing: the first start makes it", path)
	}
	if err != nil {
		return Skippedf("disk", "%v", err)
	}
	defer dir.Close()
	if err := serviceuser.CheckPrivate(dir); err != nil {
		return Skippedf("disk", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var times []time.Duration
	first, err := dir.MeasureSync(ctx, 1, syncSize) // it wakes a disk that sleeps
	if err == nil {
		times, err = dir.MeasureSync(ctx, syncRounds, syncSize)
	}
	if f, is := CheckCanceled("disk", err); is {
		return f
	}
	f := judgeSync(path, times, err)
	if len(first) == 0 {
		return f
	}
	return judgeWake(f, first[0])
}

// judgeWake adds how long the first write took, if that is long even for a disk that must spin up.
func judgeWake(f Finding, first time.Duration) Finding {
	if f.Verdict == OK && first >= brokenSync {
		f.Verdict, f.Remedy = Warning, "if the disk does not sleep when idle, run 'dmesg' and 'smartctl -a' on it"
		f.Fact += fmt.Sprintf("; the first one took %s", formatTime(first))
	}
	return f
}

func judgeSync(path string, times []time.Duration, err error) Finding {
	const check, examine = "disk", "run 'dmesg' and 'smartctl -a' on the disk"
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Failedf(check, examine, "%s: %d writes with fsync did not end within %v", path, syncRounds, syncTimeout)
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return Failedf(check, "free some space, or raise the quota", "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return Skippedf(check, "%v", err)
	case err != nil || len(times) == 0:
		f := Failedf(check, examine, "%v", err)
		f.Fault = errors.Is(err, durable.ErrFault) || errors.Is(err, unix.EIO)
		return f
	}
	median, longest := times[len(times)/2], times[len(times)-1]
	fact := fmt.Sprintf("a write of 4 KiB with fsync takes %s in %s, at most %s", formatTime(median), path, formatTime(longest))
	switch {
	case longest >= brokenSync:
		return Failedf(check, examine+": a failing disk is slow before it fails", "%s", fact)
	case median >= slowSync:
		return Warningf(check, "use a faster disk, or look for what else writes to it: iostat -x 5", "%s", fact)
	}
	return OKf(check, "%s", fact)
}
