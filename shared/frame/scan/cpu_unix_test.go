//go:build unix

package scan

import (
	"syscall"
	"time"
)

// processorTime is what this process has used of the processor: other programs on
// the machine do not count.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
