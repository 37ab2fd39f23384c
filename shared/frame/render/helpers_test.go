package render

import (
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/frame"
)

// bytesOf returns as many bytes as a bundle may have, the same at every run.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func reelOf(t testing.TB, length, version int) *Reel {
	t.Helper()
	set, err := frame.Split(bytesOf(length), version)
	if err != nil {
		t.Fatal(err)
	}
	return NewReel(set)
}

// textsOf returns what the codes must read as.
func textsOf(t testing.TB, r *Reel, stills []Still) []string {
	t.Helper()
	var texts []string
	for _, s := range stills {
		text, err := r.Set().Text(s.Index)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}

// tool finds a program of an independent reader. Where it is missing the test is
// skipped, or fails when AZS_REQUIRE_<name> is 1.
func tool(t testing.TB, name, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("AZS_REQUIRE_"+name) == "1" {
		t.Fatalf("%s is required and missing: %v", program, err)
	}
	t.Skipf("%s is missing: %v", program, err)
	return ""
}

// zbar reads every code of pictures, in the order of the pictures.
func zbar(t testing.TB, files ...string) []string {
	t.Helper()
	out, err := exec.Command(tool(t, "ZBAR", "zbarimg"), append([]string{"-q", "--raw", "-Sdisable", "-Sqrcode.enable"}, files...)...).Output()
	if err != nil {
		t.Fatalf("zbarimg %q: %v", files, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// join gives the bundle back from texts, as its receiver does.
func join(t testing.TB, texts []string) []byte {
	t.Helper()
	j := frame.NewJoiner()
	var id frame.ID
	for _, text := range texts {
		f, err := frame.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Add(f); err != nil {
			t.Fatal(err)
		}
		id = f.ID
	}
	wire, err := j.Join(id)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func save(t testing.TB, dir string, files []File) []string {
	t.Helper()
	var paths []string
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func savePicture(t testing.TB, path string, img image.Image) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
	return path
}

// cell is one character cell of a screen: what stands there and its two colours as
// entries of the 256-colour palette, -1 for the colours of the theme.
type cell struct {
	r      rune
	fg, bg int
}

// screen is a terminal as far as an animation uses one. What it does not know is
// a failure of the test.
type screen struct {
	t          testing.TB
	cols, rows int
	cells      []cell
	x, y       int // from 0
	fg, bg     int
	alternate  bool
	hidden     bool // the cursor
	sync       bool
}

func newScreen(t testing.TB, cols, rows int) *screen {
	s := &screen{t: t, cols: cols, rows: rows, fg: -1, bg: -1}
	s.erase()
	return s
}

func (s *screen) erase() { s.cells = slices.Repeat([]cell{{' ', s.fg, s.bg}}, s.cols*s.rows) }

func (s *screen) write(b []byte) {
	s.t.Helper()
	text := string(b)
	for text != "" {
		if seq, ok := strings.CutPrefix(text, "\x1b["); ok {
			end := strings.IndexFunc(seq, func(r rune) bool { return r >= 0x40 && r <= 0x7e })
			if end < 0 {
				s.t.Fatalf("an escape sequence has no end: %q", seq)
			}
			s.control(seq[:end], seq[end])
			text = seq[end+1:]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		if r < ' ' || r == 0x7f {
			s.t.Fatalf("a control character %q", r)
		}
		if s.x >= s.cols || s.y >= s.rows {
			s.t.Fatalf("%q is written to column %d, row %d of %d by %d", r, s.x, s.y, s.cols, s.rows)
		}
		s.cells[s.y*s.cols+s.x] = cell{r, s.fg, s.bg}
		s.x++
	}
}

func (s *screen) control(args string, final byte) {
	s.t.Helper()
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			s.t.Fatalf("escape sequence %q%c: %v", args, final, err)
		}
		return n
	}
	switch {
	case final == 'H' && args == "":
		s.x, s.y = 0, 0
	case final == 'H':
		row, col, _ := strings.Cut(args, ";")
		s.x, s.y = number(col)-1, number(row)-1
	case final == 'J' && args == "2":
		s.erase()
	case final == 'K' && args == "":
		for x := s.x; x < s.cols; x++ {
			s.cells[s.y*s.cols+x] = cell{' ', s.fg, s.bg}
		}
	case final == 'm' && args == "":
		s.fg, s.bg = -1, -1
	case final == 'm':
		p := strings.Split(args, ";")
		for len(p) > 0 {
			switch {
			case len(p) >= 3 && p[0] == "38" && p[1] == "5":
				s.fg = number(p[2])
			case len(p) >= 3 && p[0] == "48" && p[1] == "5":
				s.bg = number(p[2])
			default:
				s.t.Fatalf("unknown colours %q", args)
			}
			p = p[3:]
		}
	case args == "?1049" && (final == 'h' || final == 'l'):
		s.alternate = final == 'h'
	case args == "?25" && (final == 'h' || final == 'l'):
		s.hidden = final == 'l'
	case args == "?2026" && (final == 'h' || final == 'l'):
		s.sync = final == 'h'
	default:
		s.t.Fatalf("unknown escape sequence %q%c", args, final)
	}
}

// line returns the text of a row.
func (s *screen) line(y int) string {
	var b strings.Builder
	for _, c := range s.cells[y*s.cols : (y+1)*s.cols] {
		b.WriteRune(c.r)
	}
	return strings.TrimRight(b.String(), " ")
}

func (s *screen) text() string {
	var lines []string
	for y := range s.rows {
		lines = append(lines, s.line(y))
	}
	return strings.Join(lines, "\n")
}

// photograph shows the screen as pixels, each cell 8 wide and 16 high, in a theme
// with those two colours. Letters are drawn as a bar.
func (s *screen) photograph(themeFg, themeBg color.Gray) image.Image {
	img := image.NewGray(image.Rect(0, 0, s.cols*8, s.rows*16))
	shade := func(n int, theme color.Gray) color.Gray {
		switch n {
		case -1:
			return theme
		case black:
			return color.Gray{0}
		case white:
			return color.Gray{255}
		}
		s.t.Fatalf("colour %d on the screen", n)
		return color.Gray{}
	}
	for i, c := range s.cells {
		fg, bg := shade(c.fg, themeFg), shade(c.bg, themeBg)
		for y := range 16 {
			for x := range 8 {
				ink := false
				switch c.r {
				case ' ':
				case '▄':
					ink = y >= 8
				default:
					ink = x >= 2 && x < 6 && y >= 4 && y < 12
				}
				p := bg
				if ink {
					p = fg
				}
				img.SetGray(i%s.cols*8+x, i/s.cols*16+y, p)
			}
		}
	}
	return img
}
