package medium

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTake(t *testing.T) {
	dir := t.TempDir()
	for file, data := range map[string]string{
		"azs-request-7q2mkx4r9d.azc": "one",
		"Copy of ANSWER.AZC":         "two",
		"b.Azc":                      "three",
		"empty.azc":                  "",
		"most.azc":                   strings.Repeat("x", MaxSize),
		"over.azc":                   strings.Repeat("x", MaxSize+1),
		// What sticks are full of.
		"._azs-request-7q2mkx4r9d.azc":        "AppleDouble",
		".hidden.azc":                         "x",
		".azc":                                "x",
		".azs-request-7q2mkx4r9d.azc.tmp":     "left over",
		"autorun.inf":                         "[autorun]",
		"azs-request-7q2mkx4r9d.azc.lnk":      "x",
		"azs-request-7q2mkx4r9d.azc.exe":      "x",
		"token.txt":                           "x",
		"azc":                                 "x",
		"System Volume Information/x.azc":     "x",
		".Trash-1000/x.azc":                   "x",
		"$RECYCLE.BIN/x.azc":                  "x",
		"folder.azc/x.azc":                    "x",
		"subfolder/azs-answer-0000000000.azc": "x",
	} {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, data)
	}
	entries, skipped, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, entries, []Entry{
		{"Copy of ANSWER.AZC", []byte("two")},
		{"azs-request-7q2mkx4r9d.azc", []byte("one")},
		{"b.Azc", []byte("three")},
		{"most.azc", []byte(strings.Repeat("x", MaxSize))},
	})
	wantSkipped(t, skipped, []string{
		`"empty.azc": it is empty`,
		`"folder.azc": it is a folder, not a regular file`,
		`"over.azc": it holds 2097153 bytes, a bundle at most 2097152`,
	})
}

func TestTakeFollowsNoLinks(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "stick")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(outer, "private"), "private")
	writeFile(t, filepath.Join(dir, "real.azc"), "real")
	for link, target := range map[string]string{
		"absolute.azc": filepath.Join(outer, "private"),
		"inside.azc":   "real.azc",
		"loop.azc":     "loop.azc",
		"nowhere.azc":  "nowhere",
		"outside.azc":  "../private",
		"folder.azc":   "..",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	entries, skipped, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, entries, []Entry{{"real.azc", []byte("real")}})
	var want []string
	for _, link := range []string{"absolute", "folder", "inside", "loop", "nowhere", "outside"} {
		want = append(want, fmt.Sprintf(`"%s.azc": it is a link, not a regular file`, link))
	}
	wantSkipped(t, skipped, want)

	_, err = ReadFile(filepath.Join(dir, "inside.azc"))
	wantFault(t, err, "it is a link")
}

// The folder itself may be reached by a link: the operator named it.
func TestTakeFromALinkToTheMountPoint(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "x.azc"), "x")
	link := filepath.Join(t.TempDir(), "usb")
	if err := os.Symlink(dir, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	entries, skipped, err := Take(link)
	if err != nil || len(skipped) != 0 {
		t.Fatal(skipped, err)
	}
	wantEntries(t, entries, []Entry{{"x.azc", []byte("x")}})
}

// Names with escapes, line ends and direction marks come out as they are, and
// are quoted where this package makes text of them.
func TestTakeQuotesForeignNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows allows no such names")
	}
	dir := t.TempDir()
	names := []string{"\x1b[31mred.azc", "a\nazs-agent: error: none.azc", "x\u202ecza.exe.azc"}
	for _, n := range names {
		writeFile(t, filepath.Join(dir, n), "")
	}
	_, skipped, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantSkipped(t, skipped, []string{
		`"\x1b[31mred.azc": it is empty`,
		`"a\nazs-agent: error: none.azc": it is empty`,
		`"x\u202ecza.exe.azc": it is empty`,
	})
}

func TestTakeBounds(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("%d.azc", i)), strings.Repeat("x", 10))
	}
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	if entries, _, err := take(f, 5, 50); err != nil || len(entries) != 5 {
		t.Errorf("at the bounds: %d entries, %v", len(entries), err)
	}
	_, _, err = take(f, 4, 50)
	wantFault(t, err, "holds more than 4 names")

	entries, skipped, err := take(f, 5, 39)
	if err != nil || len(entries) != 3 {
		t.Errorf("%d entries, %v, want 3", len(entries), err)
	}
	wantSkipped(t, skipped, []string{
		`"3.azc": the bundles before it fill the 39 bytes that are read at once`,
		`"4.azc": the bundles before it fill the 39 bytes that are read at once`,
	})
}

// A file that is exchanged between the look and the opening is not read.
func TestTakeSeesAnExchange(t *testing.T) {
	tests := []struct {
		name string
		swap func(dir string) error
		want string
	}{
		{"another file", func(dir string) error { return os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "x.azc")) }, "exchanged"},
		{"longer than allowed", func(dir string) error { return os.Truncate(filepath.Join(dir, "x.azc"), MaxSize+1) }, "it holds 2097153 bytes"},
		{"a link", func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "x.azc")); err != nil {
				return err
			}
			return os.Symlink("other", filepath.Join(dir, "x.azc"))
		}, "exchanged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "x.azc"), "x")
			writeFile(t, filepath.Join(dir, "other"), "y")
			real, err := openFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer real.Close()
			entries, skipped, err := take(&badFolder{folder: real, opened: func(folder, string) {
				if err := tt.swap(dir); err != nil {
					t.Skipf("cannot exchange a file here: %v", err)
				}
			}}, 10, 10)
			if err != nil || len(entries) != 0 || len(skipped) != 1 || !strings.Contains(skipped[0].String(), tt.want) {
				t.Errorf("got %q, %v, %v, want it skipped with %q", entries, skipped, err, tt.want)
			}
		})
	}
}

// A medium that ends a file too early is told from an empty or whole one.
func TestTakeSeesAShortRead(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "x.azc"), "0123456789")
	real, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	_, skipped, err := take(shortFolder{real}, 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantSkipped(t, skipped, []string{`"x.azc": the medium says that it has 10 bytes and gave 4`})
}

// shortFolder is a real folder whose files end after four bytes.
type shortFolder struct{ folder }

type shortFile struct {
	file
	left *int
}

func (d shortFolder) Open(name string) (file, error) {
	f, err := d.folder.Open(name)
	return shortFile{f, new(4)}, err
}

func (f shortFile) Read(p []byte) (int, error) {
	n, err := f.file.Read(p[:min(len(p), *f.left)])
	*f.left -= n
	if *f.left == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// A file that goes on for ever is read no further than the bound.
func TestTakeStopsReading(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "x.azc"), "0123456789")
	real, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	_, skipped, err := take(endlessFolder{real}, 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantSkipped(t, skipped, []string{`"x.azc": the medium says that it has 10 bytes and gave 2097153`})
}

// endlessFolder is a real folder whose files do not end, up to a length at
// which the test has seen enough.
type endlessFolder struct{ folder }

type endlessFile struct {
	file
	given *int
}

func (d endlessFolder) Open(name string) (file, error) {
	f, err := d.folder.Open(name)
	return endlessFile{f, new(int)}, err
}

func (f endlessFile) Read(p []byte) (int, error) {
	if *f.given += len(p); *f.given > 3*MaxSize {
		return 0, errors.New("read far beyond the bound")
	}
	return len(p), nil
}

func TestOneUnreadableFileDoesNotHideTheOthers(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.azc"), "a")
	writeFile(t, filepath.Join(dir, "b.azc"), "b")
	real, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	entries, skipped, err := take(brokenFile{real, "a.azc"}, 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, entries, []Entry{{"b.azc", []byte("b")}})
	if len(skipped) != 1 || !errors.Is(skipped[0].Reason, brokenErrors[0]) {
		t.Errorf("skipped %v", skipped)
	}
}

// brokenFile is a real folder with one file on a bad spot.
type brokenFile struct {
	folder
	name string
}

func (d brokenFile) Open(name string) (file, error) {
	if name == d.name {
		return nil, brokenErrors[0]
	}
	return d.folder.Open(name)
}

func wantEntries(t *testing.T, got, want []Entry) {
	t.Helper()
	// Without the comparer two files of 2 MiB are compared element by element.
	if diff := cmp.Diff(want, got, cmp.Comparer(bytes.Equal)); diff != "" {
		t.Errorf("entries differ (-want +got):\n%.2000s", diff)
	}
}

func wantSkipped(t *testing.T, got []Skipped, want []string) {
	t.Helper()
	var text []string
	for _, s := range got {
		text = append(text, s.String())
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("skipped differs (-want +got):\n%s", diff)
	}
}
