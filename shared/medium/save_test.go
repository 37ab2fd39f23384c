package medium

import (
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
