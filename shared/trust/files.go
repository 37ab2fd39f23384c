package trust

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// Files are the few small files of a store: the state folder, or a database that
// several hosts share. Names are those of the package comment, with a slash in
// peers/LABEL.peer. Each write replaces a file at once and is durable when it
// returns.
type Files interface {
	// String names the place in messages: `state folder /var/lib/azs-relay`.
	String() string
	// Private reports whether the place belongs to one account of one machine. An
	// identity without a passphrase is kept nowhere else.
	Private() bool
	// ReadFile returns a file of at most limit bytes. If there is none, the error
	// satisfies errors.Is(err, fs.ErrNotExist).
	ReadFile(name string, limit int64) ([]byte, error)
	// WriteFile makes or replaces a file; public says whether others may read it.
	WriteFile(name string, data []byte, public bool) error
	// RenameFile replaces the file at to, if there is one.
	RenameFile(from, to string) error
	// RemoveFile removes a file; one that is not there is fine.
	RemoveFile(name string) error
	// FileNames returns the names of the files below peers, sorted.
	FileNames() ([]string, error)
}

// storing says what could not be read or written; where the place could not be
// reached, the kind stays [fault.Unreachable].
func storing(what string, err error) error {
	kind := fault.Medium
	if fault.KindOf(err) == fault.Unreachable {
		kind = fault.Unreachable
	}
	return fault.New(kind, "%s: %w", what, err)
}

// folder is a state folder.
type folder string

func (d folder) String() string { return "state folder " + string(d) }

func (d folder) Private() bool { return true }

func (d folder) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

// ReadFile reads a regular file only.
func (d folder) ReadFile(name string, limit int64) ([]byte, error) {
	path := d.path(name)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

func (d folder) WriteFile(name string, data []byte, public bool) error {
	if err := os.MkdirAll(d.path(peersName), 0o700); err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if public {
		mode = 0o644
	}
	return atomicfile.Write(d.path(name), data, mode)
}

func (d folder) RenameFile(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d folder) RemoveFile(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (d folder) FileNames() ([]string, error) {
	paths, err := filepath.Glob(d.path(peersName + "/*"))
	for i, path := range paths {
		paths[i] = peersName + "/" + filepath.Base(path)
	}
	return paths, err
}
