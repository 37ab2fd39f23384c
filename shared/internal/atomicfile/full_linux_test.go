package atomicfile

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// limitFiles makes every write past size bytes of a file fail, short first, as
// a full disk does (RLIMIT_FSIZE, setrlimit(2)). It needs no rights.
//
// The limit holds for the whole process, and go test writes files of its own, so
// the test runs in a process of its own: where limitFiles returns false, it has,
// and there is nothing left to do.
func limitFiles(t *testing.T, size uint64) bool {
	t.Helper()
	if os.Getenv("AZS_TEST_LIMITED") == "" {
		child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), "AZS_TEST_LIMITED=1")
		if out, err := child.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("%v\n%s", err, out)
		}
		return false
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	})
	return true
}

func TestAWriteThatDoesNotFitLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	writeFile(t, path, "old")
	if !limitFiles(t, 100) {
		return
	}
	for name, err := range map[string]error{
		"write":  Write(path, []byte(strings.Repeat("x", 1000)), 0o600),
		"create": Create(path+"2", []byte(strings.Repeat("x", 1000)), 0o600),
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, err, "could not be written")
			if !errors.Is(err, syscall.EFBIG) {
				t.Errorf("got %v, want EFBIG in its chain", err)
			}
		})
	}
	wantFolder(t, dir, map[string]string{"state": "old"})
}

func TestALineThatDoesNotFitIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	writeFile(t, path, "one\n")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !limitFiles(t, 10) {
		return
	}
	wantFault(t, Append(f, []byte("a long second line\n")), "could not take a line of 19 bytes")
	if got := readFile(t, path); got != "one\n" {
		t.Fatalf("journal is %q", got)
	}
	if err := Append(f, []byte("two\n")); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, path); got != "one\ntwo\n" {
		t.Errorf("journal is %q", got)
	}
}
