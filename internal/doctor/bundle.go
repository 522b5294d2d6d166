package doctor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/printable"
	"cis490/internal/systemd"
)

// Limits of a bundle.
const (
	maxMember    = 1 << 20 // bytes
	journalLines = 500
)

// Bundle is a tar.gz file for a bug report. Its methods are not safe for concurrent use. It must end
// with [Bundle.Close] or [Bundle.Discard].
type Bundle struct {
	path, dir string
	f         *os.File
	gz        *gzip.Writer
	tar       *tar.Writer
	err       error // the first one
	closed    bool
}

// CreateBundle creates the file, which only its user can read. It must not exist, unless it is the empty
// file that an earlier bundle of this user has left. All members are in directory dir.
func CreateBundle(path, dir string) (*Bundle, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = openLeftover(path)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists, and is not overwritten: name another file", path)
	}
	if err != nil {
		return nil, err
	}
	gz := gzip.NewWriter(f)
	return &Bundle{path: path, dir: dir, f: f, gz: gz, tar: tar.NewWriter(gz)}, nil
}

// openLeftover opens the empty file that [Bundle.Discard] leaves if it cannot remove it. For any other file
// it returns [fs.ErrExist].
func openLeftover(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fs.ErrExist
	}
	info, err := f.Stat()
	if err == nil && info.Mode() == 0o600 && info.Size() == 0 {
		if st, is := info.Sys().(*syscall.Stat_t); is && int(st.Uid) == os.Geteuid() && st.Nlink == 1 {
			return f, nil
		}
	}
	return nil, errors.Join(fs.ErrExist, f.Close())
}

// Add adds at most 1 MiB of a text, without what may be a secret.
func (b *Bundle) Add(name string, text []byte) {
	b.write(name, []byte(Redact(string(text[:min(len(text), maxMember+1)]))))
}

// AddJSON adds a value as JSON, without what may be a secret in its strings.
func (b *Bundle) AddJSON(name string, v any) {
	raw, err := json.Marshal(v)
	var decoded any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // or a large one would lose digits
	if err == nil {
		err = d.Decode(&decoded)
	}
	if err != nil {
		b.write(name, []byte(err.Error()))
		return
	}
	text, err := json.MarshalIndent(redactValue(decoded), "", "  ")
	if err != nil {
		text = []byte(err.Error())
	}
	b.write(name, []byte(printable.JSON(string(text))+"\n"))
}

// escapeLines is [printable.Text], except that it keeps line breaks and tabs. Mounts, configuration and
// journal may contain escape sequences for terminals.
func escapeLines(text []byte) []byte {
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		body, ended := strings.CutSuffix(line, "\n")
		for i, cell := range strings.Split(body, "\t") {
			if i > 0 {
				lines.WriteByte('\t')
			}
			lines.WriteString(printable.Text(cell))
		}
		if ended {
			lines.WriteByte('\n')
		}
	}
	return []byte(lines.String())
}

// AddError adds a member that says why its content is missing.
func (b *Bundle) AddError(name string, err error) { b.Add(name, []byte(err.Error()+"\n")) }

func (b *Bundle) write(name string, text []byte) {
	text = escapeLines(text)
	if len(text) > maxMember {
		text = append(text[:maxMember:maxMember], "\n[the rest was cut off]\n"...)
	}
	header := &tar.Header{Name: b.dir + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now(), Format: tar.FormatPAX}
	if b.err == nil {
		b.err = b.tar.WriteHeader(header)
	}
	if b.err == nil {
		_, b.err = b.tar.Write(text)
	}
}

// AddConfig adds a configuration file.
func (b *Bundle) AddConfig(path string) { b.addFile("config.toml", path) }

// AddMachine adds what the kernel reports about this machine.
func (b *Bundle) AddMachine() {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		b.AddError("uname.txt", err)
	} else {
		text := func(f [65]byte) string { return unix.ByteSliceToString(f[:]) }
		b.Add("uname.txt", fmt.Appendf(nil, "%s %s %s %s\n", text(name.Sysname), text(name.Release), text(name.Version), text(name.Machine)))
	}
	b.addFile("mountinfo.txt", "/proc/self/mountinfo")
	b.addInterfaces()
}

// addFile adds a file that contains no secrets, or only those that [Redact] removes.
func (b *Bundle) addFile(name, path string) {
	f, err := os.Open(path)
	if err != nil {
		b.AddError(name, err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMember+1))
	if err != nil {
		b.AddError(name, err)
		return
	}
	b.Add(name, text)
}

func (b *Bundle) addInterfaces() {
	all, err := net.Interfaces()
	if err != nil {
		b.AddError("interfaces.txt", err)
		return
	}
	var text strings.Builder
	for _, i := range all {
		kind := ""
		if isWireGuard(i.Name) {
			kind = " wireguard"
		}
		fmt.Fprintf(&text, "%s mtu %d%s %s", i.Name, i.MTU, kind, i.Flags)
		if addrs, err := i.Addrs(); err == nil {
			for _, a := range addrs {
				text.WriteString(" " + a.String())
			}
		}
		text.WriteString("\n")
	}
	b.Add("interfaces.txt", []byte(text.String()))
}

// AddUnit adds the state of a service, and the end of its journal. It runs a program: it is for
// commands, and needs root to see all of the journal.
func (b *Bundle) AddUnit(ctx context.Context, u Unit) {
	if u.err != nil {
		b.AddError("unit.txt", u.err)
	} else {
		var text strings.Builder
		for _, property := range unitProperties {
			for _, value := range u.state[property] {
				fmt.Fprintf(&text, "%s=%s\n", property, value)
			}
		}
		b.Add("unit.txt", []byte(text.String()))
	}
	journal, err := systemd.ReadJournal(ctx, u.Service, journalLines, maxMember)
	if err != nil {
		b.AddError("journal.txt", err)
		return
	}
	b.Add("journal.txt", journal)
}

// Close completes the file. If anything could not be written, it removes the file, and returns an error.
func (b *Bundle) Close() error {
	err := errors.Join(b.err, b.tar.Close(), b.gz.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", b.path, err), b.Discard())
	}
	b.closed = true
	if err := b.f.Close(); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", b.path, err), b.remove())
	}
	return nil
}

// Discard removes the file, unless it is complete. A process that has given up root may be unable to: then
// the file is left empty, and the error says so.
func (b *Bundle) Discard() error {
	if b.closed {
		return nil
	}
	b.closed = true
	err := b.f.Truncate(0)
	return errors.Join(err, b.f.Close(), b.remove())
}

func (b *Bundle) remove() error {
	err := os.Remove(b.path)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("an empty file is left, remove it: %w", err)
	}
	return err
}
