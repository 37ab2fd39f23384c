//go:build faultinject

package atomicfile

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
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
