// Package atomicfile writes files that are either whole or absent, whatever
// happens half way.
//
// The property: after [Write], [Create] or [Append] returned nil, the bytes are
// on the disk and so is the name. If the process is killed or the power fails
// at any moment before, a reader finds the old file or the new one, never a
// mixture, and for a journal the old lines and at most one unfinished last
// line. Every file is therefore made as
//
//	temporary file in the same folder → write → fsync → rename → fsync of the folder
//
// The limits: a disk that reports a write as durable and then loses it is
// believed; a killed process leaves its temporary file behind, which [Sweep]
// removes; Windows has no fsync of a folder, so there the rename is durable
// only when the file system decides so.
//
// Each step is preceded and followed by a call of [Boundary], which does
// nothing unless the program is built with the tag faultinject. With the tag a
// test kills its own process at every boundary in turn and looks at what is
// left.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Temporary files are named TempPrefix + something + TempSuffix, here and in
// every package that writes in the same manner, so that a reader can pass them
// over and [Sweep] can find them.
const (
	TempPrefix = ".azs-"
	TempSuffix = ".tmp"
)

// A change of the disk is of one kind or of several.
type change int

const (
	grows   change = 1 << iota // takes room
	renames                    // changes names or lengths
	syncs                      // makes durable what was changed
)

// IsTemp reports whether name is that of a temporary file of this program.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, TempPrefix) && strings.HasSuffix(name, TempSuffix)
}

// Write puts data into the file at path, replacing an older file at once. perm
// is the mode of the new file before the umask; the mode of an older file is
// not kept. A link at path is replaced, not followed.
//
// A failure is a [fault.Medium] error, the older file is untouched and the
// temporary file is removed. The one exception is a failed fsync of the folder:
// then the new file stands already, and the error says that it may not be
// durable.
func Write(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, os.Rename)
}

// Create is [Write] that refuses to replace anything: if path exists, also as a
// link to nowhere, the error satisfies errors.Is(err, fs.ErrExist). Two
// processes that create the same path at the same time cannot both succeed.
func Create(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, renameNoReplace)
}

func write(path string, data []byte, perm fs.FileMode, rename func(from, to string) error) error {
	dir := filepath.Dir(path)
	temp, err := writeTemp(dir, filepath.Base(path), data, perm)
	if err != nil {
		return fault.New(fault.Medium, "the file %q could not be written: %w", path, err)
	}
	Boundary("before rename")
	if err = attempt(renames); err == nil {
		err = rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		if errors.Is(err, fs.ErrExist) {
			return fault.New(fault.Medium, "the file %q exists already and is not replaced: %w", path, fs.ErrExist)
		}
		return fault.New(fault.Medium, "the file %q could not be put in place: %w", path, Cause(err))
	}
	Boundary("after rename")
	if err := syncDir(dir); err != nil {
		return fault.New(fault.Medium, "the file %q is written, but its folder could not be synced: %w", path, Cause(err))
	}
	Boundary("after folder fsync")
	return nil
}

// writeTemp leaves data, synced, in a new file in dir and returns its path. On
// an error there is no such file.
func writeTemp(dir, base string, data []byte, perm fs.FileMode) (path string, err error) {
	Boundary("before temp create")
	f, err := createTemp(dir, base, perm)
	if err != nil {
		return "", Cause(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = Cause(err)
		}
	}()
	Boundary("after temp create")
	if err := WriteAll(f, data); err != nil {
		return "", err
	}
	if err := syncFile(f); err != nil {
		return "", err
	}
	Boundary("after fsync")
	if err := f.Close(); err != nil {
		return "", err
	}
	return f.Name(), nil
}

// createTemp opens a file that did not exist. The name is made of the target's
// name, the process id and a number; a file left by an earlier process with the
// same id only moves the number on.
func createTemp(dir, base string, perm fs.FileMode) (*os.File, error) {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s%s-%d-%d%s", TempPrefix, base, os.Getpid(), n, TempSuffix)
		if err := attempt(grows | renames); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) && n < 1000 {
			continue
		}
		return f, err
	}
}

// Append writes line at the end of f, which is open for writing, and syncs it.
// On a short or failed write, or a failed fsync, the file is cut back to its
// old length, so that the next line does not follow half of this one. The error
// is then a [fault.Medium] error; it says so if the cutting failed too.
func Append(f *os.File, line []byte) error {
	old, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fault.New(fault.Medium, "the end of the file %q could not be found: %w", f.Name(), Cause(err))
	}
	Boundary("before append")
	err = WriteAll(f, line)
	if err == nil {
		err = syncFile(f)
	}
	if err == nil {
		Boundary("after append")
		return nil
	}
	if back := cutBack(f, old); back != nil {
		return fault.New(fault.Medium, "the file %q took only a part of a line of %d bytes: %w; it could not be cut back to %d bytes: %w",
			f.Name(), len(line), Cause(err), old, Cause(back))
	}
	return fault.New(fault.Medium, "the file %q could not take a line of %d bytes: %w", f.Name(), len(line), Cause(err))
}

// cutBack gives f the length old again, durably.
func cutBack(f *os.File, old int64) error {
	if err := attempt(renames); err != nil {
		return err
	}
	if err := f.Truncate(old); err != nil {
		return err
	}
	if _, err := f.Seek(old, io.SeekStart); err != nil {
		return err
	}
	return syncFile(f)
}

func syncFile(f *os.File) error {
	if err := attempt(syncs); err != nil {
		return err
	}
	return f.Sync()
}

// WriteAll writes data to w between two boundaries. It is one call of w.Write,
// except under the tag faultinject, where the write is torn in two with a
// boundary between the halves.
func WriteAll(w io.Writer, data []byte) error {
	Boundary("before write")
	for i, piece := range pieces(data) {
		if i > 0 {
			Boundary("torn write")
		}
		if err := attempt(grows); err != nil {
			return err
		}
		n, err := w.Write(piece)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
	}
	Boundary("after write")
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return SyncFolder(f)
}

// SyncFolder makes the names in the open folder durable. Where a folder cannot be
// synced, as on Windows, it does nothing.
func SyncFolder(folder *os.File) error {
	if err := attempt(syncs); err != nil {
		return err
	}
	return syncFolder(folder)
}

// Sweep removes the temporary files that killed processes left in dir. The
// caller holds the lock of the folder: a temporary file that is in use at this
// moment would be removed too, and its writer would fail.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.Medium, "the folder %q could not be read: %w", dir, Cause(err))
	}
	for _, e := range entries {
		if !IsTemp(e.Name()) || e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.Medium, "the left-over file %q in %q could not be removed: %w", e.Name(), dir, Cause(err))
		}
	}
	return nil
}

// Cause returns the operating system's own answer, without the operation and
// the path that the os package put around it: the sentence that it goes into
// names the file already, and the path may be that of a temporary file.
func Cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) {
		return linkErr.Err
	}
	return err
}
