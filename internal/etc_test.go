package internal_test

import (
	"encoding"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/BurntSushi/toml"

	"cis490/internal/receiver"
	"cis490/internal/shipper"
)

// The examples are where an operator learns what there is. Each must load with
// the program's own loader, show every key, and show the default of a key that
// has one.
func TestExamplesShowEveryKey(t *testing.T) {
	for _, c := range []struct {
		file   string
		load   func(path string) (any, error)
		silent any      // what holds where a file is silent
		differ []string // keys whose value is an operator's own
	}{
		{
			file:   "lab-host.toml.example",
			load:   func(path string) (any, error) { return shipper.LoadConfig(path) },
			silent: shipper.DefaultConfig(),
			differ: []string{"host_id", "packers", "receiver.url", "receiver.cert_file", "receiver.key_file", "identity_dir"},
		},
		{
			file:   "receiver.toml.example",
			load:   func(path string) (any, error) { return receiver.LoadConfig(path) },
			silent: receiver.DefaultConfig(),
			differ: []string{"tls.crl_file", "identity_dir"},
		},
	} {
		path := filepath.Join("..", "etc", c.file)
		loaded, err := c.load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var shown map[string]any
		md, err := toml.Decode(string(text), &shown)
		if err != nil {
			t.Fatal(err)
		}
		has, defaults := leaves(reflect.ValueOf(loaded), nil), leaves(reflect.ValueOf(c.silent), nil)
		for _, key := range slices.Sorted(maps.Keys(defaults)) {
			if !slices.ContainsFunc(md.Keys(), func(k toml.Key) bool { return k.String() == key }) {
				t.Errorf("%s does not show %s", path, key)
			}
			if has[key] != defaults[key] && !slices.Contains(c.differ, key) {
				t.Errorf("%s: %s is %v; the default is %v", path, key, has[key], defaults[key])
			}
		}
	}
}

// leaves returns every key of a configuration that is not a table, with its value.
func leaves(v reflect.Value, at toml.Key) map[string]any {
	found := map[string]any{}
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		key := append(slices.Clone(at), field.Tag.Get("toml"))
		_, text := reflect.New(field.Type).Interface().(encoding.TextUnmarshaler)
		if value.Kind() == reflect.Struct && !text {
			maps.Copy(found, leaves(value, key))
			continue
		}
		found[key.String()] = value.Interface()
	}
	return found
}
