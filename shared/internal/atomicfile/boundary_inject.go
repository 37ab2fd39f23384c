//go:build faultinject

package atomicfile

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

var passed struct {
	sync.Mutex
	n int
}

// Boundary marks a moment between two changes of the disk.
//
// If AZS_FAULT_COUNT_FILE names a file, a line with the number and the name of
// the boundary is added to it. If AZS_FAULT_KILL_AT is that number (counted
// from 1 since the process began), the process kills itself with SIGKILL:
// nothing is flushed, nothing deferred runs. Where there is no SIGKILL it exits
// at once with code 137.
func Boundary(name string) {
	passed.Lock()
	defer passed.Unlock()
	passed.n++
	if path := os.Getenv("AZS_FAULT_COUNT_FILE"); path != "" {
		if err := note(path, fmt.Sprintf("%d %s\n", passed.n, name)); err != nil {
			panic(err)
		}
	}
	if os.Getenv("AZS_FAULT_KILL_AT") == strconv.Itoa(passed.n) {
		die()
	}
}

func note(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func die() {
	if runtime.GOOS != "windows" {
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			self.Kill()
		}
	}
	os.Exit(137)
}

// pieces returns data in two halves, so that a test can kill between them.
func pieces(data []byte) [][]byte {
	return [][]byte{data[:len(data)/2], data[len(data)/2:]}
}

var attempts struct {
	sync.Mutex
	n      int
	failed bool
}

// attempt comes before every change of the disk and says how it fails: from
// number AZS_FAULT_FAIL_AT on (counted from 1 since the process began) the disk is
// in the state AZS_FAULT_DISK, which is "full" (nothing grows), "readonly"
// (nothing changes; syncing is fine) or "broken", as when a stick is pulled
// (nothing works). The first refusal is noted in AZS_FAULT_COUNT_FILE.
func attempt(c change) error {
	var answer error
	switch state := os.Getenv("AZS_FAULT_DISK"); {
	case state == "full" && c&grows != 0:
		answer = syscall.ENOSPC
	case state == "readonly" && c != syncs:
		answer = syscall.EROFS
	case state == "broken":
		answer = syscall.EIO
	default:
		return nil
	}
	from, err := strconv.Atoi(os.Getenv("AZS_FAULT_FAIL_AT"))
	attempts.Lock()
	defer attempts.Unlock()
	if attempts.n++; err != nil || attempts.n < from {
		return nil
	}
	if path := os.Getenv("AZS_FAULT_COUNT_FILE"); path != "" && !attempts.failed {
		if err := note(path, fmt.Sprintf("failed at attempt %d: %v\n", attempts.n, answer)); err != nil {
			panic(err)
		}
	}
	attempts.failed = true
	return answer
}
