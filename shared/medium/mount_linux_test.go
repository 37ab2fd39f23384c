package medium

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/azs-courier/azs-courier/shared/fault"
)

func mknodZero(path string) error {
	return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))
}

// mount gives a folder with a file system of its own, or skips the test.
func mount(t *testing.T, source, kind string, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(source, dir, kind, flags, options); err != nil {
		t.Skipf("this user or system cannot mount %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestPutOnAFullStick(t *testing.T) {
	dir := mount(t, "tmpfs", "tmpfs", 0, "size=64k")
	big := []byte(strings.Repeat("x", 100_000))
	_, err := Put(dir, name, big)
	wantFault(t, err, "the medium is full")
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want ENOSPC in its chain", err)
	}
	wantFolder(t, dir, nil)

	// What fits, fits; what was there stays when the next one does not fit.
	if _, err := Put(dir, name, []byte(text)); err != nil {
		t.Fatal(err)
	}
	_, err = Put(dir, Name("answer", "7q2mkx4r9d"), big)
	wantFault(t, err, "the medium is full")
	wantFolder(t, dir, map[string]string{name: text})
}

func TestPutOnAStickWithoutRoomForNames(t *testing.T) {
	dir := mount(t, "tmpfs", "tmpfs", 0, "nr_inodes=1")
	_, err := Put(dir, name, []byte(text))
	wantFault(t, err, "the medium is full")
	wantFolder(t, dir, nil)
}

func TestPutOnAReadOnlyStick(t *testing.T) {
	dir := mount(t, "tmpfs", "tmpfs", 0, "size=64k")
	writeFile(t, filepath.Join(dir, name), text)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot remount: %v", err)
	}
	_, err := Put(dir, Name("answer", "7q2mkx4r9d"), []byte(text))
	wantFault(t, err, "the medium is read-only")
	wantFolder(t, dir, map[string]string{name: text})

	// Reading needs no writing, and neither does what is there already.
	if entries, _, err := Take(dir); err != nil || len(entries) != 1 {
		t.Errorf("take: %v, %v", entries, err)
	}
	if r, err := Put(dir, name, []byte(text)); err != nil || !r.Already {
		t.Errorf("put again: %+v, %v", r, err)
	}
}

// A stick as it comes from the shop. FAT folds letter case, has no links and no
// rights.
func TestFAT(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.vfat")
	if err != nil {
		t.Skipf("no mkfs.vfat: %v", err)
	}
	systems, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(systems), "vfat") {
		t.Skip("the kernel has no vfat")
	}
	image := filepath.Join(t.TempDir(), "stick.img")
	if out, err := exec.Command(mkfs, "-C", image, "1440").CombinedOutput(); err != nil {
		t.Skipf("mkfs.vfat: %v: %s", err, out)
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this user or system cannot mount a loop: %v: %s", err, out)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })

	for i := range 2 {
		if r, err := Put(dir, name, []byte(text)); err != nil || r.Already != (i > 0) {
			t.Fatalf("put %d: %+v, %v", i, r, err)
		}
	}
	// The same name in the letters of a machine that folds it.
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, strings.ToUpper(name))); err != nil {
		t.Fatal(err)
	}
	if r, err := Put(dir, name, []byte(text)); err != nil || !r.Already {
		t.Errorf("put under another letter case: %+v, %v", r, err)
	}
	entries, skipped, err := Take(dir)
	if err != nil || len(skipped) != 0 || len(entries) != 1 || string(entries[0].Data) != text {
		t.Errorf("take: %v, %v, %v", entries, skipped, err)
	}
	_, err = Put(dir, Name("answer", "7q2mkx4r9d"), make([]byte, MaxSize))
	if fault.KindOf(err) != fault.Medium || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("2 MiB on 1.4 MiB: %v", err)
	}
}
