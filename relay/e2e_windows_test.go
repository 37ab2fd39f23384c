package main_test

import (
	"os/exec"

	"github.com/rogpeppe/go-internal/testscript"
)

func mkfifo(ts *testscript.TestScript, _ []string) { ts.Fatalf("Windows has no FIFO in a folder") }

func maxRSS(*exec.Cmd) float64 { return 0 }

func hostilestick(ts *testscript.TestScript, _ []string) { ts.Fatalf("no links and devices here") }

func crowd(ts *testscript.TestScript, _ []string) { ts.Fatalf("not here") }

func bounded(ts *testscript.TestScript, _ []string) { ts.Fatalf("not here") }

func each(ts *testscript.TestScript, _ []string) { ts.Fatalf("not here") }

func canaries(ts *testscript.TestScript, _ []string) { ts.Fatalf("not here") }

func stampfaults(ts *testscript.TestScript, _ []string) { ts.Fatalf("not here") }
