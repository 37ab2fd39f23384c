package medium

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// folder is what a medium has to offer: a flat set of names. Names are single
// path elements.
type folder interface {
	Path() string                           // as the operator gave it
	Names(most int) ([]string, error)       // at most most+1 names, so that a caller sees that there are more
	Lstat(name string) (fs.FileInfo, error) // of the name itself
	Create(name string) (file, error)       // a new file, for writing
	Open(name string) (file, error)         // for reading, from the medium, without waiting
	Rename(from, to string) error           // replaces
	Remove(name string) error
	Sync(name string) error // of a file
	SyncNames() error       // of the folder itself
}

// file is an open file in a folder.
type file interface {
	io.ReadWriteCloser
	Stat() (fs.FileInfo, error)
	Sync() error
}

// rooted is a real folder. All access goes through [os.Root], so that no name
// can lead out of it; os.Root follows links that stay inside and opens devices,
// which is why [readRegular] looks twice.
type rooted struct{ *os.Root }

// openFolder opens the folder at path. The path itself may be a link: it is the
// operator's own, such as the mount point of a stick.
func openFolder(path string) (rooted, error) {
	// os.OpenRoot would wait for ever on a FIFO.
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return rooted{}, fault.New(fault.Medium, "%q is not a folder", path)
	}
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return rooted{}, fault.New(fault.Medium, "the folder %q does not exist: %w", path, fs.ErrNotExist)
	case err != nil:
		return rooted{}, fault.New(fault.Medium, "the folder %q could not be opened: %w", path, explain(err))
	}
	return rooted{root}, nil
}

func (r rooted) Path() string { return r.Name() }

func (r rooted) Names(most int) ([]string, error) {
	f, err := r.Root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for len(names) <= most {
		some, err := f.Readdirnames(most + 1 - len(names))
		names = append(names, some...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (r rooted) Create(name string) (file, error) {
	return r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func (r rooted) Open(name string) (file, error) {
	f, err := r.OpenFile(name, openFlags, 0)
	if err != nil {
		return nil, err
	}
	dropCache(f)
	return f, nil
}

func (r rooted) Sync(name string) error {
	f, err := r.OpenFile(name, syncFlags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (r rooted) SyncNames() error {
	f, err := r.Root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.SyncFolder(f)
}
