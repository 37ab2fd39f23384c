package main_test

import "github.com/rogpeppe/go-internal/testscript"

func mkfifo(ts *testscript.TestScript, _ []string) { ts.Fatalf("Windows has no FIFO in a folder") }
