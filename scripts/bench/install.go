package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// install installs missing Debian packages. The nginx of all its packages has the DAV module.
func install(ctx context.Context) error {
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	var missing []string
	for tool, pkg := range map[string]string{
		"nginx": "nginx-light", "rsync": "rsync", "rclone": "rclone", "restic": "restic", "curl": "curl",
		"zstd": "zstd", "tar": "tar", "python3": "python3", "xargs": "findutils", "diff": "diffutils",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if syscall.Getuid() != 0 {
		return fmt.Errorf("missing: %s; install them, or run this as root on Debian", strings.Join(missing, " "))
	}
	say("installing %s", strings.Join(missing, " "))
	for _, args := range [][]string{{"-qq", "update"}, append([]string{"-qq", "install", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
