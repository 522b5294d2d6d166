package bucket_test

import (
	"errors"
	"strings"
	"testing"

	"cis490/internal/bucket"
)

func TestConfigIsChecked(t *testing.T) {
	valid := bucket.DefaultConfig()
	valid.Endpoints, valid.Bucket, valid.Prefix = []string{"https://s3.example:9000", "https://10.1.2.3"}, "lab-archives", "pi/receivers/"
	if errs := valid.Validate(); len(errs) > 0 {
		t.Errorf("got %v, want no error", errs)
	}
	for want, change := range map[string]func(*bucket.Config){
		"endpoints: is empty":               func(c *bucket.Config) { c.Endpoints = nil },
		"is not the URL of an object store": func(c *bucket.Config) { c.Endpoints = []string{"s3.example:9000"} },
		"must begin with https://":          func(c *bucket.Config) { c.Endpoints = []string{"http://10.1.2.3:9000"} },
		"has a path":                        func(c *bucket.Config) { c.Endpoints = []string{"https://s3.example/lab-archives"} },
		"has credentials in a URL":          func(c *bucket.Config) { c.Endpoints = []string{"https://key:SECRET@s3.example"} },
		"write path_style = true":           func(c *bucket.Config) { c.PathStyle = false },
		"bucket: \"Lab\" is not a valid":    func(c *bucket.Config) { c.Bucket = "Lab" },
		"bucket: \"\" is not a valid":       func(c *bucket.Config) { c.Bucket = "" },
		"prefix: \"a//b\" is not a valid":   func(c *bucket.Config) { c.Prefix = "a//b" },
		"prefix: has more than":             func(c *bucket.Config) { c.Prefix = strings.Repeat("x/", 250) },
		"region: is not a valid region":     func(c *bucket.Config) { c.Region = "" },
	} {
		c := valid
		change(&c)
		if err := errors.Join(c.Validate()...); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
