package medium

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// A file that the operator named is written once, the same bytes again are fine,
// and nothing else is ever put in its place: no file, no folder, no link.
func TestSaveReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.txt")
	for range 2 {
		if err := Save(path, []byte(text), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "empty"), "")
	want := map[string]string{"key.txt": text, "folder": "d---------", "empty": ""}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err == nil {
		want["link"] = "L---------"
	}
	for name := range want {
		err := Save(filepath.Join(dir, name), []byte("something else"), true)
		if fault.KindOf(err) != fault.Usage && fault.KindOf(err) != fault.Medium {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantFolder(t, dir, want)
}

// Threat: a bundle that grew by an approval replaces something else, or is lost half
// way.
func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "request.azc")
	was, grown := []byte("bundle\n"), []byte("bundle\nand an approval\n")
	if err := os.WriteFile(path, was, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("other\n"), grown); fault.KindOf(err) != fault.Usage {
		t.Errorf("what was changed meanwhile: %v", err)
	}
	if got, err := ReadFile(path); err != nil || !bytes.Equal(got, was) {
		t.Errorf("%q, %v", got, err)
	}
	if err := Replace(path, was, grown); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(path); err != nil || !bytes.Equal(got, grown) {
		t.Errorf("%q, %v", got, err)
	}
	if err := Replace(path+".none", was, grown); fault.KindOf(err) != fault.Medium {
		t.Errorf("what is not there: %v", err)
	}
}
