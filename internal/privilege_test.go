package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// What runs with rights that others do not have must follow no path that they can change: the
// episodes folder is the experiments' group's, what is below /var/lib/cis490 is the service
// user's, a socket's folder may be the proxy's. Between the check of a name and the command
// that uses it, they can exchange it for a link. The programs of this module open files beneath
// an open directory. Everything else must not go there, and these tests read everything that
// runs as root or with its rights.

// changesByPath are commands, and redirections, that change what a path leads to.
var changesByPath = regexp.MustCompile(`(^|[\s;&|({'])(chown|chmod|chgrp|mkdir|install|cp|mv|ln|rm|rmdir|mktemp|touch|tee|dd|setfacl|chattr|truncate|rsync|tar|sed -i|find .*-(exec|delete|ok)\w*)\s|>`)

// harmless is removed from a line before the line is examined.
var harmless = regexp.MustCompile(`\d?&?>>?\s*(/dev/null|&\d)`)

// allowed are the lines of root's scripts that change something by its path, and why no other
// user can exchange it.
var allowed = map[string]string{
	// install-common.sh
	`rm -rf "$work"`:    "its own directory, made by mktemp",
	`work=$(mktemp -d)`: "in /tmp, which is sticky, with mode 0700",
	`mkdir -p "$(dirname "$2")" && install -m "$3" "$1" "$2.new" && mv -f "$2.new" "$2"`:                "put is called with places below /etc and /usr/local: TestInstallersPutFilesInRootsFoldersOnly",
	`change "link $place to $1" ln -sfn "$1" "$place"`:                                                  "in /usr/local/bin, which is root's",
	`sed "s,/usr/bin/cis490-,$bin/cis490-,g" "$source_dir/etc/$file" >"$work/unit"`:                     "its own directory",
	`let_read() { chown -h root:cis490 "$1" && chmod 0640 "$1"; }`:                                      "own_key calls it if the folder of the file is root's alone",
	`if [ -e "$prefix$1" ] || [ -L "$prefix$1" ]; then change "remove $prefix$1" rm -f "$prefix$1"; fi`: "gone is called with places below /etc and /usr/local: TestInstallersPutFilesInRootsFoldersOnly",
	// install-lab-host.sh, install-receiver.sh
	`sed -e '' "${edit[@]}" "$source_dir/etc/$role_example" >"$work/$role_config"`: "its own directory",
	`role_prepare() { cp "$source_dir/etc/$role_example" "$work/$role_config"; }`:  "its own directory",
	// packages/postinst, packages/postrm
	`chown -h root:cis490 "$key"`: "the line above makes sure that the folder is root's alone",
	`chmod 0640 "$key"`:           "the same",
	`rmdir --ignore-fail-on-non-empty /etc/cis490/pki /etc/cis490`: "both are in folders of root's",
}

// scriptsOfRoot are the installers and the maintainer scripts of the packages.
func scriptsOfRoot(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"../scripts/install-*.sh", "../scripts/packages/p*"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < 3 {
			t.Fatalf("%s: found %q, %v", pattern, found, err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// lines yields the lines of a file that are not comments, without surrounding white space.
func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	fixture.Must(t, err)
	var all []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

func TestScriptsOfRootChangeNothingThatOthersCanExchange(t *testing.T) {
	message := regexp.MustCompile(`^(die|warn|say|echo|misused|printf) `)
	used := map[string]bool{}
	for _, path := range scriptsOfRoot(t) {
		for _, line := range lines(t, path) {
			line = strings.TrimSpace(harmless.ReplaceAllString(strings.TrimSuffix(line, " || true"), ""))
			line, _, _ = strings.Cut(line, " # ")
			if message.MatchString(line) || !changesByPath.MatchString(line) {
				continue
			}
			line = strings.TrimSpace(strings.TrimSuffix(line, "|| true"))
			if allowed[line] == "" {
				t.Errorf("%s changes something by its path: %s\nlet a program of ours do it, or say in allowed why nobody can exchange it", path, line)
			}
			used[line] = true
		}
	}
	for line := range allowed {
		if !used[line] {
			t.Errorf("allowed has a line that no script has: %s", line)
		}
	}
}

func TestInstallersPutFilesInRootsFoldersOnly(t *testing.T) {
	place := regexp.MustCompile(`\b(put|gone) +("[^"]*" +)?"([^"]+)"`)
	known := []string{"$bin/", "$units/", "$config_dir/", "$config", "/etc/sysusers.d/", "/etc/tmpfiles.d/", "$share/"}
	calls := 0
	for _, path := range scriptsOfRoot(t) {
		for _, line := range lines(t, path) {
			for _, m := range place.FindAllStringSubmatch(line, -1) {
				calls++
				if !slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(m[3], k) }) {
					t.Errorf("%s: %s %s: only root must be able to change that folder", path, m[1], m[3])
				}
			}
		}
	}
	if calls < 8 {
		t.Errorf("found %d calls only", calls)
	}
	text, err := os.ReadFile("../scripts/install-common.sh")
	if err != nil || !strings.Contains(string(text), "readonly bin=/usr/local/bin share=/usr/local/share units=/etc/systemd/system config_dir=/etc/cis490\n") {
		t.Errorf("the folders have other values: %v", err)
	}
}

// rootCommands are the commands of units that run as root, and why they may.
var rootCommands = map[string]string{
	`ExecReload=+/bin/sh -c 'kill -HUP "$MAINPID"'`: "it follows no path; systemd vouches for the process",
}

// withRights are the commands of units that have rights over other users' files.
var withRights = map[string]string{
	"/usr/bin/cis490-shipper share-episodes .": "opens each thing beneath the folder: lab.TestExchangedNamesLeadEpisodesUnitNowhere",
}

func TestUnitsGiveNoRightsToWhatFollowsPaths(t *testing.T) {
	services, err := filepath.Glob("../etc/*.service")
	if err != nil || len(services) < 4 {
		t.Fatalf("found %q, %v", services, err)
	}
	for _, path := range services {
		user, rights := "", ""
		var commands []string
		for _, line := range lines(t, path) {
			key, value, _ := strings.Cut(line, "=")
			switch {
			case key == "User":
				user = value
			case key == "AmbientCapabilities":
				rights = value
			case key == "SupplementaryGroups" && value != "cis490":
				t.Errorf("%s: %s: why?", path, line)
			case strings.HasPrefix(key, "Exec") && key != "ExecPaths":
				if strings.ContainsAny(value[:1], "+!") && rootCommands[line] == "" {
					t.Errorf("%s runs something as root: %s", path, line)
				}
				commands = append(commands, strings.TrimLeft(value, "-@:"))
			}
		}
		if user == "" || user == "root" {
			t.Errorf("%s has User=%s: nothing of ours needs root", path, user)
		}
		for _, command := range commands {
			if rights != "" && withRights[command] == "" {
				t.Errorf("%s runs with %s: %s\nfollows paths, for all that this test knows", path, rights, command)
			}
		}
	}
}

// TestTmpfilesChangeNothingBelowAPath: systemd-tmpfiles does not follow a user's link to
// another user's file, but a recursive line changes what others created there.
func TestTmpfilesChangeNothingBelowAPath(t *testing.T) {
	files, err := filepath.Glob("../etc/*.tmpfiles")
	if err != nil || len(files) != 2 {
		t.Fatalf("found %q, %v", files, err)
	}
	for _, path := range files {
		for _, line := range lines(t, path) {
			fields := strings.Fields(line)
			inRoots := strings.HasPrefix(fields[1], "/etc/cis490/") && !strings.Contains(fields[1], "..")
			switch {
			case fields[0] == "d", fields[0] == "a+", fields[0] == "z" && inRoots:
			default:
				t.Errorf("%s: %s: only d and a+, and z below /etc/cis490", path, line)
			}
			if strings.ContainsAny(fields[1], "*?[") {
				t.Errorf("%s: %s: a pattern matches what others put there", path, line)
			}
		}
	}
}

// TestDocumentedCommandsOfRootStayOutOfOthersFolders: the commands that the documentation tells
// root to type follow the same rule. A line that changes something below the data folders must
// be run as the user who owns them.
func TestDocumentedCommandsOfRootStayOutOfOthersFolders(t *testing.T) {
	others := regexp.MustCompile(`/var/lib/cis490/\S|\$data|/run/cis490-proxy/\S|\b(episodes|shipped|outbox|quarantine|staging)/`)
	as := regexp.MustCompile(`\b(runuser -u|sudo -u) cis490(-lab)?\b`)
	for _, path := range []string{"../docs/install.md", "../docs/operations.md", "../docs/proxy.md"} {
		code := false
		inside := false // a folder of others, by an earlier cd
		for _, line := range lines(t, path) {
			if strings.HasPrefix(line, "```") {
				code, inside = !code, false
				continue
			}
			if !code || as.MatchString(line) {
				continue
			}
			line, _, _ = strings.Cut(harmless.ReplaceAllString(line, ""), " # ")
			inside = inside || strings.Contains(line, "cd /var/lib/cis490")
			if changesByPath.MatchString(line) && (inside || others.MatchString(line)) {
				t.Errorf("%s has root change something in a folder of others: %s", path, line)
			}
		}
	}
}
