package scan

import (
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode/decoder"
)

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
// it learnt of the last code, so it belongs to one sequence and to one goroutine.
type Reader struct {
	mode     Mode
	failing  int // pictures without a code since the last one with
	version  int // of the last code, or 0
	front    front
	repairer repairer
	decoder  *decoder.Decoder
	matrix   [41]*gozxing.BitMatrix // by version
	codes    []Code
}

// NewReader returns a reader that works as mode says.
func NewReader(mode Mode) *Reader {
	return &Reader{mode: mode, decoder: decoder.NewDecoder()}
}

// Reset forgets the last code, as before an unrelated picture; the buffers stay.
func (r *Reader) Reset() { r.failing, r.version = 0, 0 }

// Read returns the codes that it finds in l: one at most, or in the mode [All]
// up to 256 in no particular order. A picture whose fields do not fit each other
// has none. The slice is valid until the next Read.
func (r *Reader) Read(l Luma) []Code {
	r.codes = r.codes[:0]
	if !l.ok() || l.W < 21 || l.H < 21 {
		return nil
	}
	r.front.begin(l)
	r.pass(firstWindow, 3, 3)
	if len(r.codes) > 0 {
		r.failing = 0
		return r.codes
	}
	r.failing++
	if r.mode == Thorough || r.mode == All || r.mode == Live && r.failing%liveRetry == 0 {
		r.harder(l)
	}
	if len(r.codes) > 0 {
		r.failing = 0
	}
	return r.codes
}

// firstWindow is the radius of the surroundings of the first pass, in blocks.
const firstWindow = 4

// pass looks once, with surroundings of a radius, at every step-th row, and tries
// a number of triples.
func (r *Reader) pass(radius, step, triples int) {
	f := &r.front
	f.t.set(radius)
	f.findFinders(step)
	f.findTriples(10)
	for _, t := range f.triples[:min(triples, len(f.triples))] {
		if r.try(t) {
			return
		}
	}
}

// try reads the symbol of which t may be the finders.
func (r *Reader) try(t triple) bool {
	f := &r.front
	if !f.frame(t) {
		return false
	}
	for _, version := range f.versions(r.version) {
		if version == 0 || !f.suppose(version) || f.timing() < alternating {
			continue
		}
		f.align()
		f.read()
		f.modules.even(surroundings, f.light)
		f.modules.learn()
		if r.decode() || r.repairer.repair(&f.modules, r.mode != OnePass) && r.decode() {
			return true
		}
	}
	return false
}

// decode asks gozxing whether the modules are a symbol.
func (r *Reader) decode() (ok bool) {
	// The matrix comes from a picture, which may be hostile: whatever gozxing makes
	// of it, the program goes on.
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	m := &r.front.modules
	version := (m.dim - 17) / 4
	bits := r.matrix[version]
	if bits == nil {
		var err error
		if bits, err = gozxing.NewSquareBitMatrix(m.dim); err != nil {
			return false
		}
		r.matrix[version] = bits
	}
	bits.Clear()
	for j := range m.dim {
		for i, s := range m.soft[j*m.dim : (j+1)*m.dim] {
			if s < 0 {
				bits.Set(i, j)
			}
		}
	}
	result, err := r.decoder.Decode(bits, nil)
	if err != nil || result.GetText() == "" {
		return false
	}
	c := Code{Text: result.GetText(), Version: version}
	d := float64(m.dim)
	for i, p := range [4][2]float64{{0, 0}, {d, 0}, {d, d}, {0, d}} {
		c.Corners[i].X, c.Corners[i].Y = r.front.place(p[0], p[1])
	}
	r.version = version
	r.codes = append(r.codes, c)
	return true
}

// harder looks again in other ways, until there is a code.
func (r *Reader) harder(l Luma) {
	for _, w := range [...]struct{ radius, step, triples int }{{2, 2, 6}, {8, 2, 6}} {
		if r.pass(w.radius, w.step, w.triples); len(r.codes) > 0 {
			return
		}
	}
	if c, ok := stock(l); ok {
		r.codes = append(r.codes, c)
	}
}
