package ledger

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// maxKept is the size of the largest bundle, as the receiver reads it.
const maxKept = 2 << 20

// Keep stores a sealed bundle under a name of a-z, 0-9 and hyphen that ends in
// ".azc". To keep the same bytes again is fine, so that a trip which was killed
// can be repeated; other bytes under a name that is taken are [fault.Refused].
func (l *Ledger) Keep(name string, data []byte) error {
	if err := l.writable(); err != nil {
		return err
	}
	if err := checkKeptName(name); err != nil {
		return err
	}
	if len(data) > maxKept {
		return fault.New(fault.Refused, "the bundle %q has %d bytes, at most %d are kept", name, len(data), maxKept)
	}
	err := l.store.Keep(name, data)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, err := l.store.Kept(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, data) {
		return fault.New(fault.Refused, "the kept bundle %q of the %s has %d bytes with SHA-256 %s and is not replaced by %d bytes with SHA-256 %s",
			name, l.store, len(old), digest(old), len(data), digest(data))
	}
	return nil
}

// Kept returns the bundle kept under the name, a regular file of at most 2 MiB.
// If there is none, the error satisfies errors.Is(err, fs.ErrNotExist).
func (l *Ledger) Kept(name string) ([]byte, error) {
	if err := checkKeptName(name); err != nil {
		return nil, err
	}
	return l.store.Kept(name)
}

// KeptNames returns the names of the kept bundles, sorted. Other files in the
// folder are passed over.
func (l *Ledger) KeptNames() ([]string, error) {
	names, err := l.store.KeptNames()
	return slices.DeleteFunc(names, func(name string) bool { return checkKeptName(name) != nil }), err
}

func checkKeptName(name string) error {
	stem, ok := strings.CutSuffix(name, ".azc")
	if !ok || !isName(stem, isKeyByte) {
		return fault.New(fault.Unexpected, "the name %q is not 1 to %d characters a-z, 0-9 and hyphen with the ending .azc", name, maxName)
	}
	return nil
}
