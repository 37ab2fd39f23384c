package render

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// zxing reads one code of each picture by zxing-wasm, in node.
func zxing(t testing.TB, pictures []string) []string {
	t.Helper()
	node := tool(t, "NPM", "node")
	npm := filepath.Join("..", "..", "..", "testdata", "npm")
	if _, err := os.Stat(filepath.Join(npm, "node_modules", "zxing-wasm")); err != nil {
		if os.Getenv("AZS_REQUIRE_NPM") == "1" {
			t.Fatal(err)
		}
		t.Skipf("zxing-wasm is missing: %v", err)
	}
	dir := t.TempDir()
	var list strings.Builder
	for i, p := range pictures {
		path := filepath.Join(dir, fmt.Sprintf("%04d.pgm", i))
		if err := os.WriteFile(path, greyBitmap(t, p), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&list, path)
	}
	cmd := exec.Command(node, "zxing.js")
	cmd.Dir, cmd.Stdin, cmd.Stderr = npm, strings.NewReader(list.String()), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var v struct{ Texts []string }
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, strings.Join(v.Texts, "|"))
	}
	return texts
}

// greyBitmap returns a picture as PGM.
func greyBitmap(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	b := img.Bounds()
	out := fmt.Appendf(nil, "P5 %d %d 255\n", b.Dx(), b.Dy())
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			out = append(out, color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y)
		}
	}
	return out
}

func TestZxingReadsPicturesAndTerminal(t *testing.T) {
	read := 0
	for _, tt := range sizes {
		r := reelOf(t, tt.length, tt.version)
		files, err := r.PNGs(4)
		if err != nil {
			t.Fatal(err)
		}
		stills, err := r.Kept()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(textsOf(t, r, stills), zxing(t, save(t, t.TempDir(), files))); diff != "" {
			t.Errorf("%d bytes at version %d (-shown +read):\n%s", tt.length, tt.version, diff)
		}
		read += len(stills)
	}
	for _, size := range [][2]int{{80, 24}, {120, 40}, {200, 60}} {
		term := NewTerminal(Showing{Wire: bytesOf(5321)})
		s := newScreen(t, size[0], size[1])
		s.write(term.Resize(size[0], size[1]))
		dir := t.TempDir()
		var paths []string
		var stills []Still
		for i := range term.reel.Set().K() {
			still, err := term.reel.At(i)
			if err != nil {
				t.Fatal(err)
			}
			stills = append(stills, still)
			paths = append(paths, savePicture(t, filepath.Join(dir, fmt.Sprintf("%03d.png", i)), s.photograph(color.Gray{220}, color.Gray{30})))
			s.write(term.Tick())
		}
		if diff := cmp.Diff(textsOf(t, term.reel, stills), zxing(t, paths)); diff != "" {
			t.Errorf("a terminal of %v (-shown +read):\n%s", size, diff)
		}
		read += len(stills)
	}
	t.Logf("zxing-wasm read %d codes", read)
}

// The page plays from a file in a browser: its policy lets its own script run,
// nothing is loaded, the keys work, and zbar reads every code from a picture of the
// window, wide and as narrow as a telephone. Printed by the browser, it is read too.
func TestZbarReadsThePage(t *testing.T) {
	chrome := tool(t, "CHROMIUM", "chromium")
	tool(t, "ZBAR", "zbarimg")
	r, paper := reelOf(t, 2000, 14), reelOf(t, 2000, PrintVersion)
	var page bytes.Buffer
	if err := r.HTML(&page, testCover, DefaultRate, paper); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "show.html")
	if err := os.WriteFile(file, page.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // a browser that hangs
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, chromedp.ExecPath(chrome), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("hide-scrollbars", true))
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()

	stills, err := r.All()
	if err != nil {
		t.Fatal(err)
	}
	want := textsOf(t, r, stills)
	for _, width := range []int64{1280, 380} {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate("file://"+file), chromedp.KeyEvent("p")); err != nil {
			t.Fatal(err)
		}
		var got []string
		var where string
		for i := range stills {
			if where, err = chromedp.Run(ctx, chromedp.Evaluate[string](`document.getElementById('where').textContent`)); err != nil {
				t.Fatal(err)
			}
			shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, fmt.Sprintf("%d-%03d.png", width, i))
			if err := os.WriteFile(path, shot, 0o600); err != nil {
				t.Fatal(err)
			}
			got = append(got, zbar(t, path)...)
			if err := chromedp.Do(ctx, chromedp.KeyEvent("n")); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.Contains(where, "paused") {
			t.Errorf("after the key p the page says %q", where)
		}
		// The animation had gone on before it was paused.
		slices.Sort(got)
		sorted := slices.Sorted(slices.Values(want))
		if diff := cmp.Diff(sorted, got); diff != "" {
			t.Errorf("%d pixels wide (-shown +read):\n%s", width, diff)
		}
		state, err := chromedp.Run(ctx, chromedp.Evaluate[string](`JSON.stringify([performance.getEntriesByType('resource').length, document.documentElement.scrollWidth <= innerWidth, document.querySelectorAll('#sheets figure').length])`))
		if err != nil {
			t.Fatal(err)
		}
		kept, _ := paper.Kept()
		if want := fmt.Sprintf("[0,true,%d]", len(kept)); state != want {
			t.Errorf("%d pixels wide: loaded, fits the width, codes on sheets: %s, want %s", width, state, want)
		}
	}
	pdf, err := chromedp.Run(ctx, chromedp.PrintToPDF())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := paper.Kept()
	if err != nil {
		t.Fatal(err)
	}
	got := zbar(t, rasterise(t, pdf)[1:]...) // the cover has no code
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(slices.Values(textsOf(t, paper, kept))), got); diff != "" {
		t.Errorf("printed by the browser (-printed +read):\n%s", diff)
	}
	t.Logf("zbarimg read %d codes from the window and %d from its print", 2*len(want), len(got))
}
