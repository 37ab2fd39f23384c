//go:build !windows

package medium

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A FIFO that nobody writes to would hold an open for ever; a test that hangs
// here is the failure.
func TestFIFOsHoldNobodyUp(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, name)
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skipf("no FIFOs here: %v", err)
	}
	const want = "it is a FIFO, not a regular file"

	entries, skipped, err := Take(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("take: %v, %v", entries, err)
	}
	wantSkipped(t, skipped, []string{`"` + name + `": ` + want})

	_, err = ReadFile(fifo)
	wantFault(t, err, want)
	_, err = Put(dir, name, []byte(text))
	wantFault(t, err, want)

	_, _, err = Take(fifo)
	wantFault(t, err, "is not a folder")
	_, err = Put(fifo, name, []byte(text))
	wantFault(t, err, "is not a folder")
}

// A FIFO that takes the place of a file after the look is opened without
// waiting, and not read.
func TestAFIFOThatComesAfterTheLook(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.azc")
	writeFile(t, path, "x")
	real, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	_, skipped, err := take(&badFolder{folder: real, opened: func(folder, string) {
		os.Remove(path)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Skipf("no FIFOs here: %v", err)
		}
	}}, 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	wantSkipped(t, skipped, []string{`"x.azc": it is a FIFO, not a regular file`})
}

func TestSocketsAndDevices(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket.azc")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skipf("no sockets here: %v", err)
	}
	defer l.Close()
	want := []string{`"socket.azc": it is a socket, not a regular file`}

	// /dev/zero never ends. Only root makes devices.
	if err := mknodZero(filepath.Join(dir, "zero.azc")); err != nil {
		t.Logf("no device on the stick: %v", err)
	} else {
		want = append(want, `"zero.azc": it is a device, not a regular file`)
	}
	// A link to one needs no rights.
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "zlink.azc")); err != nil {
		t.Fatal(err)
	}
	want = append(want, `"zlink.azc": it is a link, not a regular file`)

	entries, skipped, err := Take(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("take: %v, %v", entries, err)
	}
	wantSkipped(t, skipped, want)

	_, err = ReadFile("/dev/zero")
	wantFault(t, err, "it is a device")
	_, err = ReadFile(filepath.Join(dir, "zlink.azc"))
	wantFault(t, err, "it is a link")
	if _, err = ReadFile("/dev/stdin"); err == nil || strings.Contains(err.Error(), "does not exist") {
		t.Errorf("/dev/stdin: %v", err)
	}
}
