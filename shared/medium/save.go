package medium

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// Save writes a file that the operator named, such as an official key file or a
// bundle outside of any stick: whole or not at all, synced, readable by the
// owner alone if private. The same bytes under the same name again are fine; a
// file with other contents is never replaced and is a [fault.Usage] error.
func Save(path string, data []byte, private bool) error {
	perm := fs.FileMode(0o644)
	if private {
		perm = 0o600
	}
	same, err := standing(path, data)
	if err != nil || same {
		return err
	}
	err = atomicfile.Create(path, data, perm)
	if errors.Is(err, fs.ErrExist) { // since the look
		if same, now := standing(path, data); same || now != nil {
			return now
		}
	}
	return err
}

// Replace puts data in the place of the file at path, at once, if that still holds
// was: for a file that only grows, as a bundle does by an approval. The new one is
// read back. What does not hold was is a [fault.Usage] error and is left alone.
func Replace(path string, was, data []byte) error {
	now, err := ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, was) {
		return fault.New(fault.Usage, "the file %q was changed meanwhile and is left alone", path)
	}
	if err := atomicfile.Write(path, data, 0o644); err != nil {
		return err
	}
	if now, err = ReadFile(path); err == nil && !bytes.Equal(now, data) {
		err = fault.New(fault.Medium, "the file %q is not what was written to it: the medium cannot be trusted", path)
	}
	return err
}

// CheckSave reports, before anything is done, whether [Save] would be refused for
// a file that stands at path already.
func CheckSave(path string, data []byte) error {
	_, err := standing(path, data)
	return err
}

// standing reports whether a file with these bytes stands at path. Anything else
// there, also a link to nowhere, is a [fault.Usage] error.
func standing(path string, data []byte) (same bool, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if old, err := ReadText(path, len(data)); err == nil && bytes.Equal(old, data) {
		return true, nil
	}
	return false, fault.New(fault.Usage, "the file %q exists with other contents and is not replaced", path).
		Hint("the same command with another file name")
}

// ReadText reads a regular file that the operator named, of at most limit bytes.
// Unlike [ReadFile] it may be empty, and a link to a file is followed: it is the
// operator's own.
func ReadText(path string, limit int) ([]byte, error) {
	info, err := os.Stat(path) // before opening, so that a FIFO cannot hold the program up
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be read: %w", path, explain(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Medium, "%q is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be read: %w", path, explain(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Medium, "the file %q could not be read: %w", path, explain(err))
	case len(data) > limit:
		return nil, fault.New(fault.Medium, "the file %q has more than %d bytes", path, limit)
	}
	return data, nil
}
