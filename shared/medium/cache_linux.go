package medium

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache asks the system to forget the clean pages of f, so that the next
// read comes from the medium (posix_fadvise(2)). Being refused is no failure.
func dropCache(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
}
