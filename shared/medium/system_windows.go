package medium

import (
	"os"

	"golang.org/x/sys/windows"
)

// openFlags open a file for reading; there are no FIFOs to wait for.
// FlushFileBuffers wants a handle with the right to write.
const (
	openFlags = os.O_RDONLY
	syncFlags = os.O_RDWR
)

// What the system answers when a medium is full, write-protected, or damaged.
var (
	fullErrors     = []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED}
	readOnlyErrors = []error{windows.ERROR_WRITE_PROTECT}
	brokenErrors   = []error{windows.ERROR_CRC, windows.ERROR_NOT_READY, windows.ERROR_IO_DEVICE, windows.ERROR_DEVICE_NOT_CONNECTED}
)

// dropCache does nothing: Windows keeps what it has read.
func dropCache(f *os.File) {}
