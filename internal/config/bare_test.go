package config_test

import (
	"strings"
	"testing"

	"cis490/internal/config"
)

// TestSizesWithoutUnitAreReturned: they load as before, and are reported.
func TestSizesWithoutUnitAreReturned(t *testing.T) {
	type limits struct {
		Archive config.Bytes `toml:"archive_bytes"`
		Host    config.Bytes `toml:"host_bytes"`
	}
	type settings struct {
		MinFree config.Bytes `toml:"min_free"`
		Limits  limits       `toml:"limits"`
	}
	for _, c := range []struct{ doc, want string }{
		{`min_free = "10"`, `:1: min_free: 10 has no unit, and is taken as bytes: write the unit, such as "10MiB"; "10B" if bytes are meant`},
		{"min_free = 10", `:1: min_free: 10 has no unit, and is taken as bytes: write the unit, such as "10MiB"; "10B" if bytes are meant`},
		{"[limits]\narchive_bytes = \" 32 \"", `:2: limits.archive_bytes: 32 has no unit, and is taken as bytes: write the unit, such as "32GiB"; "32B" if bytes are meant`},
		{"limits.host_bytes = 4", `:1: limits.host_bytes: 4 has no unit, and is taken as bytes: write the unit, such as "4GiB"; "4B" if bytes are meant`},
		{"min_free = 268435456", `:1: min_free: 268435456 has no unit, and is taken as bytes: write "256MiB"`},
		{"min_free = 100000", `:1: min_free: 100000 has no unit, and is taken as bytes: write "100000B"`},
		{
			"limits.host_bytes = 4\nmin_free = 5",
			`:1: limits.host_bytes: 4 has no unit, and is taken as bytes: write the unit, such as "4GiB"; "4B" if bytes are meant` +
				`|:2: min_free: 5 has no unit, and is taken as bytes: write the unit, such as "5MiB"; "5B" if bytes are meant`,
		},
		{`min_free = "0"`, ""},
		{"min_free = 0", ""},
		{`min_free = "10B"`, ""},
		{`min_free = "1.5 GiB"`, ""},
		{`min_free = "10k"`, ""},
	} {
		path := write(t, c.doc)
		bare, err := config.LoadSizes(path, &settings{MinFree: 256 << 20, Limits: limits{Archive: 32 << 30}})
		if err != nil {
			t.Errorf("%s: %v", c.doc, err)
		}
		got := ""
		if bare != nil {
			got = strings.ReplaceAll(bare.Error(), "\n", "|")
		}
		want := strings.ReplaceAll(c.want, "|:", "|"+path+":")
		if want != "" {
			want = path + want
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", c.doc, got, want)
		}
	}
}

// TestTypedSizeWantsAUnit: prune --max-bytes 10 would delete everything that may be deleted.
func TestTypedSizeWantsAUnit(t *testing.T) {
	for text, want := range map[string]string{
		"10":         `"10" has no unit: write "10MiB" or "10GiB", or "10B" if bytes are meant`,
		"65535":      `"65535" has no unit: write "65535MiB" or "65535GiB", or "65535B" if bytes are meant`,
		"0":          "",
		"10B":        "",
		"1.5GiB":     "",
		"1073741824": "",
		"-1":         `"-1" is negative: a size is 0 or more`,
		"lots":       `"lots" is not a valid size: write a number with a unit, such as "1MiB" or "500MB"`,
	} {
		var b config.TypedBytes
		got := ""
		if err := b.UnmarshalText([]byte(text)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
