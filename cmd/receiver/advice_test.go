package main

import (
	"testing"

	"cis490/internal/labtest"
)

func TestAdviceNamesCommandsThatExist(t *testing.T) { labtest.CheckAdvice(t, "../..", newRootCommand) }
