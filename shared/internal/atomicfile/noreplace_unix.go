//go:build linux || darwin

package atomicfile

import "os"

// linkAndRemove is a rename that fails if to exists, on every file system that
// has hard links. Killed between its two steps it leaves the file whole under
// both names.
func linkAndRemove(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
