//go:build !windows

package atomicfile

import (
	"errors"
	"os"
	"syscall"
)

// syncFolder makes the names in the open folder durable. A file system that has
// no such call (EINVAL, ENOTSUP: some network and user-space ones) is passed
// over.
func syncFolder(folder *os.File) error {
	err := folder.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}
