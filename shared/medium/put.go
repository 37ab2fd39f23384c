package medium

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// Receipt says what is on the medium, synced and read back: it is safe to
// remove.
type Receipt struct {
	Path    string // the folder as it was given, and the name
	Size    int    // bytes
	SHA256  string // of the file, in hex
	Already bool   // the same file was there before
}

// Put writes data under name into the folder dir, syncs it and reads it back.
//
// The name fits [NamePattern]. The same bytes under the same name are fine:
// they are synced and checked again. A file that is only the beginning of data
// is a copy that was cut off, and is replaced. Any other file of that name is
// left as it is, and the error names both digests.
func Put(dir, name string, data []byte) (Receipt, error) {
	if !NamePattern.MatchString(name) {
		return Receipt{}, fault.New(fault.Usage, "the name %q is not one to write on a medium; such a name looks like %q",
			name, Name("request", "7Q2MKX4R9D"))
	}
	if len(data) == 0 || len(data) > MaxSize {
		return Receipt{}, fault.New(fault.Usage, "the file %q would have %d bytes; 1 to %d are possible", name, len(data), MaxSize)
	}
	f, err := openFolder(dir)
	if err != nil {
		return Receipt{}, err
	}
	defer f.Close()
	return put(f, name, data)
}

func put(dir folder, name string, data []byte) (Receipt, error) {
	receipt := Receipt{Path: filepath.Join(dir.Path(), name), Size: len(data), SHA256: digest(data)}
	held, err := read(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Receipt{}, fault.New(fault.Medium, "%q is in the way and is left as it is: %w", receipt.Path, err)
	case bytes.Equal(held, data):
		receipt.Already = true
	case bytes.HasPrefix(data, held): // cut off
	default:
		return Receipt{}, fault.New(fault.Medium,
			"%q holds another file and is left as it is: %d bytes with SHA-256 %s are there, %d bytes with SHA-256 %s were to be written",
			receipt.Path, len(held), digest(held), receipt.Size, receipt.SHA256)
	}
	if receipt.Already {
		// What cannot be written has nothing left to be written.
		if err := dir.Sync(name); err != nil && !isAny(err, readOnlyErrors) && !errors.Is(err, fs.ErrPermission) {
			return Receipt{}, fault.New(fault.Medium, "%q could not be synced: %w", receipt.Path, explain(err))
		}
	} else if err := place(dir, name, data); err != nil {
		return Receipt{}, fault.New(fault.Medium, "%q of %d bytes could not be written: %w", receipt.Path, receipt.Size, explain(err))
	}
	if err := dir.SyncNames(); err != nil {
		return Receipt{}, fault.New(fault.Medium, "the folder of %q could not be synced, so it is not safe to remove: %w", receipt.Path, explain(err))
	}
	atomicfile.Boundary("after folder fsync")
	if err := compare(dir, name, data); err != nil {
		if !receipt.Already {
			dir.Remove(name) // it is ours and worthless, and would be in the way of the next attempt
		}
		return Receipt{}, fault.New(fault.Medium, "%q does not read back as it was written: %w", receipt.Path, err)
	}
	atomicfile.Boundary("after read back")
	return receipt, nil
}

// place writes data into a temporary file and renames it to name. On an error
// the temporary file is removed, if the medium lets it. One that an earlier,
// killed attempt left for the same name is removed first.
func place(dir folder, name string, data []byte) (err error) {
	temp := "." + name + atomicfile.TempSuffix
	atomicfile.Boundary("before temp create")
	if err := dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.Create(temp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			dir.Remove(temp)
		}
	}()
	atomicfile.Boundary("after temp create")
	if err := atomicfile.WriteAll(f, data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	atomicfile.Boundary("after fsync")
	if err := f.Close(); err != nil {
		return err
	}
	atomicfile.Boundary("before rename")
	if err := dir.Rename(temp, name); err != nil {
		return err
	}
	atomicfile.Boundary("after rename")
	return nil
}

// compare reads name again and says how it differs from data.
func compare(dir folder, name string, data []byte) error {
	got, err := read(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the medium does not hold it")
	case err != nil:
		return err
	case bytes.Equal(got, data):
		return nil
	case len(got) < len(data) && bytes.HasPrefix(data, got):
		return fmt.Errorf("the medium holds the first %d of %d bytes", len(got), len(data))
	}
	return fmt.Errorf("the medium holds %d bytes with SHA-256 %s, not %d bytes with SHA-256 %s", len(got), digest(got), len(data), digest(data))
}

func read(dir folder, name string) ([]byte, error) {
	return readRegular(
		func() (fs.FileInfo, error) { return dir.Lstat(name) },
		func() (file, error) { return dir.Open(name) },
	)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Probe reports whether dir can be written: it writes a small file as Put does,
// reads it back and removes it again.
func Probe(dir string) error {
	f, err := openFolder(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return probe(f)
}

func probe(dir folder) error {
	name, data := Name("probe", "0000000000"), []byte("written to see whether this can be written; it may be removed\n")
	err := place(dir, name, data)
	if err == nil { // else nothing of ours stands there
		err = errors.Join(compare(dir, name, data), dir.Remove(name))
	}
	if err != nil {
		return fault.New(fault.Medium, "%q cannot be written: %w", dir.Path(), explain(err))
	}
	return nil
}
