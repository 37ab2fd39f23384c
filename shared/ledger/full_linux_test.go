package ledger

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// mountTemp mounts a small file system of its own in a new folder.
func mountTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no file system can be mounted here (%v): a full or read-only disk cannot be tried", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("the file system on %s stays mounted: %v", dir, err)
		}
	})
	return dir
}

// Threat: the disk is full. The line is refused, the journal is what it was, and
// the next line fits when there is room again.
func TestAFullDisk(t *testing.T) {
	disk := mountTemp(t)
	dir := filepath.Join(disk, "home")
	l, err := Create(dir, Agent, &steps{noon})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk did not fill: %v", err)
	}
	// The last page of the journal still has room for some lines; then a line
	// fails that begins on the page and does not end on it.
	long := map[string]string{"text": strings.Repeat("x", 1000)}
	good := 1
	for {
		before := readJournalFile(t, dir)
		_, err := l.Append("put", "", long)
		if err == nil {
			good++
			continue
		}
		wantKind(t, err, fault.Medium, journalFile)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v, want ENOSPC in its chain", err)
		}
		if !bytes.Equal(before, readJournalFile(t, dir)) {
			t.Error("the journal changed")
		}
		break
	}
	wantKind(t, l.Keep("a.azc", make([]byte, 8192)), fault.Medium)
	if names, err := l.KeptNames(); err != nil || len(names) != 0 {
		t.Errorf("names %v, %v", names, err)
	}
	if v, err := View(dir, Agent, clock.Fixed(noon)); err != nil || len(v.Entries()) != good {
		t.Errorf("a view on the full disk: %v", err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "put", "", long)
	mustClose(t, l)
	if got := len(mustOpen(t, dir, Agent).Entries()); got != good+1 {
		t.Errorf("%d entries, want %d", got, good+1)
	}
}

// A torn journal on a full disk is left torn: there is no room for the repair.
func TestARepairOnAFullDisk(t *testing.T) {
	disk := mountTemp(t)
	dir := filepath.Join(disk, "home")
	l, err := Create(dir, Agent, &steps{noon})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	torn := append(readJournalFile(t, dir), "half a line"...)
	writeJournalFile(t, dir, torn)
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk did not fill: %v", err)
	}
	_, err = open(dir, Agent, clock.Fixed(noon), 0)
	wantKind(t, err, fault.Medium)
	if !bytes.Equal(torn, readJournalFile(t, dir)) {
		t.Error("the journal changed")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if got := len(mustOpen(t, dir, Agent).Entries()); got != 2 {
		t.Errorf("%d entries, want init and repaired", got)
	}
}

func TestAReadOnlyDisk(t *testing.T) {
	disk := mountTemp(t)
	dir := filepath.Join(disk, "home")
	l, err := Create(dir, Agent, &steps{noon})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("the file system cannot be made read-only here: %v", err)
	}
	_, err = open(dir, Agent, clock.Fixed(noon), 0)
	wantKind(t, err, fault.Medium, dir)
	if !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v, want EROFS in its chain", err)
	}
	_, err = Create(filepath.Join(disk, "new"), Agent, clock.Fixed(noon))
	wantKind(t, err, fault.Medium, "could not be made")
	v, err := View(dir, Agent, clock.Fixed(noon))
	if err != nil || len(v.Entries()) != 1 {
		t.Errorf("a view of a read-only disk: %v", err)
	}
}
