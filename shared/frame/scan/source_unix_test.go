//go:build unix

package scan

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// TestAPipeIsNoPicture holds that a named pipe, which would block for ever, is not
// opened, alone or in a folder.
func TestAPipeIsNoPicture(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "a.png")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := Open(t.Context(), pipe, DefaultLimits()); fault.KindOf(err) != fault.Medium {
		t.Errorf("a pipe: %v", err)
	}
	s, err := Open(t.Context(), dir, DefaultLimits())
	if _, names, _ := all(t, s, err); len(names) != 0 {
		t.Errorf("read from a pipe in a folder: %q", names)
	}
}
