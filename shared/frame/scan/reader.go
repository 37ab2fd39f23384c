package scan

import (
	"cmp"
	"math"
	"slices"

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
	Version int      // 1 to 40, or 0 when only stock gozxing could read it
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

// What [All] does for one picture is bounded, since somebody may draw finders all
// over it: the codes, the threes of finders that are measured in one look, and
// those of them that are read as far as their modules.
const (
	maxCodes    = 50
	maxMeasured = 5000
	maxRead     = 400
)

// Reader reads QR codes. It keeps its buffers from picture to picture, and the
// version and the scale of the last code, so it belongs to one sequence and to one
// goroutine.
type Reader struct {
	mode     Mode
	failing  int // pictures without a code since the last one with
	version  int // of the last code, or 0
	last     look
	front    front
	small    [maxShift]shrunk
	decoder  *decoder.Decoder
	repairer repairer
	matrix   [41]*gozxing.BitMatrix // by version
	codes    []Code
	grids    int      // that the last look read: threes of finders with timing patterns between them
	taken    []finder // finders of codes that were read, in the full picture's pixels
}

// look is one way to look at a picture.
type look struct {
	shift   int // the picture is made smaller by 2^shift
	radius  int // of the surroundings that make the threshold, in blocks
	step    int // rows from one that is looked at to the next
	triples int // that are tried
}

// maxShift bounds how small a picture is made.
const maxShift = 4

// first is the look that reads most pictures; the others are for what it leaves.
var (
	first   = look{0, 4, 3, 3}
	smaller = look{1, 4, 2, 3}
	others  = [...]look{{0, 2, 2, 6}, {1, 4, 2, 6}, {0, 8, 2, 6}, {2, 4, 2, 6}, {3, 4, 2, 6}}
)

// NewReader returns a reader that works as mode says.
func NewReader(mode Mode) *Reader {
	return &Reader{mode: mode, last: first, decoder: decoder.NewDecoder()}
}

// Reset forgets the last code, as before an unrelated picture; the buffers stay.
func (r *Reader) Reset() { r.failing, r.version, r.last = 0, 0, first }

// Read returns the codes that it finds in l: one at most, or in the mode [All]
// up to 50 in no particular order. A picture whose fields do not fit each other
// has none. The slice is valid until the next Read.
func (r *Reader) Read(l Luma) []Code {
	r.codes, r.taken = r.codes[:0], r.taken[:0]
	if !l.ok() || l.W < 21 || l.H < 21 {
		return nil
	}
	r.failing++
	now := r.last
	r.look(l, now)
	if len(r.codes) == 0 && r.grids == 0 && now.shift == 0 {
		// Nothing that looks like a symbol: the grid of a screen may hide it, and costs
		// little to leave out.
		if r.look(l, smaller) {
			now = smaller
		}
	}
	if r.mode == Thorough || r.mode == All || r.mode == Live && r.failing%liveRetry == 0 {
		// A symbol that was found and not read is torn or blown out more often than
		// found badly: one more look is enough.
		ways := others[:]
		if r.mode != All && r.grids > 0 {
			ways = others[:1]
		}
		for _, way := range ways {
			if len(r.codes) > 0 && r.mode != All {
				break
			}
			if r.look(l, way) {
				now = way
			}
		}
		if now != first && len(r.codes) == 0 {
			r.look(l, first)
		}
		if len(r.codes) == 0 {
			if c, ok := stock(l); ok {
				r.codes = append(r.codes, c)
			}
		}
	}
	if len(r.codes) > 0 {
		r.failing = 0
		if r.mode != All {
			r.last = look{now.shift, now.radius, first.step, first.triples}
		}
	}
	return r.codes
}

// look looks once and says whether it read something.
func (r *Reader) look(l Luma, way look) bool {
	scale := float64(int(1) << way.shift)
	for s := range way.shift {
		if l.W < 200 && l.H < 200 {
			return false
		}
		l = r.small[s].of(l)
	}
	f := &r.front
	f.begin(l)
	f.t.set(way.radius)
	f.findFinders(way.step)
	if r.mode == All {
		f.findTriples(3 * maxCodes)
		way.triples = maxMeasured
		slices.SortStableFunc(f.triples, func(a, b triple) int {
			return cmp.Compare(a.cost+a.size/50, b.cost+b.size/50) // the finders of one symbol are near each other
		})
	} else {
		f.findTriples(10)
	}
	before := len(r.codes)
	r.grids = 0
	tried := 0
	for _, t := range f.triples {
		if r.isTaken(t, scale) {
			continue
		}
		if tried++; tried > way.triples || r.grids > maxRead || len(r.codes) >= maxCodes {
			break
		}
		if !r.try(t) {
			continue
		}
		c := &r.codes[len(r.codes)-1]
		for i := range c.Corners {
			c.Corners[i].X *= scale
			c.Corners[i].Y *= scale
		}
		if r.mode != All {
			return true
		}
		for _, p := range [3]finder{t.a, t.b, t.c} {
			r.taken = append(r.taken, finder{x: p.x * scale, y: p.y * scale, module: p.module * scale})
		}
	}
	return len(r.codes) > before
}

// isTaken says whether one of the finders belongs to a code that was read.
func (r *Reader) isTaken(t triple, scale float64) bool {
	for _, p := range [3]finder{t.a, t.b, t.c} {
		for _, q := range r.taken {
			if math.Hypot(p.x*scale-q.x, p.y*scale-q.y) < 3*q.module {
				return true
			}
		}
	}
	return false
}

// shrunk is a picture at half the size.
type shrunk struct{ pix []byte }

// of makes l smaller: every pixel is the mean of four.
func (s *shrunk) of(l Luma) Luma {
	w, h := l.W/2, l.H/2
	s.pix = grow(s.pix, w*h)
	for y := range h {
		p := l.Pix[2*y*l.Stride : 2*y*l.Stride+2*w]
		q := l.Pix[(2*y+1)*l.Stride : (2*y+1)*l.Stride+2*w]
		to := s.pix[y*w : (y+1)*w]
		for x := range to {
			to[x] = byte((int(p[2*x]) + int(p[2*x+1]) + int(q[2*x]) + int(q[2*x+1]) + 2) / 4)
		}
	}
	return Luma{Pix: s.pix, W: w, H: h, Stride: w}
}

// try reads the symbol of which t may be the finders.
func (r *Reader) try(t triple) bool {
	f := &r.front
	if !f.frame(t) {
		return false
	}
	for _, version := range f.versions(r.version, r.mode == All) {
		if version == 0 || !f.suppose(version) || f.timing() < alternating {
			continue
		}
		r.grids++
		f.align()
		f.read()
		for i, radius := range surroundings {
			// A small symbol has few modules to learn from, and takes little time.
			if i > 0 && r.mode == OnePass && version >= 7 {
				break
			}
			f.modules.even(radius, f.light)
			if i < 2 {
				f.modules.learn()
			} else {
				f.modules.soft = append(f.modules.soft[:0], f.modules.level...)
			}
			if r.decode() || r.repairer.repair(&f.modules, r.mode != OnePass) && r.decode() {
				return true
			}
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
