package bucket

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cis490/internal/durable"
)

// CredentialName is the name of systemd's LoadCredential= for the file with the keys.
const CredentialName = "s3-credentials"

const maxCredentials = 4 << 10 // bytes of the file

// keys are what requests are signed with. No error and no log line has them.
type keys struct{ access, secret string }

// loadKeys reads the keys, and returns the path of their file too.
func (c Config) loadKeys() (keys, string, error) {
	path := string(c.CredentialsFile)
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); path == "" && dir != "" {
		path = filepath.Join(dir, CredentialName)
	}
	if path == "" {
		return keys{}, "", fmt.Errorf("the object store has no credentials: set credentials_file, or LoadCredential=%s:FILE in the unit", CredentialName)
	}
	f, err := os.Open(path)
	if err != nil {
		return keys{}, path, err
	}
	defer f.Close()
	text, err := durable.ReadAtMost(f, path, maxCredentials)
	if err != nil {
		return keys{}, path, err
	}
	k, err := parseKeys(string(text))
	if err != nil {
		return keys{}, path, fmt.Errorf("%s: %w", path, err)
	}
	return k, path, nil
}

// parseKeys parses a file as the tools of AWS write it, with one profile, or a file of environment
// variables. Its errors do not repeat it.
func parseKeys(text string) (keys, error) {
	var k keys
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") || strings.HasPrefix(line, "[") {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.Trim(strings.TrimSpace(value), `"`)
		var into *string
		switch name {
		case "aws_access_key_id":
			into = &k.access
		case "aws_secret_access_key":
			into = &k.secret
		}
		switch {
		case !found || into == nil:
			return keys{}, fmt.Errorf("line %d is neither aws_access_key_id = KEY nor aws_secret_access_key = SECRET", number+1)
		case *into != "":
			return keys{}, fmt.Errorf("line %d has a second %s: keep one profile only", number+1, name)
		}
		*into = value
	}
	if k.access == "" || k.secret == "" {
		return keys{}, errors.New("it needs the lines aws_access_key_id = KEY and aws_secret_access_key = SECRET")
	}
	return k, nil
}

// hide returns text without the keys, which an engine may repeat in its errors.
func (k keys) hide(text string) string {
	return strings.NewReplacer(k.secret, "...", k.access, "...").Replace(text)
}
