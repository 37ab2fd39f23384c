package render

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/frame"
)

var testCover = Cover{
	Title: "request 7Q2MKX4R9D3T0V6PB8W5YHNC1G",
	Rows: []Row{
		{"pair", "4NQ8D1ZP0V7C3B9XK5YHW2M6RG"}, {"number", "17"},
		{"from", "SHA256:Jm2ZkC1o0pXbVYc7cTn0cP7q0w0pQ3n4rRrj8d1uYv4"}, {"to", "SHA256:0c3c0f8a9d2f6b1e5a4c7d8e9f0a1b2c3d4e5f60718"},
		{"created", "2026-11-23T06:24:00Z"}, {"expires", "2026-12-07T06:24:00Z"},
		{"sealed", "5321 bytes, SHA-256 " + strings.Repeat("0123456789abcdef", 4)},
	},
	Made: time.Date(2026, 11, 23, 6, 24, 0, 0, time.UTC),
}

// rasterise turns the pages of a PDF into pictures, as a printer and a scanner do
// without their dirt.
func rasterise(t testing.TB, pdf []byte) []string {
	t.Helper()
	return rasteriseAt(t, pdf, t.TempDir(), "300")
}

func rasteriseAt(t testing.TB, pdf []byte, dir, dpi string) []string {
	t.Helper()
	program := tool(t, "POPPLER", "pdftoppm")
	cmd := exec.Command(program, "-r", dpi, "-gray", "-png", "-", filepath.Join(dir, "page-"+dpi))
	cmd.Stdin = bytes.NewReader(pdf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pdftoppm: %v: %s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "page-"+dpi+"*.png"))
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func TestZbarReadsEveryPrintedCode(t *testing.T) {
	tool(t, "ZBAR", "zbarimg")
	read := 0
	for _, tt := range []struct{ length, version, pages int }{{300, 10, 2}, {2000, 10, 2}, {9001, 10, 3}, {5321, 20, 2}} {
		r := reelOf(t, tt.length, tt.version)
		var b bytes.Buffer
		if err := r.PDF(&b, testCover); err != nil {
			t.Fatal(err)
		}
		pages := rasterise(t, b.Bytes())
		if len(pages) != tt.pages {
			t.Errorf("%d bytes at version %d: %d pages, want %d", tt.length, tt.version, len(pages), tt.pages)
		}
		stills, err := r.Kept()
		if err != nil {
			t.Fatal(err)
		}
		want, got := textsOf(t, r, stills), zbar(t, pages[1:]...)
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d bytes at version %d (-printed +read):\n%s", tt.length, tt.version, diff)
			continue
		}
		if !bytes.Equal(join(t, got), bytesOf(tt.length)) {
			t.Errorf("%d bytes at version %d do not come back", tt.length, tt.version)
		}
		read += len(got)
	}
	t.Logf("zbarimg read %d printed codes", read)
}

func TestPDFIsTheSameEveryTime(t *testing.T) {
	var one, two bytes.Buffer
	for _, b := range []*bytes.Buffer{&one, &two} {
		if err := reelOf(t, 2000, PrintVersion).PDF(b, testCover); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two documents of one bundle differ")
	}
	if !bytes.Contains(one.Bytes(), []byte("D:20261123062400")) {
		t.Error("the date of the document is not the cover's")
	}
}

// What is written below a code is found by a text extractor, so that it is on the
// page and not beside it.
func TestPDFSays(t *testing.T) {
	program := tool(t, "POPPLER", "pdftotext")
	r := reelOf(t, 2000, PrintVersion)
	var b bytes.Buffer
	if err := r.PDF(&b, testCover); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-layout", "-", "-")
	cmd.Stdin = &b
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	want := []string{testCover.Title, "any 9 of the 11 codes", "page 2 of 2", "1 / 11", "11 / 11", "index 0 · " + r.Set().ID().String(), "ssh-keygen -Y verify", "import base64, hashlib, sys, zlib", "indexes 0 to 8"}
	for _, row := range testCover.Rows {
		want = append(want, row.Name, row.Value)
	}
	for _, part := range want {
		if !strings.Contains(text, part) {
			t.Errorf("the sheets do not say %q", part)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// The recipe on the sheet, run as it stands on the printed codes of a real bundle,
// gives the bundle back and finds its signature good.
func TestTheRecipe(t *testing.T) {
	for _, program := range [][2]string{{"ZBAR", "zbarimg"}, {"PYTHON", "python3"}, {"SSH", "ssh-keygen"}, {"SH", "sh"}} {
		tool(t, program[0], program[1])
	}
	for _, name := range []string{"good-request-approved", "good-pairing-relay"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "golden", name+".azc"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Split(text)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := b.Signers()
		if err != nil {
			t.Fatal(err)
		}
		set, err := frame.Split(b.Wire(), PrintVersion)
		if err != nil {
			t.Fatal(err)
		}
		var pdf bytes.Buffer
		if err := NewReel(set).PDF(&pdf, testCover); err != nil {
			t.Fatal(err)
		}
		// zbar misses about one code in 800 on full pages, each at one resolution only:
		// the recipe says to add another.
		dir := t.TempDir()
		for _, dpi := range []string{"300", "400"} {
			rasteriseAt(t, pdf.Bytes(), dir, dpi)
		}
		for file, content := range map[string]string{"restore.py": script(), "allowed_signers": "site-a namespaces=\"azs-courier@v1\" " + string(ssh.MarshalAuthorizedKey(keys[0]))} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var said []string
		for i, s := range recipe(set.K(), set.N()) {
			cmd := exec.Command("sh", "-c", strings.ReplaceAll(s.Type, "NAME", "site-a"))
			var stderr bytes.Buffer
			cmd.Dir, cmd.Stderr = dir, &stderr
			out, err := cmd.Output()
			if err != nil && !(i == 0 && cmd.ProcessState.ExitCode() == 4) { // zbarimg: the cover has no code
				t.Fatalf("%s: %s: %v: %s%s", name, s.Type, err, out, stderr.String())
			}
			said = append(said, string(out))
		}
		got, err := os.ReadFile(filepath.Join(dir, "bundle.azc"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(got)); diff != "" {
			t.Errorf("%s (-printed +restored):\n%s", name, diff)
		}
		if !strings.HasPrefix(said[2], "site-a\nGood \"azs-courier@v1\" signature for site-a") {
			t.Errorf("%s: the signature: %s", name, said[2])
		}
		if d := strings.Fields(said[3]); len(d) != 3 || len(d[0]) != 64 || d[0] != d[1] {
			t.Errorf("%s: the digests: %s", name, said[3])
		}
	}
}

// The recipe knows the systematic frames only, so that all of them are on the
// sheet, although some make codes that cannot be read at its version.
func TestEverySystematicFrameIsKept(t *testing.T) {
	larger := 0
	for length := 9000; length < 9004; length++ {
		r := reelOf(t, length, PrintVersion)
		stills, err := r.Kept()
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range stills {
			if i < r.Set().K() && s.Index != i {
				t.Fatalf("%d bytes: place %d is frame %d", length, i, s.Index)
			}
			if s.Code.Side() > Modules(PrintVersion) {
				larger++
			}
		}
		if len(stills) != r.Set().K()+r.Set().K()/4 {
			t.Errorf("%d bytes: %d codes for K=%d", length, len(stills), r.Set().K())
		}
	}
	if larger == 0 {
		t.Error("no code was drawn larger: the test tests nothing")
	}
}
