package source_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/source"
)

// TestSharingReadsPageByPage: more entries than a page of names, and what is no
// directory among them.
func TestSharingReadsPageByPage(t *testing.T) {
	const dirs = 3000
	l := newLab(t)
	for n := range dirs {
		fixture.Must(l, os.Mkdir(filepath.Join(l.episodes, fmt.Sprintf("run-%d", n)), 0o700))
		if n%3 == 0 {
			fixture.Must(l, os.WriteFile(filepath.Join(l.episodes, fmt.Sprintf("file-%d", n)), nil, 0o600))
		}
	}
	episodes, _ := l.Dirs()
	done, err := source.ShareEpisodes(t.Context(), episodes, os.Getgid())
	if err != nil || done.Shared != dirs || done.Failed != 0 {
		t.Errorf("got %+v, %v", done, err)
	}
	for n := range dirs {
		info, err := os.Stat(filepath.Join(l.episodes, fmt.Sprintf("run-%d", n)))
		fixture.Must(l, err)
		if st := info.Sys().(*syscall.Stat_t); st.Mode&0o777 != 0o770 || int(st.Gid) != os.Getgid() {
			t.Fatalf("%s has mode %o, group %d", info.Name(), st.Mode&0o7777, st.Gid)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if done, err := source.ShareEpisodes(ctx, episodes, os.Getgid()); !errors.Is(err, context.Canceled) || done.Shared != 0 {
		t.Errorf("after the end was asked for: %+v, %v", done, err)
	}
}
