package index_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"cis490/internal/indextest"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

// writerEnv makes this test program a process that appends rows until it is
// killed, and prints each row that is acknowledged as durable.
const writerEnv = "INDEX_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		runWriter(dir)
	}
	os.Exit(m.Run())
}

func runWriter(dir string) {
	d, err := durable.Open(dir)
	if err != nil {
		panic(err)
	}
	l, err := index.Open(d, indextest.IndexName, nil)
	if err != nil {
		panic(err)
	}
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				r, err := l.Append(context.Background(), indextest.Row(os.Getpid()*100_000+n*8+i))
				if err != nil {
					panic(err)
				}
				fmt.Printf("%s\n", r.Key.Name)
			}
		}()
	}
	select {}
}

func TestKilledWritersLoseNoAcknowledgedRow(t *testing.T) {
	dir := fixture.MemoryDir(t)
	told := map[episode.Name]bool{}
	var mu sync.Mutex
	for range 5 {
		var g sync.WaitGroup
		for range 2 { // two processes share the file
			g.Go(func() {
				c := exec.Command(os.Args[0])
				c.Env = append(os.Environ(), writerEnv+"="+dir)
				c.Stderr = os.Stderr
				out, err := c.StdoutPipe()
				if err == nil {
					err = c.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				n := 0
				for s := bufio.NewScanner(out); s.Scan(); n++ {
					if n == 300 {
						c.Process.Kill()
					}
					if name, err := episode.ParseName(s.Text()); err == nil && len(name) > 8 {
						mu.Lock()
						told[name] = true
						mu.Unlock()
					}
				}
				c.Wait()
			})
		}
		g.Wait()
	}
	indextest.OpenLog(t, dir)
	have := map[episode.Name]bool{}
	for _, r := range indextest.ReadRows(t, dir) {
		have[r.Key.Name] = true
	}
	if len(told) < 3000 {
		t.Errorf("only %d rows were acknowledged", len(told))
	}
	for name := range told {
		if !have[name] {
			t.Errorf("%s was acknowledged and is gone", name)
		}
	}
}
