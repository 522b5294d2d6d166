package systemd

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// journalTimeout bounds the wait for journalctl.
const journalTimeout = 20 * time.Second

// ReadJournal returns the last lines of a unit's journal, at most maxBytes of them from the end. Like
// [ShowUnit], it is for commands only.
func ReadJournal(ctx context.Context, unit string, lines, maxBytes int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", "--no-pager", "--quiet", "--output=short-iso", "--unit="+unit, "--lines="+strconv.Itoa(lines))
	cmd.WaitDelay = time.Second
	text := &tail{max: maxBytes}
	cmd.Stdout = text
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("journalctl --unit=%s: %w", unit, err)
	}
	return text.b, nil
}

// tail keeps the last bytes that are written to it.
type tail struct {
	b   []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = bytes.Clone(t.b[over:])
	}
	return len(p), nil
}
