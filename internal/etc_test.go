package internal_test

import (
	"encoding"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"cis490/internal/fixture"
	"cis490/internal/manual"
	"cis490/internal/receiver"
	"cis490/internal/shipper"
)

// Operators learn about the keys from the examples. Each must load with the program's own
// loader, show every key, and show the default of a key that has one.
func TestExamplesShowEveryKey(t *testing.T) {
	for _, c := range []struct {
		file   string
		load   func(path string) (any, error)
		silent any      // what holds where a file is silent
		differ []string // keys whose value is an operator's own
		// commented are keys shown in comments: an address that the file names must be usable.
		commented []string
	}{
		{
			file:   "lab-host.toml.example",
			load:   func(path string) (any, error) { return shipper.LoadConfig(path) },
			silent: shipper.DefaultConfig(),
			differ: []string{"host_id", "packers", "receiver.url", "receiver.cert_file", "receiver.key_file", "identity_dir"},

			commented: []string{"admin.listen"},
		},
		{
			file:   "receiver.toml.example",
			load:   func(path string) (any, error) { return receiver.LoadConfig(path) },
			silent: receiver.DefaultConfig(),
			differ: []string{"tls.crl_file", "identity_dir"},

			commented: []string{"admin.listen"},
		},
	} {
		path := filepath.Join("..", "etc", c.file)
		loaded, err := c.load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := os.ReadFile(path)
		fixture.Must(t, err)
		var shown map[string]any
		md, err := toml.Decode(string(text), &shown)
		fixture.Must(t, err)
		has, defaults := leaves(reflect.ValueOf(loaded), nil), leaves(reflect.ValueOf(c.silent), nil)
		for _, key := range slices.Sorted(maps.Keys(defaults)) {
			if slices.Contains(c.commented, key) {
				name := key[strings.LastIndex(key, ".")+1:]
				if line := fmt.Sprintf("\n#%s = \"%v\"\n", name, defaults[key]); !strings.Contains(string(text), line) {
					t.Errorf("%s has no line %q", path, line)
				}
			} else if !slices.ContainsFunc(md.Keys(), func(k toml.Key) bool { return k.String() == key }) {
				t.Errorf("%s does not show %s", path, key)
			}
			if !reflect.DeepEqual(has[key], defaults[key]) && !slices.Contains(c.differ, key) {
				t.Errorf("%s: %s is %v; the default is %v", path, key, has[key], defaults[key])
			}
		}
	}
}

// The pages lab-host.toml(5) and receiver.toml(5) are made from the examples, by a parser that is simpler
// than TOML.
func TestConfigPagesHaveEveryKey(t *testing.T) {
	for page, defaults := range map[string]any{"lab-host.toml": shipper.DefaultConfig(), "receiver.toml": receiver.DefaultConfig()} {
		dir := t.TempDir()
		root := &cobra.Command{Use: "prog", Short: "Do it"}
		root.AddCommand(manual.GenerateCommand(manual.Manual{Config: page}))
		root.SetArgs([]string{"generate", "man", dir, "--example", filepath.Join("..", "etc", page+".example")})
		fixture.Must(t, root.Execute())
		text := fixture.ReadFile(t, filepath.Join(dir, page+".5"))
		for key := range leaves(reflect.ValueOf(defaults), nil) {
			table, name := "", key
			if dot := strings.LastIndexByte(key, '.'); dot >= 0 {
				table, name = key[:dot], key[dot+1:]
			}
			_, below, _ := strings.Cut(text, ".SH KEYS\n")
			if table != "" {
				_, below, _ = strings.Cut(below, ".SS ["+table+"]\n")
			}
			below, _, _ = strings.Cut(below, "\n.SS ")
			if !strings.Contains(below, "\\fB"+name+"\\fR = ") {
				t.Errorf("%s(5) does not show %s", page, key)
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
