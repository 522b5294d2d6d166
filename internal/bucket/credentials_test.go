package bucket_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

func TestCredentialsAreParsed(t *testing.T) {
	for text, want := range map[string]string{
		"aws_access_key_id = KEY\naws_secret_access_key = SECRET\n":                          "KEY SECRET",
		"[default]\r\naws_secret_access_key=S/E=+\r\n\r\n# a comment\naws_access_key_id=KEY": "KEY S/E=+",
		"AWS_ACCESS_KEY_ID=KEY\nAWS_SECRET_ACCESS_KEY=\"SECRET\"\n":                          "KEY SECRET",
		"":                                 "",
		"aws_access_key_id = KEY\n":        "",
		"aws_secret_access_key = SECRET\n": "",
		"KEY\nSECRET\n":                    "",
		"aws_access_key_id = KEY\nSECRET":  "",
		"aws_access_key_id = KEY\nregion = here\naws_secret_access_key = SECRET":                        "",
		"[a]\naws_access_key_id = KEY\naws_secret_access_key = SECRET\n[b]\naws_access_key_id = SECRET": "",
	} {
		access, secret, err := bucket.ParseKeys(text)
		if got := strings.TrimSpace(access + " " + secret); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "= KEY\n") || strings.Contains(err.Error(), "here")) {
			t.Errorf("%q: the error repeats it: %v", text, err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
	f.Fuzz(func(t *testing.T, text string) {
		access, secret, err := bucket.ParseKeys(text)
		if err == nil && (access == "" || secret == "" || strings.Contains(access+secret, "\n")) {
			t.Errorf("%q: got %q, %q without an error", text, access, secret)
		}
	})
}

// TestCredentialsOfTheServiceManager: systemd passes them in a directory of the unit.
func TestCredentialsOfTheServiceManager(t *testing.T) {
	c := bucket.DefaultConfig()
	c.Endpoints, c.Bucket = []string{"http://127.0.0.1:1"}, "receivers"
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := bucket.Open(c); err == nil || !strings.Contains(err.Error(), "set credentials_file") {
		t.Errorf("without credentials: got %v, want what to set", err)
	}
	written := string(buckettest.WriteCredentials(t, "KEY", "SECRET"))
	fixture.Must(t, os.Rename(written, filepath.Join(filepath.Dir(written), bucket.CredentialName)))
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(written))
	if _, err := bucket.Open(c); err != nil {
		t.Errorf("with LoadCredential=: got %v", err)
	}
}
