package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"cis490/internal/archive"
)

// An episode is surveyed, packed and read back.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Mkdir(filepath.Join(dir, "ep-1"), 0o755)
	os.WriteFile(filepath.Join(dir, "ep-1", "telemetry.csv"), []byte("1,2\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "ep-1", "meta.json"), []byte("{}"), 0o644)
	parent, err := os.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer parent.Close()

	ctx := context.Background()
	tree, err := archive.OpenTree(parent, "ep-1", "ep-1", archive.DefaultLimits())
	if err != nil {
		log.Fatal(err)
	}
	defer tree.Close()
	survey, err := tree.Survey(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var packed bytes.Buffer
	if err := archive.NewPacker().Pack(ctx, &packed, tree, survey); err != nil {
		log.Fatal(err)
	}
	for m, err := range archive.Read(&packed) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Name, m.Size)
	}
	// Output:
	// ep-1/meta.json 2
	// ep-1/ 0
	// ep-1/telemetry.csv 4
}
