package scan

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame/scan/camera"
)

// drawn draws n codes of version 5, 4 pixels a module.
func drawn(n int) (pictures []*image.Gray, texts []string) {
	rng := rand.New(rand.NewPCG(2, 6))
	for range n {
		s, text := camera.Random(rng, 5)
		pictures, texts = append(pictures, s.Flat(4)), append(texts, text)
	}
	return pictures, texts
}

func write(t testing.TB, dir, name string, encode func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// all reads a source to its end.
func all(t testing.TB, s Source, err error) (texts, names []string, stills int) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := NewReader(Thorough)
	for {
		img, err := s.Next(t.Context())
		if err == io.EOF {
			return texts, names, stills
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, img.Name)
		if img.Still {
			stills++
		}
		for _, c := range r.Read(img.Luma) {
			texts = append(texts, c.Text)
		}
	}
}

func mjpegOf(pictures []*image.Gray) func(io.Writer) error {
	return func(w io.Writer) error {
		for _, m := range pictures {
			if err := jpeg.Encode(w, m, nil); err != nil {
				return err
			}
		}
		return nil
	}
}

func y4mOf(colour string, rest func(w, h int) int, pictures []*image.Gray) func(io.Writer) error {
	return func(w io.Writer) error {
		fmt.Fprintf(w, "YUV4MPEG2 W%d H%d F8:1 Ip A1:1%s\n", pictures[0].Rect.Dx(), pictures[0].Rect.Dy(), colour)
		for _, m := range pictures {
			fmt.Fprint(w, "FRAME\n")
			w.Write(m.Pix)
			w.Write(make([]byte, rest(m.Rect.Dx(), m.Rect.Dy())))
		}
		return nil
	}
}

// animate puts every picture in a frame that is smaller than the canvas, the way
// encoders save bytes.
func animate(pictures []*image.Gray, disposal byte) func(io.Writer) error {
	return func(w io.Writer) error {
		g := gif.GIF{}
		for i, m := range pictures {
			p := image.NewPaletted(m.Rect, color.Palette{color.Black, color.White, color.Transparent})
			for k, v := range m.Pix {
				if v > 0 {
					p.Pix[k] = 1
				}
			}
			if i > 0 && disposal == 0 { // only what changed
				for k, v := range m.Pix {
					if v == pictures[i-1].Pix[k] {
						p.Pix[k] = 2
					}
				}
			}
			g.Image, g.Delay, g.Disposal = append(g.Image, p), append(g.Delay, 10), append(g.Disposal, disposal)
		}
		return gif.EncodeAll(w, &g)
	}
}

func TestFormats(t *testing.T) {
	pictures, want := drawn(3)
	one := pictures[:1]
	dir := t.TempDir()
	half := func(n int) int { return (n + 1) / 2 }
	tests := []struct {
		name   string
		file   string
		texts  []string
		stills int
	}{
		{"png", write(t, dir, "a.png", func(w io.Writer) error { return png.Encode(w, one[0]) }), want[:1], 1},
		{"png with transparent ground", write(t, dir, "a2.png", func(w io.Writer) error {
			m := image.NewNRGBA(one[0].Rect)
			for i, v := range one[0].Pix {
				if v == 0 {
					m.Pix[4*i+3] = 255
				}
			}
			return png.Encode(w, m)
		}), want[:1], 1},
		{"bmp", write(t, dir, "a.bmp", func(w io.Writer) error { return bmp.Encode(w, one[0]) }), want[:1], 1},
		{"tiff", write(t, dir, "a.tiff", func(w io.Writer) error { return tiff.Encode(w, one[0], &tiff.Options{Compression: tiff.Deflate}) }), want[:1], 1},
		{"jpeg, by content and not by name", write(t, dir, "a.png.txt", mjpegOf(one)), want[:1], 1},
		{"mjpeg", write(t, dir, "a.mjpeg", mjpegOf(pictures)), want, 0},
		{"gif of one picture", write(t, dir, "a.gif", animate(one, 0)), want[:1], 1},
		{"animated gif", write(t, dir, "b.gif", animate(pictures, 0)), want, 0},
		{"animated gif, to background", write(t, dir, "c.gif", animate(pictures, gif.DisposalBackground)), want, 0},
		{"animated gif, to previous", write(t, dir, "d.gif", animate(pictures, gif.DisposalPrevious)), want, 0},
		{"y4m 4:2:0", write(t, dir, "a.y4m", y4mOf("", func(w, h int) int { return 2 * half(w) * half(h) }, pictures)), want, 0},
		{"y4m 4:2:2", write(t, dir, "b.y4m", y4mOf(" C422", func(w, h int) int { return 2 * half(w) * h }, pictures)), want, 0},
		{"y4m 4:4:4", write(t, dir, "c.y4m", y4mOf(" C444", func(w, h int) int { return 2 * w * h }, pictures)), want, 0},
		{"y4m mono", write(t, dir, "d.y4m", y4mOf(" Cmono", func(w, h int) int { return 0 }, pictures)), want, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Open(t.Context(), test.file, DefaultLimits())
			texts, names, stills := all(t, s, err)
			if diff := cmp.Diff(test.texts, texts); diff != "" {
				t.Errorf("(-drawn +read):\n%s", diff)
			}
			if stills != test.stills {
				t.Errorf("%d stills of %q, not %d", stills, names, test.stills)
			}
		})
	}
}

func TestAVideoContainerGoesThroughFFmpeg(t *testing.T) {
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		if os.Getenv("AZS_REQUIRE_FFMPEG") != "" {
			t.Fatal(err)
		}
		t.Skip("ffmpeg is not installed")
	}
	pictures, want := drawn(3)
	dir := t.TempDir()
	in := write(t, dir, "in.y4m", y4mOf(" Cmono", func(w, h int) int { return 0 }, pictures))
	for _, name := range []string{"-out.mkv", "out.avi", "out.mp4"} {
		out := filepath.Join(dir, name)
		if said, err := exec.Command(program, "-v", "error", "-i", in, "-c:v", "mpeg4", "-q:v", "2", out).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		s, err := Open(t.Context(), out, DefaultLimits())
		texts, _, _ := all(t, s, err)
		if diff := cmp.Diff(want, texts); diff != "" {
			t.Errorf("%s (-drawn +read):\n%s", name, diff)
		}
	}
	broken := write(t, dir, "broken.mkv", func(w io.Writer) error {
		_, err := io.WriteString(w, "\x1aE\xdf\xa3 and nothing of the kind")
		return err
	})
	if _, err := Open(t.Context(), broken, DefaultLimits()); fault.KindOf(err) != fault.Refused {
		t.Errorf("a broken container: %v", err)
	}
	// A context that ends takes the process along.
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, filepath.Join(dir, "out.avi"), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next after the context's end: %v", err)
	}
	s.Close()
}

func TestPDFPages(t *testing.T) {
	if _, err := exec.LookPath("pdftoppm"); err != nil {
		if os.Getenv("AZS_REQUIRE_POPPLER") != "" {
			t.Fatal(err)
		}
		t.Skip("pdftoppm is not installed (poppler-utils)")
	}
	pictures, want := drawn(2)
	dir := t.TempDir()
	file := write(t, dir, "pages.pdf", func(w io.Writer) error { _, err := w.Write(pdfOf(pictures)); return err })
	s, err := Open(t.Context(), file, DefaultLimits())
	texts, names, stills := all(t, s, err)
	if diff := cmp.Diff(want, texts); diff != "" || stills != 2 {
		t.Errorf("pages %q, %d stills (-drawn +read):\n%s", names, stills, diff)
	}
	broken := write(t, dir, "broken.pdf", func(w io.Writer) error { _, err := io.WriteString(w, "%PDF-1.4 and nothing of the kind"); return err })
	s, err = Open(t.Context(), broken, DefaultLimits())
	if err == nil {
		_, err = s.Next(t.Context())
	}
	if fault.KindOf(err) != fault.Refused {
		t.Errorf("a broken document: %v", err)
	}
}

// pdfOf draws one picture a page, without compression.
func pdfOf(pictures []*image.Gray) []byte {
	var b bytes.Buffer
	var at []int
	object := func(format string, args ...any) {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n", len(at))
		fmt.Fprintf(&b, format, args...)
		b.WriteString("\nendobj\n")
	}
	b.WriteString("%PDF-1.4\n")
	object("<</Type/Catalog/Pages 2 0 R>>")
	var kids []string
	for i := range pictures {
		kids = append(kids, fmt.Sprintf("%d 0 R", 3+3*i))
	}
	object("<</Type/Pages/Kids[%s]/Count %d>>", strings.Join(kids, " "), len(pictures))
	for i, m := range pictures {
		n := 3 + 3*i
		object("<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R/Resources<</XObject<</I %d 0 R>>>>>>", n+1, n+2)
		draw := "q 200 0 0 200 100 400 cm /I Do Q"
		object("<</Length %d>>stream\n%s\nendstream", len(draw), draw)
		object("<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8/Length %d>>stream\n%s\nendstream", m.Rect.Dx(), m.Rect.Dy(), len(m.Pix), m.Pix)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, a := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", a)
	}
	fmt.Fprintf(&b, "trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	return b.Bytes()
}

func TestFolderGoesOnPastABadFile(t *testing.T) {
	pictures, want := drawn(3)
	dir := t.TempDir()
	write(t, dir, "1.png", func(w io.Writer) error { return png.Encode(w, pictures[0]) })
	write(t, dir, "2.png", func(w io.Writer) error { _, err := io.WriteString(w, "\x89PNG but not for long"); return err })
	write(t, dir, "3.txt", func(w io.Writer) error { _, err := io.WriteString(w, "a note"); return err })
	write(t, dir, ".hidden.png", func(w io.Writer) error { return png.Encode(w, pictures[0]) })
	write(t, dir, "4.gif", animate(pictures[1:], 0))
	s, err := Open(t.Context(), dir, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := NewReader(Thorough)
	var texts, refused []string
	for {
		img, err := s.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			refused = append(refused, err.Error())
			continue
		}
		for _, c := range r.Read(img.Luma) {
			texts = append(texts, c.Text)
		}
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("(-drawn +read):\n%s", diff)
	}
	if len(refused) != 1 || !strings.Contains(refused[0], `"2.png"`) {
		t.Errorf("refused: %q", refused)
	}
}

func TestWatchTakesAFileWhenItIsWhole(t *testing.T) {
	pictures, want := drawn(2)
	dir := t.TempDir()
	write(t, dir, "1.png", func(w io.Writer) error { return png.Encode(w, pictures[0]) })
	var second bytes.Buffer
	if err := png.Encode(&second, pictures[1]); err != nil {
		t.Fatal(err)
	}
	ticks := make(chan time.Time, 10)
	s, err := Watch(dir, DefaultLimits(), ticks)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := NewReader(Thorough)
	next := func() string {
		t.Helper()
		img, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(texts(r.Read(img.Luma)), ",")
	}
	ticks <- time.Time{}
	if got := next(); got != want[0] {
		t.Errorf("the file that was there: %.20q", got)
	}
	// Half of the second file at the first look, the whole at the next two.
	file := filepath.Join(dir, "2.png")
	if err := os.WriteFile(file, second.Bytes()[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	f := s.(*folder)
	for range 1 {
		if err := f.look(); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.todo) > 0 {
		t.Fatal("a file is taken at the first look")
	}
	if err := os.WriteFile(file, second.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ticks <- time.Time{}
	ticks <- time.Time{}
	if got := next(); got != want[1] {
		t.Errorf("the file that appeared: %.20q", got)
	}
	close(ticks)
	if _, err := s.Next(t.Context()); err != io.EOF {
		t.Errorf("after the last tick: %v", err)
	}
}

// bomb is a PNG whose header promises a picture and whose data inflate to so many
// zeros, a thousandfold; with none, to an error.
func bomb(w, h uint32, zeros ...int) []byte {
	data := bytes.Repeat([]byte{0x78, 0x9c, 0xed, 0xc1}, 20)
	if len(zeros) > 0 {
		var packed bytes.Buffer
		z := zlib.NewWriter(&packed)
		for left := zeros[0]; left > 0; left -= 1 << 20 {
			z.Write(make([]byte, min(left, 1<<20)))
		}
		z.Close()
		data = packed.Bytes()
	}
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		binary.Write(&b, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		b.Write(body)
		binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	chunk("IHDR", append(head, 8, 6, 0, 0, 0))
	chunk("IDAT", data)
	chunk("IEND", nil)
	return b.Bytes()
}

// TestHostilePictures holds that a picture which claims too much is refused by its
// header, in little memory.
func TestHostilePictures(t *testing.T) {
	dir := t.TempDir()
	raw := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error { _, err := w.Write(b); return err }
	}
	wide := func(encode func(io.Writer, image.Image) error) []byte {
		var b bytes.Buffer
		if err := encode(&b, image.NewGray(image.Rect(0, 0, 20000, 1))); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	gifHead := "GIF89a\xff\xff\xff\xff\x00\x00\x00;"
	lim := DefaultLimits()
	tests := map[string][]byte{
		"png of 65,000 × 65,000":    bomb(65000, 65000),
		"png of 16,000 × 16,000":    bomb(16000, 16000),
		"png of 20,000 × 1":         wide(png.Encode),
		"png of nothing":            bomb(0, 0),
		"png of 8 × 8, 256 MiB":     bomb(8, 8, 1<<28),
		"png of 16,000 × 16,000, 1": bomb(16000, 16000, 1<<28),
		"png that ends":             bomb(5000, 5000)[:60],
		"bmp of 20,000 × 1":         wide(bmp.Encode),
		"tiff of 20,000 × 1":        wide(func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) }),
		"jpeg of 20,000 × 1":        wide(func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) }),
		"gif of 65,535 × 65,535":    []byte(gifHead),
		"y4m of 60,000 × 60,000":    []byte("YUV4MPEG2 W60000 H60000\nFRAME\n"),
		"y4m of -1 × 5":             []byte("YUV4MPEG2 W-1 H5\nFRAME\n"),
		"y4m of 16-bit samples":     []byte("YUV4MPEG2 W8 H8 C420p10\nFRAME\n"),
		"y4m with an endless head":  append([]byte("YUV4MPEG2 "), bytes.Repeat([]byte("W"), 100000)...),
		"jpeg within a jpeg":        []byte("\xff\xd8\xff\xd8\xff\xd9"),
		"jpeg that does not end":    append([]byte("\xff\xd8"), make([]byte, 100)...),
		"text":                      []byte("good morning"),
		"nothing":                   {},
		"playlist that names files": []byte("#EXTM3U\nfile:///etc/passwd\n"),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			file := write(t, dir, "hostile", raw(b))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s, err := Open(t.Context(), file, lim)
			if err == nil {
				_, err = s.Next(t.Context())
				s.Close()
			}
			runtime.ReadMemStats(&after)
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("not refused: %v", err)
			}
			// png.Decode makes the rows of the honest size that the header has.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 130<<20 || len(b) < 50 && grown > 2<<20 {
				t.Errorf("%d bytes were allocated", grown)
			}
		})
	}
	t.Run("too many bytes", func(t *testing.T) {
		small := lim
		small.MaxBytes = 100
		pictures, _ := drawn(1)
		for name, encode := range map[string]func(io.Writer) error{
			"a.png": func(w io.Writer) error { return png.Encode(w, pictures[0]) }, "a.jpg": mjpegOf(pictures), "a.gif": animate(pictures, 0),
		} {
			s, err := Open(t.Context(), write(t, dir, name, encode), small)
			if err == nil {
				_, err = s.Next(t.Context())
				s.Close()
			}
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("too many pictures", func(t *testing.T) {
		few := lim
		few.MaxFrames = 2
		pictures, _ := drawn(3)
		for name, encode := range map[string]func(io.Writer) error{
			"a.y4m": y4mOf(" Cmono", func(w, h int) int { return 0 }, pictures), "a.mjpeg": mjpegOf(pictures), "b.gif": animate(pictures, 0),
		} {
			s, err := Open(t.Context(), write(t, dir, name, encode), few)
			for range 3 {
				if err == nil {
					_, err = s.Next(t.Context())
				}
			}
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("%s: %v", name, err)
			}
			s.Close()
		}
	})
	t.Run("what takes more memory a pixel has fewer", func(t *testing.T) {
		small := lim
		small.MaxPixels = 5000
		deep := write(t, dir, "deep.png", func(w io.Writer) error { return png.Encode(w, image.NewNRGBA64(image.Rect(0, 0, 60, 60))) })
		plain := write(t, dir, "plain.png", func(w io.Writer) error { return png.Encode(w, image.NewNRGBA(image.Rect(0, 0, 60, 60))) })
		var baseline bytes.Buffer
		if err := jpeg.Encode(&baseline, image.NewGray(image.Rect(0, 0, 60, 60)), nil); err != nil {
			t.Fatal(err)
		}
		scans := bytes.Replace(baseline.Bytes(), []byte("\xff\xc0"), []byte("\xff\xc2"), 1)
		for file, want := range map[string]fault.Kind{
			deep: fault.Refused, plain: 0,
			write(t, dir, "baseline.jpg", raw(baseline.Bytes())): 0,
			write(t, dir, "progressive.jpg", raw(scans)):         fault.Refused,
		} {
			s, err := Open(t.Context(), file, small)
			if err == nil {
				_, err = s.Next(t.Context())
				s.Close()
			}
			if fault.KindOf(err) != want || want != 0 && !strings.Contains(err.Error(), "60×60 pixels, more than") {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	})
	t.Run("no file", func(t *testing.T) {
		if _, err := Open(t.Context(), filepath.Join(dir, "none"), lim); fault.KindOf(err) != fault.Medium {
			t.Error(err)
		}
	})
}

// tight are limits under which a fuzzer's picture stays small.
var tight = Limits{MaxBytes: 1 << 20, MaxPixels: 1 << 16, MaxFrames: 50}

func drain(t *testing.T, s Source) {
	for n := 0; ; n++ {
		img, err := s.Next(t.Context())
		if err != nil {
			break
		}
		if !img.Luma.ok() || img.Luma.W*img.Luma.H > tight.MaxPixels || n > tight.MaxFrames {
			t.Fatalf("picture %d: %d×%d", n, img.Luma.W, img.Luma.H)
		}
	}
	if _, err := s.Next(t.Context()); err != io.EOF {
		t.Fatalf("after the end: %v", err)
	}
	s.Close()
}

func FuzzY4M(f *testing.F) {
	f.Add([]byte("YUV4MPEG2 W2 H2 F30:1 C420jpeg\nFRAME\n123456FRAME Ip\n123456"))
	f.Add([]byte("YUV4MPEG2 W3 H1 Cmono\nFRAME\n123FRAME\n12"))
	f.Add([]byte("YUV4MPEG2 W99999999999999999999 H1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := newY4M(bytes.NewReader(b), func() error { return nil }, "fuzz", tight)
		if err == nil {
			drain(t, s)
		}
	})
}

func FuzzMJPEG(f *testing.F) {
	var b bytes.Buffer
	small := []*image.Gray{image.NewGray(image.Rect(0, 0, 16, 16)), image.NewGray(image.Rect(0, 0, 8, 8))}
	if err := mjpegOf(small)(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("\xff\xd8\xff\xe0\x00\x04ab\xff\xd9\r\n\xff\xff\xd8\xff\xd9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		drain(t, newMJPEG(io.NopCloser(bytes.NewReader(b)), "fuzz", tight))
		// What was cut out is a run of the input's own bytes.
		in := bufio.NewReader(bytes.NewReader(b))
		if cut, err := cutJPEG(in, nil, tight.MaxBytes); err == nil && len(cut) > len(b) {
			t.Fatalf("%d bytes were cut out of %d", len(cut), len(b))
		}
	})
}

func FuzzGIF(f *testing.F) {
	var b bytes.Buffer
	small := []*image.Gray{image.NewGray(image.Rect(0, 0, 8, 8)), image.NewGray(image.Rect(0, 0, 8, 8))}
	if err := animate(small, gif.DisposalPrevious)(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := newGIF(io.NopCloser(bytes.NewReader(b)), "fuzz", tight)
		if err == nil {
			drain(t, s)
		}
	})
}

// FuzzStill: what is no small picture is refused, in PNG, TIFF and BMP.
func FuzzStill(f *testing.F) {
	small := image.NewGray(image.Rect(0, 0, 8, 8))
	for _, encode := range []func(io.Writer, image.Image) error{
		png.Encode, bmp.Encode,
		func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) },
		func(w io.Writer, m image.Image) error {
			return tiff.Encode(w, m, &tiff.Options{Compression: tiff.Deflate})
		},
	} {
		var b bytes.Buffer
		if err := encode(&b, small); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add(bomb(8, 8, 1<<16))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeStill(bytes.NewReader(b), "fuzz", tight)
		if err == nil && (!l.ok() || l.W*l.H > tight.MaxPixels) {
			t.Fatalf("%d×%d", l.W, l.H)
		}
		if err != nil && fault.KindOf(err) != fault.Refused {
			t.Fatalf("kind %v: %v", fault.KindOf(err), err)
		}
	})
}

func FuzzPGM(f *testing.F) {
	f.Add([]byte("P5\n2 1\n255\nab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var pix []byte
		if l, err := readPGM(bufio.NewReader(bytes.NewReader(b)), &pix, "fuzz", tight); err == nil && !l.ok() {
			t.Fatalf("%d×%d", l.W, l.H)
		}
	})
}
