package render

import (
	"bytes"
	"fmt"
	"image/color"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/frame"
)

// TestTerminalSizes holds the sizes that the help names.
func TestTerminalSizes(t *testing.T) {
	for _, tt := range []struct{ cols, rows, want int }{{80, 24, 5}, {120, 40, 13}, {200, 60, 23}, {30, 10, 0}, {45, 24, 5}, {44, 24, 4}, {45, 23, 4}, {0, 0, 0}, {1000, 1000, 40}} {
		if got := TerminalVersion(tt.cols, tt.rows); got != tt.want {
			t.Errorf("a terminal of %d by %d fits version %d, want %d", tt.cols, tt.rows, got, tt.want)
		}
	}
}

// What is written to a terminal is put on a screen, the screen is photographed in
// a dark and in a light theme, and an independent reader reads the photograph.
func TestZbarReadsTheTerminal(t *testing.T) {
	tool(t, "ZBAR", "zbarimg")
	read := 0
	for _, tt := range []struct{ cols, rows, length int }{{80, 24, 2000}, {45, 24, 300}, {120, 40, 5321}, {200, 60, 5321}} {
		for theme, grey := range [][2]color.Gray{{{230}, {20}}, {{30}, {250}}} {
			term := NewTerminal(Showing{Wire: bytesOf(tt.length)})
			s := newScreen(t, tt.cols, tt.rows)
			s.write(term.Start())
			s.write(term.Resize(tt.cols, tt.rows))
			if !s.alternate || !s.hidden || s.sync {
				t.Fatalf("after the first frame the screen is alternate: %v, its cursor hidden: %v, still held: %v", s.alternate, s.hidden, s.sync)
			}
			dir := t.TempDir()
			var want, paths []string
			k := term.reel.Set().K()
			for i := range k + 2 {
				if i > 0 {
					s.write(term.Tick())
				}
				still, err := term.reel.At(i)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, textsOf(t, term.reel, []Still{still})...)
				paths = append(paths, savePicture(t, filepath.Join(dir, fmt.Sprintf("%03d.png", i)), s.photograph(grey[0], grey[1])))
				if line := s.line((Modules(term.reel.Set().Version()) + 2*Quiet + 1) / 2); !strings.Contains(line, fmt.Sprintf("code %d · any %d of ", still.Index, k)) {
					t.Errorf("the status line is %q", line)
				}
			}
			got := zbar(t, paths...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%d by %d, theme %d (-shown +read):\n%s", tt.cols, tt.rows, theme, diff)
			}
			if !bytes.Equal(join(t, got[2:]), bytesOf(tt.length)) {
				t.Errorf("%d by %d: the bundle does not come back", tt.cols, tt.rows)
			}
			read += len(got)
			s.write(term.Stop())
			if s.alternate || s.hidden || s.sync {
				t.Error("the terminal is not given back")
			}
		}
	}
	t.Logf("zbarimg read %d screens", read)
}

func TestEveryCellIsAHalfBlockInTwoColours(t *testing.T) {
	term := NewTerminal(Showing{Wire: bytesOf(2000)})
	s := newScreen(t, 80, 24)
	s.write(term.Resize(80, 24))
	for y := range 23 {
		for x := range 45 {
			c := s.cells[y*80+x+17]
			if c.r != '▄' || c.fg != black && c.fg != white || c.bg != black && c.bg != white {
				t.Fatalf("column %d, row %d is %q in colours %d and %d", x+17, y, c.r, c.fg, c.bg)
			}
			if edge := x < Quiet || x >= 41 || y < 2 || y >= 21; edge && (c.fg != white || c.bg != white) {
				t.Fatalf("the quiet zone is not white at column %d, row %d", x+17, y)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	term := NewTerminal(Showing{Wire: bytesOf(12000)})
	s := newScreen(t, 200, 60)
	s.write(term.Resize(200, 60))
	state := func() string {
		return fmt.Sprintf("V%d code %d every %v", term.reel.Set().Version(), term.place, term.Interval())
	}
	if got, want := state(), "V23 code 0 every 125ms"; got != want {
		t.Fatalf("at the beginning: %s, want %s", got, want)
	}
	for _, tt := range []struct{ keys, want string }{
		{"+", "V23 code 0 every " + (time.Second / 9).String()},
		{"-", "V23 code 0 every 125ms"},
		{"\x1b[C", "V23 code 0 every " + (time.Second / 9).String()},
		{"\x1bOD", "V23 code 0 every 125ms"},
		{strings.Repeat("+", 40), "V23 code 0 every " + (time.Second / 15).String()},
		{strings.Repeat("-", 40), "V23 code 0 every 1s"},
		{"=======", "V23 code 0 every 125ms"},
		{" ", "V23 code 0 every 0s"},
		{"n", "V23 code 1 every 0s"},
		{"p", "V23 code 1 every 125ms"},
		{"n.\r", "V23 code 4 every 0s"},
		{" ", "V23 code 4 every 125ms"},
		{"d", "V23 code 4 every 125ms"}, // the largest that fits
		{"s", "V22 code 0 every 125ms"},
		{"\x1b[B", "V21 code 0 every 125ms"},
		{"\x1b[A", "V22 code 0 every 125ms"},
		{"\x1b[24~xyz\x1b", "V22 code 0 every 125ms"},
		{strings.Repeat("s", 50), "V6 code 0 every 125ms"}, // below, N would be less than 2K
	} {
		out, done := term.Keys([]byte(tt.keys))
		s.write(out)
		if got := state(); done || got != tt.want {
			t.Errorf("after %q: %s, want %s", tt.keys, got, tt.want)
		}
	}
	for _, key := range []string{"q", "Q", "\x03", "\x04", "+q"} {
		if _, done := term.Keys([]byte(key)); !done {
			t.Errorf("%q does not end it", key)
		}
	}
	// A sequence that arrives in pieces is the same key.
	before := term.rate
	term.Keys([]byte("\x1b"))
	term.Keys([]byte("["))
	if term.Keys([]byte("C")); term.rate != before+1 {
		t.Errorf("an arrow key in three pieces: from %d to %d a second", before, term.rate)
	}
}

func TestResize(t *testing.T) {
	term := NewTerminal(Showing{Wire: bytesOf(12000), Instead: []string{"azs-agent show b.azc --html FILE", "azs-agent show b.azc --pdf FILE"}})
	small := newScreen(t, 70, 20)
	small.write(term.Resize(70, 20))
	for _, part := range []string{"has 70 columns and 20 rows", "need 49 and 26", "--html FILE", "--pdf FILE", "q quits."} {
		if !strings.Contains(strings.ReplaceAll(small.text(), "\n", " "), part) {
			t.Errorf("a terminal that is too small does not say %q:\n%s", part, small.text())
		}
	}
	if term.Interval() != 0 || term.Tick() != nil {
		t.Error("nothing is shown and yet it moves")
	}
	if out, done := term.Keys([]byte("+-dsn p\x1b[A")); done {
		t.Error("a key ended it")
	} else {
		small.write(out)
	}
	term.Keys([]byte("p"))
	large := newScreen(t, 200, 60)
	large.write(term.Resize(200, 60))
	if term.reel.Set().Version() != 23 {
		t.Errorf("version %d in 200 by 60", term.reel.Set().Version())
	}
	for range 5 {
		large.write(term.Tick())
	}
	// The same codes go on while they fit, whatever the size.
	larger := newScreen(t, 230, 80)
	if larger.write(term.Resize(230, 80)); term.place == 0 {
		t.Error("the codes began again although their size fits")
	}
	tiny := newScreen(t, 7, 2)
	tiny.write(term.Resize(7, 2))
	none := newScreen(t, 0, 0)
	none.write(term.Resize(0, 0))
}

func TestABundleThatNoCodeCarries(t *testing.T) {
	term := NewTerminal(Showing{Wire: bytesOf(400000)})
	s := newScreen(t, 200, 60)
	s.write(term.Resize(200, 60))
	if !strings.Contains(s.text(), "crosses as a file") {
		t.Errorf("it says:\n%s", s.text())
	}
	if frame.SmallestVersion(400000) != 0 {
		t.Error("400,000 bytes fit")
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("+-n\x1b[A\x1b[Bdsq"), uint8(80), uint8(24))
	f.Add([]byte("\x1b\x1b[[;;~"), uint8(0), uint8(3))
	f.Fuzz(func(t *testing.T, keys []byte, cols, rows uint8) {
		term := NewTerminal(Showing{Wire: bytesOf(150), Instead: []string{"azs-agent show b.azc --html FILE"}})
		s := newScreen(t, int(cols), int(rows))
		term.cols, term.rows = int(cols), int(rows)
		term.choose()
		for _, k := range keys { // what is drawn in between takes time and changes nothing
			if term.key(k) == quit {
				break
			}
			if v := TerminalVersion(term.cols, term.rows); term.rate < MinRate || term.rate > MaxRate || term.reel != nil && term.reel.Set().Version() > v {
				t.Fatalf("after %q: %d codes a second, version %d where %d fits", keys, term.rate, term.version, v)
			}
		}
		s.write(term.draw(clear))
		s.write(term.Stop())
	})
}
