package main_test

import (
	"os/exec"

	"github.com/rogpeppe/go-internal/testscript"
)

func mkfifo(ts *testscript.TestScript, _ []string) { ts.Fatalf("Windows has no FIFO in a folder") }

func maxRSS(*exec.Cmd) float64 { return 0 }
