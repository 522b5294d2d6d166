package bucket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"cis490/internal/config"
	"cis490/internal/printable"
)

// maxPrefix is the maximum length of a prefix. With a name, S3 allows 1024 bytes.
const maxPrefix = 400

// Config says where a bucket is. It is the table [store.s3] of a receiver's configuration.
type Config struct {
	// Endpoints are URLs of the engine. Any of them must lead to the same objects. The first is used
	// until it fails, then the next one.
	Endpoints []string `toml:"endpoints"`
	Bucket    string   `toml:"bucket"`
	Prefix    string   `toml:"prefix"` // of all names; "" is the whole bucket
	Region    string   `toml:"region"`
	// CredentialsFile has the lines aws_access_key_id and aws_secret_access_key. Empty means
	// [CredentialName] in $CREDENTIALS_DIRECTORY.
	CredentialsFile config.Path `toml:"credentials_file"`
	// CAFile has the CA that signed the engine's certificate. Empty means the CAs of the system.
	CAFile config.Path `toml:"ca_file"`
	// PathStyle puts the name of the bucket into paths, instead of into the host's name.
	PathStyle bool `toml:"path_style"`
}

// DefaultConfig returns what is right for most engines in a machine room.
func DefaultConfig() Config {
	return Config{Endpoints: []string{}, Region: "us-east-1", PathStyle: true}
}

// Validate returns what is wrong with each key of c.
func (c Config) Validate() []error {
	var errs []error
	wrong := func(key string, err error) {
		if err != nil {
			errs = append(errs, config.InvalidValue("store.s3."+key, "%w", err))
		}
	}
	if len(c.Endpoints) == 0 {
		wrong("endpoints", errors.New(`is empty: name the object store, such as ["https://s3.example:9000"]`))
	}
	for _, text := range c.Endpoints {
		_, err := c.parseEndpoint(text)
		wrong("endpoints", err)
	}
	if err := s3utils.CheckValidBucketNameStrict(c.Bucket); err != nil {
		wrong("bucket", fmt.Errorf("%s is not a valid name of a bucket: %w", printable.Quote(c.Bucket, maxShown), err))
	}
	if prefix := strings.TrimSuffix(c.Prefix, "/"); prefix != "" {
		wrong("prefix", CheckName(prefix))
		if len(prefix) >= maxPrefix {
			wrong("prefix", fmt.Errorf("has more than %d bytes", maxPrefix-1))
		}
	}
	if c.Region == "" || checkCharacters(c.Region) != nil {
		wrong("region", errors.New(`is not a valid region: most engines in a machine room take "us-east-1"`))
	}
	return errs
}

// parseEndpoint parses one of c.Endpoints.
func (c Config) parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	quoted := printable.Quote(text, maxShown)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%s is not the URL of an object store, such as https://s3.example:9000", quoted)
	case u.User != nil:
		return nil, errors.New("has credentials in a URL: write them into credentials_file")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s has a path: name the bucket in bucket, and the rest in prefix", quoted)
	case u.Scheme == "http" && !config.IsLoopback(u.Hostname()):
		return nil, fmt.Errorf("%s must begin with https://: http is for this machine only", quoted)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil && !c.PathStyle {
		return nil, fmt.Errorf("%s is an address, to which the name of a bucket cannot be added: write path_style = true", quoted)
	}
	return &url.URL{Scheme: u.Scheme, Host: withPort(u)}, nil
}

// withPort returns the host of a URL with its port.
func withPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// prefix returns what all names begin with in the bucket.
func (c Config) prefix() string {
	if prefix := strings.TrimSuffix(c.Prefix, "/"); prefix != "" {
		return prefix + "/"
	}
	return ""
}
