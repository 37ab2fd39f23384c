//go:build unix

package console

import (
	"os"

	"golang.org/x/sys/unix"
)

// quiet turns the echo and the line editing of a terminal off and returns what
// puts them back. Ctrl-C still interrupts; Ctrl-Z does nothing.
func quiet(f *os.File) (end func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	mode := *old
	mode.Lflag &^= unix.ICANON | unix.ECHO
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	mode.Cc[unix.VSUSP] = 0 // _POSIX_VDISABLE; on some systems another value, and Ctrl-Z stays what it is
	if err := unix.IoctlSetTermios(fd, setTermios, &mode); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, setTermios, old) }, nil
}
