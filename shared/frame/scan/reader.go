package scan

import "github.com/makiuchi-d/gozxing/qrcode/decoder"

// Luma is a grey picture: pixel (x, y) is Pix[y*Stride+x], 0 is black and 255 is
// white. The reader only reads it.
type Luma struct {
	Pix          []byte
	W, H, Stride int
}

// ok says whether the fields fit each other.
func (l Luma) ok() bool {
	return l.W > 0 && l.H > 0 && l.Stride >= l.W && len(l.Pix)/l.Stride >= l.H-1 && len(l.Pix) >= (l.H-1)*l.Stride+l.W
}

// Point is a place in a picture, in pixels; the first pixel's middle is (0.5, 0.5).
type Point struct{ X, Y float64 }

// Code is one symbol that was read.
type Code struct {
	Text    string   // as the QR's segments spell it
	Version int      // 1 to 40
	Corners [4]Point // of the symbol without its quiet zone: top left, top right, bottom right, bottom left as the symbol stands
}

// Mode says how much work a [Reader] does for a picture.
type Mode int

const (
	// OnePass looks once: for a live camera, where the next picture comes at once.
	OnePass Mode = iota
	// Live is OnePass that looks thoroughly at every sixth picture in which it
	// found nothing.
	Live
	// Thorough tries other windows, scales and sharpness, mirrored symbols and, in
	// the end, stock gozxing, until it has one code.
	Thorough
	// All is Thorough that reads every code in the picture: a printed sheet, a
	// page, a screenshot.
	All
)

// liveRetry is the distance between two thorough looks in [Live] mode, in
// pictures without a code.
const liveRetry = 6

// maxCodes bounds what [All] reads from one picture.
const maxCodes = 256

// Reader reads QR codes. It keeps its buffers from picture to picture, and what
// it learnt of the last code (polarity, version), so it belongs to one sequence
// and to one goroutine.
type Reader struct {
	mode    Mode
	failing int // pictures without a code since the last one with
	decoder *decoder.Decoder
	codes   []Code
}

// NewReader returns a reader that works as mode says.
func NewReader(mode Mode) *Reader {
	return &Reader{mode: mode, decoder: decoder.NewDecoder()}
}

// Reset forgets the last code, as before an unrelated picture; the buffers stay.
func (r *Reader) Reset() { r.failing = 0 }

// Read returns the codes that it finds in l: one at most, or in the mode [All]
// up to 256 in no particular order. A picture whose fields do not fit each other
// has none. The slice is valid until the next Read.
func (r *Reader) Read(l Luma) []Code {
	r.codes = r.codes[:0]
	if !l.ok() {
		return nil
	}
	if c, ok := stock(l); ok {
		r.codes = append(r.codes, c)
	}
	return r.codes
}
