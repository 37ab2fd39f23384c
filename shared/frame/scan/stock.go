package scan

import (
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// stock reads one code with gozxing alone: its binarizer, its detector, its
// decoder. It tells no version and only the middles of the finder patterns, so
// the corners are those of the parallelogram that they span.
func stock(l Luma) (Code, bool) {
	if l.W < 21 || l.H < 21 {
		return Code{}, false
	}
	source, err := gozxing.NewPlanarYUVLuminanceSource(l.Pix, l.Stride, l.H, 0, 0, l.W, l.H, false)
	if err != nil {
		return Code{}, false
	}
	bitmap, err := gozxing.NewBinaryBitmap(gozxing.NewHybridBinarizer(source))
	if err != nil {
		return Code{}, false
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil || result.GetText() == "" {
		return Code{}, false
	}
	c := Code{Text: result.GetText()}
	if p := result.GetResultPoints(); len(p) >= 3 {
		bl, tl, tr := Point{p[0].GetX(), p[0].GetY()}, Point{p[1].GetX(), p[1].GetY()}, Point{p[2].GetX(), p[2].GetY()}
		c.Corners = [4]Point{tl, tr, {tr.X + bl.X - tl.X, tr.Y + bl.Y - tl.Y}, bl}
	}
	return c, true
}
