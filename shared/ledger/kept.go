package ledger

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// maxKept is the size of the largest bundle, as the receiver reads it.
const maxKept = 2 << 20

// Keep stores a sealed bundle under a name of a-z, 0-9 and hyphen that ends in
// ".azc". To keep the same bytes again is fine, so that a trip which was killed
// can be repeated; other bytes under a name that is taken are [fault.Refused].
func (l *Ledger) Keep(name string, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	if err := checkKeptName(name); err != nil {
		return err
	}
	if len(data) > maxKept {
		return fault.New(fault.Refused, "the bundle %q has %d bytes, at most %d are kept", name, len(data), maxKept)
	}
	path := filepath.Join(l.dir, bundlesDir, name)
	err := atomicfile.Create(path, data, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, err := readRegular(path, maxKept)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, data) {
		return fault.New(fault.Refused, "the kept bundle %q has %d bytes with SHA-256 %s and is not replaced by %d bytes with SHA-256 %s",
			path, len(old), digest(old), len(data), digest(data))
	}
	// A process that was killed may have left the name without syncing it.
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fault.New(fault.Medium, "the folder of the kept bundle %q could not be synced: %w", path, atomicfile.Cause(err))
	}
	return nil
}

// Kept returns the bundle kept under the name, a regular file of at most 2 MiB.
// If there is none, the error satisfies errors.Is(err, fs.ErrNotExist).
func (l *Ledger) Kept(name string) ([]byte, error) {
	if err := checkKeptName(name); err != nil {
		return nil, err
	}
	return readRegular(filepath.Join(l.dir, bundlesDir, name), maxKept)
}

// KeptNames returns the names of the kept bundles, sorted. Other files in the
// folder are passed over.
func (l *Ledger) KeptNames() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, bundlesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Medium, "the kept bundles of %q could not be listed: %w", l.dir, atomicfile.Cause(err))
	}
	var names []string
	for _, e := range entries {
		if checkKeptName(e.Name()) == nil && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func checkKeptName(name string) error {
	stem, ok := strings.CutSuffix(name, ".azc")
	if !ok || !isName(stem, isKeyByte) {
		return fault.New(fault.Unexpected, "the name %q is not 1 to %d characters a-z, 0-9 and hyphen with the ending .azc", name, maxName)
	}
	return nil
}

func makeBundles(dir string) error {
	err := os.Mkdir(filepath.Join(dir, bundlesDir), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		return fault.New(fault.Medium, "the folder %q in %q could not be made: %w", bundlesDir, dir, atomicfile.Cause(err))
	}
	return nil
}

// syncFolder makes the names in dir durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.SyncFolder(f)
}
