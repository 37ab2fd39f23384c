// Package medium writes to and reads from sticks and folders: things that are
// removed too early, are full, lie about what they hold, and may have been
// prepared by an enemy.
//
// Bytes go in and bytes come out; the package does not know what a bundle is.
//
// The property of [Put]: when it returns a receipt, the file stood under its
// final name, was synced together with its folder, was read back and was the
// same, so the stick may be pulled. When it returns an error, nothing that
// stood there before is changed, and calling it again finishes the job.
//
// The property of [Take] and [ReadFile]: only regular files are read, each one
// once, at most [MaxSize] bytes of it, from the top folder alone; no link is
// followed, and no FIFO or device can hold the program up. Names are foreign
// text and are shown with %q only. Times and modes on the medium mean nothing.
//
// The limits: the read-back asks the system to drop its cached copy first, but
// only Linux and macOS listen, and a controller with a cache of its own can
// still lie. Nothing here decides whether the bytes are genuine: signature and
// digest do that. Two programs that put different bytes under the same name into
// the same folder in the same moment are told apart by the read-back, not by a
// lock.
//
// Every error is a [fault.Medium] error, except for a name or a size that
// should never have been asked for, which is [fault.Usage].
package medium

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// MaxSize is the most that a file may hold, in bytes. It is the limit of the
// bundle format, applied before anything is parsed.
const MaxSize = 2 << 20

// NamePattern is what a name looks like that [Put] writes: azs-, the kind, the
// first ten characters of the bundle's identifier in lower-case Crockford
// base32, .azc; or .txt and .txt.sig for what a kiosk writes beside it. Such a
// name is the same on every file system: at most 39 characters, no upper case to
// be folded, no colon, no device name of Windows.
var NamePattern = regexp.MustCompile(`^azs-[a-z]{1,16}-[0-9a-hjkmnp-tv-z]{10}\.(azc|txt|txt\.sig)$`)

// Suffix is how the names end that [Take] looks at, in any letter case.
const Suffix = ".azc"

// Name returns the name under which a bundle is put: Name("request",
// "7Q2MKX4R9D3T0V6PB8W5YHNC1G") is "azs-request-7q2mkx4r9d.azc". Arguments that
// are not a kind and an identifier give a name that [Put] refuses.
func Name(kind, id string) string {
	return "azs-" + kind + "-" + strings.ToLower(id[:min(len(id), 10)]) + Suffix
}

// ReadFile returns the bytes of the one file at path, which the operator named.
// It must be a regular file of 1 to [MaxSize] bytes, not a link to one.
func ReadFile(path string) ([]byte, error) {
	data, err := readRegular(
		func() (fs.FileInfo, error) { return os.Lstat(path) },
		func() (file, error) { return os.OpenFile(path, openFlags, 0) },
	)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.Medium, "the file %q does not exist: %w", path, fs.ErrNotExist)
	case err != nil:
		return nil, fault.New(fault.Medium, "the file %q is not read: %w", path, err)
	case len(data) == 0:
		return nil, fault.New(fault.Medium, "the file %q is not read: %w", path, errEmpty)
	}
	return data, nil
}

var errEmpty = errors.New("it is empty")

// readRegular reads a file that may have been laid out as a trap: it looks at
// the name first, opens it without following a link and without waiting for
// anybody, looks again at what was opened, and only then reads, once. A file
// longer than [MaxSize] is refused, an empty one is not.
func readRegular(look func() (fs.FileInfo, error), open func() (file, error)) ([]byte, error) {
	named, err := look()
	if err != nil {
		return nil, explain(err)
	}
	if err := acceptable(named); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, explain(err)
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil {
		return nil, explain(err)
	}
	if err := acceptable(opened); err != nil {
		return nil, err
	}
	if !os.SameFile(named, opened) {
		return nil, errors.New("it was exchanged for another file while it was being opened")
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, explain(err)
	}
	if int64(len(data)) != opened.Size() {
		return nil, fmt.Errorf("the medium says that it has %d bytes and gave %d", opened.Size(), len(data))
	}
	return data, nil
}

// acceptable says why the thing with this description is not to be read.
func acceptable(info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.IsRegular() && info.Size() > MaxSize:
		return fmt.Errorf("it holds %d bytes, a bundle at most %d", info.Size(), MaxSize)
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return errors.New("it is a folder, not a regular file")
	case mode&fs.ModeSymlink != 0:
		return errors.New("it is a link, not a regular file")
	case mode&fs.ModeNamedPipe != 0:
		return errors.New("it is a FIFO, not a regular file")
	case mode&fs.ModeSocket != 0:
		return errors.New("it is a socket, not a regular file")
	case mode&fs.ModeDevice != 0:
		return errors.New("it is a device, not a regular file")
	}
	return errors.New("it is not a regular file")
}

// explain says in words what the system's answer means for the operator.
func explain(err error) error {
	err = atomicfile.Cause(err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case isAny(err, fullErrors):
		return fmt.Errorf("the medium is full: %w", err)
	case isAny(err, readOnlyErrors):
		return fmt.Errorf("the medium is read-only: %w", err)
	case isAny(err, brokenErrors):
		return fmt.Errorf("the medium fails or was pulled out: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user has no right to: %w", err)
	}
	return err
}

func isAny(err error, list []error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
