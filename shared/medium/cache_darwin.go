package medium

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache makes reads of f pass the cache by (F_NOCACHE, fcntl(2)). Being
// refused is no failure.
func dropCache(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_NOCACHE, 1) })
}
