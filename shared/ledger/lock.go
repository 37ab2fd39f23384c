package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// hold takes the lock of the state folder, trying again for the time wait. The
// lock dies with the process; the file stays.
func hold(dir string, wait time.Duration) (*flock.Flock, error) {
	path := filepath.Join(dir, lockFile)
	lock := flock.New(path)
	held, err := lock.TryLock()
	if err == nil && !held && wait > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		held, err = lock.TryLockContext(ctx, lockStep)
		if ctx.Err() != nil {
			err = nil
		}
	}
	if err != nil {
		return nil, fault.New(fault.Medium, "the state folder %q could not be locked: %w", dir, atomicfile.Cause(err))
	}
	if !held {
		return nil, fault.New(fault.Medium, "the state folder %q is in use by another process%s", dir, holder(path))
	}
	writePID(path)
	return lock, nil
}

// The first byte of the lock file is what Windows locks, and a locked byte
// cannot be read there. The process id begins at the second one and has a fixed
// width, so that it is overwritten whole. It only serves a message: a failure to
// write or read it is no failure of the lock.
const (
	pidAt    = 1
	pidWidth = 10
)

func writePID(path string) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	f.WriteAt(fmt.Appendf(nil, "%*d\n", pidWidth, os.Getpid()), pidAt)
}

// holder returns ", id 1234" or "".
func holder(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var b [pidWidth]byte
	if _, err := f.ReadAt(b[:], pidAt); err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(", id %d", pid)
}
