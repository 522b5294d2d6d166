package main

import (
	"flag"
	"testing"

	"cis490/internal/scripttest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { scripttest.Main(m, newRootCommand) }

func TestScripts(t *testing.T) { scripttest.Run(t, "receiver", *update) }
