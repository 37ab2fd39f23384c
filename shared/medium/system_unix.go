//go:build !windows

package medium

import (
	"os"
	"syscall"
)

// openFlags open a file for reading without following a link in the last
// element and without waiting for the other end of a FIFO; syncFlags are enough
// for an fsync.
const (
	openFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW
	syncFlags = openFlags
)

// What the system answers when a medium is full, write-protected, or damaged.
var (
	fullErrors     = []error{syscall.ENOSPC, syscall.EDQUOT}
	readOnlyErrors = []error{syscall.EROFS}
	brokenErrors   = []error{syscall.EIO, syscall.ENXIO, syscall.ENODEV}
)
