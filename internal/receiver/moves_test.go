package receiver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/receiver"
)

// TestCheckNamesADataDirThatIsALinkToNothing, or is below one: the start makes neither.
func TestCheckNamesADataDirThatIsALinkToNothing(t *testing.T) {
	link := filepath.Join(t.TempDir(), "data")
	must(t, os.Symlink("nowhere", link))
	for _, path := range []string{link, filepath.Join(link, "below")} {
		c := receiver.Config{DataDir: config.Path(path)}
		_, startErr := durable.Create(path)
		checkErr := c.CheckMoves()
		if _, named := errors.AsType[*receiver.ConfigError](checkErr); !named {
			t.Errorf("%s: check says %v", path, checkErr)
		}
		for what, err := range map[string]error{"start": startErr, "check": checkErr} {
			if err == nil || !strings.HasPrefix(err.Error(), link+" is a link to nothing") {
				t.Errorf("%s: %s says %v", path, what, err)
			}
		}
	}
}
