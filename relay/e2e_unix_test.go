//go:build unix

package main_test

import (
	"os/exec"
	"runtime"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

func mkfifo(ts *testscript.TestScript, args []string) {
	need(ts, args, 1, "mkfifo FILE")
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

// maxRSS returns the most memory that an ended process held, in MiB.
func maxRSS(c *exec.Cmd) float64 {
	size := float64(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	if runtime.GOOS == "darwin" { // bytes there, KiB elsewhere
		return size / (1 << 20)
	}
	return size / (1 << 10)
}
