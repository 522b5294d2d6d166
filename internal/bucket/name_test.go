package bucket_test

import (
	"strings"
	"testing"

	"cis490/internal/bucket"
)

func TestNamesNeedNoEscaping(t *testing.T) {
	long := strings.Repeat("x", 255)
	for name, valid := range map[string]bool{
		"log/0000000001.jsonl": true, "episodes/h/E.1_2-3~4/ab.tar.zst": true, "x": true, long: true, "..a/a..": true,
		"": false, "/x": false, "x/": false, "a//b": false, ".": false, "a/../b": false, "a/./b": false, "..": false,
		"a b": false, "a\nb": false, "ä": false, "a%2fb": false, "a?b": false, "a\\b": false,
		long + "x": false, long + "/" + long: true, long + "/" + long + "/x": false,
	} {
		if err := bucket.CheckName(name); (err == nil) != valid {
			t.Errorf("%q: got %v, want valid %t", name, err, valid)
		}
	}
}
