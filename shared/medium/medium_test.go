package medium

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
)

const name = "azs-request-7q2mkx4r9d.azc"

func TestNames(t *testing.T) {
	tests := []struct {
		name string
		ok   bool
	}{
		{Name("request", "7Q2MKX4R9D3T0V6PB8W5YHNC1G"), true},
		{Name("answer", "7q2mkx4r9d"), true},
		{Name("answer", "7Q2MKX4R9"), false}, // one short
		{Name("answer", ""), false},
		{Name("", "7Q2MKX4R9D"), false},
		{Name("../x", "7Q2MKX4R9D"), false},
		{Name("Request", "7Q2MKX4R9D"), false},
		{Name("request", "IIIIIIIIII"), false}, // not in Crockford's alphabet
		{Name("request", "UUUUUUUUUU"), false},
		{Name("aaaaaaaaaaaaaaaaa", "7Q2MKX4R9D"), false},
		{"azs-request-7q2mkx4r9d.txt", true}, // a kiosk's record
		{"azs-request-7q2mkx4r9d.txt.sig", true},
		{"azs-request-7q2mkx4r9d.azc.sig", false},
		{"azs-request-7q2mkx4r9d.azc\n", false},
		{"azs-request-7q2mkx4r9d.azc:stream", false},
		{"azs-request-7q2mkx4r9d.AZC", false},
		{" azs-request-7q2mkx4r9d.azc", false},
		{"con.azc", false},
		{"", false},
	}
	safe := regexp.MustCompile(`^[a-z0-9-]{1,60}\.(azc|txt|txt\.sig)$`)
	for _, tt := range tests {
		if got := NamePattern.MatchString(tt.name); got != tt.ok {
			t.Errorf("%q: accepted %v, want %v", tt.name, got, tt.ok)
		}
		if tt.ok && !safe.MatchString(tt.name) {
			t.Errorf("%q is not the same on every file system", tt.name)
		}
		dir := t.TempDir()
		if _, err := Put(dir, tt.name, []byte("x")); (err == nil) != tt.ok {
			t.Errorf("put %q: %v", tt.name, err)
		} else if !tt.ok {
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("put %q: kind %v, want usage", tt.name, fault.KindOf(err))
			}
			wantFolder(t, dir, nil)
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, path("one"), "1")
	writeFile(t, path("empty"), "")
	writeFile(t, path("most"), strings.Repeat("x", MaxSize))
	writeFile(t, path("over"), strings.Repeat("x", MaxSize+1))
	if err := os.Mkdir(path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, want string }{
		{"one", ""},
		{"most", ""},
		{"empty", "it is empty"},
		{"over", "it holds 2097153 bytes, a bundle at most 2097152"},
		{"folder", "it is a folder, not a regular file"},
		{"absent", "does not exist"},
	}
	for _, tt := range tests {
		data, err := ReadFile(path(tt.name))
		if tt.want == "" {
			if err != nil || string(data) != readFile(t, path(tt.name)) {
				t.Errorf("%s: %d bytes, %v", tt.name, len(data), err)
			}
			continue
		}
		wantFault(t, err, tt.want)
		if data != nil {
			t.Errorf("%s: data with an error", tt.name)
		}
	}
	if _, err := ReadFile(path("absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist in its chain", err)
	}
}

// A path with escapes and marks that turn the direction of writing around
// reaches the terminal only in quotes.
func TestErrorsQuoteForeignNames(t *testing.T) {
	_, err := ReadFile("a\x1b[2J\u202ecza.azc")
	if want := `"a\x1b[2J\u202ecza.azc"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s in it", err, want)
	}
}

func TestAFolderThatIsNone(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	writeFile(t, plain, "x")
	for path, want := range map[string]string{
		plain:                      "is not a folder",
		filepath.Join(dir, "none"): "does not exist",
	} {
		_, err := Put(path, name, []byte("x"))
		wantFault(t, err, want)
		_, _, err = Take(path)
		wantFault(t, err, want)
	}
	wantFolder(t, dir, map[string]string{"file": "x"})
}

// wantFolder compares what is in dir: files with their bytes, everything else
// with its type.
func wantFolder(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			got[e.Name()] = e.Type().String()
			continue
		}
		got[e.Name()] = readFile(t, filepath.Join(dir, e.Name()))
	}
	if want == nil {
		want = map[string]string{}
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
