package render

import (
	"image"
	"image/color"
	"image/draw"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/font"
	"golang.org/x/image/font/inconsolata"
	"golang.org/x/image/math/fixed"

	"github.com/azs-courier/azs-courier/shared/bundle"
)

// TestTerminalPicture writes terminal.png for the documentation into the folder
// that AZS_PICTURES names: what "show" writes to a terminal of 120 by 40.
func TestTerminalPicture(t *testing.T) {
	dir := os.Getenv("AZS_PICTURES")
	if dir == "" {
		t.Skip("AZS_PICTURES names no folder")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "golden", "good-request.azc"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Split(text)
	if err != nil {
		t.Fatal(err)
	}
	term := NewTerminal(Showing{Wire: b.Wire()})
	s := newScreen(t, 120, 40)
	s.write(term.Start())
	s.write(term.Resize(120, 40))
	ink, ground := color.Gray{220}, color.Gray{24}
	blocks := s.photograph(ink, ground)
	img := image.NewRGBA(blocks.Bounds())
	draw.Draw(img, img.Bounds(), blocks, image.Point{}, draw.Src)
	for i, c := range s.cells {
		if c.r == '▄' || c.r == ' ' {
			continue
		}
		x, y := i%s.cols*8, i/s.cols*16
		draw.Draw(img, image.Rect(x, y, x+8, y+16), image.NewUniform(ground), image.Point{}, draw.Src)
		d := font.Drawer{Dst: img, Src: image.NewUniform(ink), Face: inconsolata.Regular8x16, Dot: fixed.P(x, y+12)}
		d.DrawString(string(c.r))
	}
	savePicture(t, filepath.Join(dir, "terminal.png"), img)
}
