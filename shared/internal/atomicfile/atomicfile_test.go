package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
)

func TestWriteReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, text := range []string{"first, which is longer", "second", ""} {
		if err := Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wantFolder(t, filepath.Dir(path), map[string]string{"state.json": text})
	}
	if info, err := os.Stat(path); err != nil {
		t.Fatal(err)
	} else if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode().Perm())
	}
}

func TestWriteReplacesALinkAndDoesNotFollowIt(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	writeFile(t, target, "untouched")
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := Write(filepath.Join(dir, "link"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "link")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link is still a link: %v, %v", info, err)
	}
	wantFolder(t, dir, map[string]string{"link": "new", "target": "untouched"})
}

func TestAFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
		write            func(string, []byte, fs.FileMode) error
	}{
		{"missing folder", filepath.Join(dir, "no", "file"), "could not be written", Write},
		{"a folder has the name", filepath.Join(dir, "taken"), "exists already", Write},
		{"create: a folder has the name", filepath.Join(dir, "taken"), "exists already", Create},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.write(tt.path, []byte("x"), 0o600)
			wantFault(t, err, tt.want)
			if !strings.Contains(err.Error(), tt.path) && runtime.GOOS != "windows" {
				t.Errorf("error does not name %s: %v", tt.path, err)
			}
			wantFolder(t, dir, map[string]string{"taken/": ""})
		})
	}
}

func TestCreateRefusesToReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.txt")
	if err := Create(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Create(path, []byte("new"), 0o600)
	wantFault(t, err, "exists already")
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("errors.Is(%v, fs.ErrExist) is false", err)
	}
	wantFolder(t, dir, map[string]string{"key.txt": "old"})
}

func TestCreateRefusesALinkToNowhere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := Create(filepath.Join(dir, "link"), []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("the link was followed")
	}
}

// Of many that create one path at once exactly one wins, and its bytes stay.
func TestCreateHasOneWinner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "one")
	var mu sync.Mutex
	var won []string
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			text := strings.Repeat(string(rune('a'+i)), 1000)
			err := Create(path, []byte(text), 0o600)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, text)
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("got %v, want fs.ErrExist", err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d winners, want 1", len(won))
	}
	wantFolder(t, dir, map[string]string{"one": won[0]})
}

func TestAppend(t *testing.T) {
	for _, flags := range []int{os.O_RDWR, os.O_WRONLY | os.O_APPEND} {
		path := filepath.Join(t.TempDir(), "journal")
		writeFile(t, path, "1\n")
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, line := range []string{"2\n", "3\n"} {
			if err := Append(f, []byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if got := readFile(t, path); got != "1\n2\n3\n" {
			t.Errorf("flags %#x: journal is %q", flags, got)
		}
	}
}

func TestAppendToAFileOpenForReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	writeFile(t, path, "1\n")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantFault(t, Append(f, []byte("2\n")), "could not be cut back to 2 bytes")
	if got := readFile(t, path); got != "1\n" {
		t.Errorf("journal is %q", got)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".azs-a-1-0.tmp", ".azs-b.tmp", "keep", ".azs-keep", "keep.tmp"} {
		writeFile(t, filepath.Join(dir, name), "x")
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	wantFolder(t, dir, map[string]string{"keep": "x", ".azs-keep": "x", "keep.tmp": "x"})
	wantFault(t, Sweep(filepath.Join(dir, "missing")), "could not be read")
}

// A temporary file left by a dead process with the same id is in the way of
// the name, not of the write.
func TestALeftOverTemporaryFileIsInNobodysWay(t *testing.T) {
	dir := t.TempDir()
	f, err := createTemp(dir, "state", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Write(filepath.Join(dir, "state"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFolder(t, dir, map[string]string{"state": "x", filepath.Base(f.Name()): ""})
}

// wantFolder compares the regular files in dir and their bytes; a folder is
// named with a slash.
func wantFolder(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			got[e.Name()+"/"] = ""
			continue
		}
		got[e.Name()] = readFile(t, filepath.Join(dir, e.Name()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("folder differs (-want +got):\n%s", diff)
	}
}

func wantFault(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", text)
	}
	if fault.KindOf(err) != fault.Medium || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v error %q, want a medium error with %q", fault.KindOf(err), err, text)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
