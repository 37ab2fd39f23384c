// Package camera simulates a webcam that looks at a screen with a QR code: the
// pictures on which the reader in package scan and its peers are measured.
//
// A picture is 1280×720 grey pixels after JPEG, made from nothing but a seed, a
// [Class], a version and a number, so that everybody measures the same frames.
// The order of things is that of light: the screen (polarity, sub-pixels), the
// perspective of a tilted and rotated plane, the lens, the exposure (a row may see
// two codes), motion and defocus, uneven light and reflections, noise, JPEG.
//
// It is a model. There is no autofocus and no exposure that hunts, the noise is
// white and Gaussian, and the screen is flat; a real camera was not used.
package camera

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"iter"
	"math"
	"math/rand/v2"

	qrcode "github.com/skip2/go-qrcode"
)

// Width and Height are those of every picture, in pixels.
const (
	Width  = 1280
	Height = 720
)

// Class is a kind of picture. Where a class says nothing else it is like Typical.
type Class int

const (
	Clean   Class = iota // ≤3° tilt and rotation, fill .9, blur σ .6, noise σ 2, JPEG 92
	Typical              // ≤15° tilt, ≤10° rotation, fill .75–.9, blur .7–1.1, noise 3–6, JPEG 80, gradient ≤.3, lens k1 ±.02
	Hard                 // ≤30° tilt, ≤45° rotation, fill .65–.8, blur 1–1.6, noise 7–12, JPEG 60, gradient .3–.6
	Tear                 // the code switches at a random row
	Blend                // a long exposure: 50–100 % of the first code, the rest of the second
	Invert               // white on black
	Moire                // LCD sub-pixels, 4–7 screen pixels a module, blur .3–.6
	Motion               // smeared over 2–5 pixels
	Far                  // fill .5–.6
	Glare                // a blown spot with a radius of 5–15 % of the picture's height, somewhere on the code
	numClasses
)

var classNames = [numClasses]string{"clean", "typical", "hard", "tear", "blend", "invert", "moire", "motion", "far", "glare"}

func (c Class) String() string {
	if c < 0 || c >= numClasses {
		return fmt.Sprintf("class-%d", int(c))
	}
	return classNames[c]
}

// Classes returns every class.
func Classes() []Class {
	var all []Class
	for c := range numClasses {
		all = append(all, c)
	}
	return all
}

// Versions returns the QR versions of the suite.
func Versions() []int { return []int{10, 15, 20, 25, 30} }

// Shot is one picture of the suite.
type Shot struct {
	Class   Class
	Version int
	Number  int       // within its class and version, from 0
	Texts   [2]string // what a reader may return; the second one only where two codes were in view, else empty
	JPEG    []byte    // grey, 1280×720
}

// Suite returns perCell pictures for every class and version: 40 are the 2,000
// frames of the suite, and a smaller number gives the first ones of each cell.
func Suite(seed uint64, perCell int) iter.Seq[Shot] {
	return func(yield func(Shot) bool) {
		c := New()
		for _, class := range Classes() {
			for _, version := range Versions() {
				for n := range perCell {
					if !yield(c.Shoot(seed, class, version, n)) {
						return
					}
				}
			}
		}
	}
}

// Camera keeps the buffers between pictures. It belongs to one goroutine.
type Camera struct {
	light, smear []float32
	grey         *image.Gray
}

// New returns a camera.
func New() *Camera {
	return &Camera{
		light: make([]float32, Width*Height),
		smear: make([]float32, Width*Height),
		grey:  image.NewGray(image.Rect(0, 0, Width, Height)),
	}
}

// Shoot makes one picture.
func (c *Camera) Shoot(seed uint64, class Class, version, number int) Shot {
	rng := rand.New(rand.NewPCG(seed, uint64(class)<<40|uint64(version)<<32|uint64(number)))
	first, text := Random(rng, version)
	s := newScene(rng, class)
	shot := Shot{Class: class, Version: version, Number: number, Texts: [2]string{text}}
	second := first
	share := func(int) float64 { return 1 }
	switch class {
	case Tear:
		second, shot.Texts[1] = Random(rng, version)
		row := rng.IntN(Height)
		share = func(y int) float64 {
			if y < row {
				return 1
			}
			return 0
		}
	case Blend:
		second, shot.Texts[1] = Random(rng, version)
		w := .5 + .5*rng.Float64()
		share = func(int) float64 { return w }
	}
	shot.JPEG = c.expose(s, first, second, share, rng)
	return shot
}

// alphabet is that of RFC 9285.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

// capacity is how many bytes go into a version at level L as base45 in one
// alphanumeric segment, rounded down to an even number.
var capacity = map[int]int{5: 102, 10: 262, 13: 412, 15: 504, 17: 624, 20: 832, 23: 1058, 25: 1234, 30: 1680, 40: 2864}

// Random returns a full code of a version in [Versions] (or 5, 13, 17, 23, 40)
// with random content, as the frames of a sealed bundle have.
func Random(rng *rand.Rand, version int) (*Screen, string) {
	for {
		var b []byte
		for range capacity[version] / 2 {
			n := rng.IntN(1 << 16)
			b = append(b, alphabet[n%45], alphabet[n/45%45], alphabet[n/2025])
		}
		// A text that starts with many digits may need a segment more, and not fit.
		if s, err := NewScreen(string(b), version); err == nil {
			return s, string(b)
		}
	}
}

// Screen is what a screen shows: a code with its quiet zone of 4 modules.
type Screen struct {
	n    int // modules a side, quiet zone included
	dark []bool
}

// NewScreen draws text as a code of a version at level L.
func NewScreen(text string, version int) (*Screen, error) {
	q, err := qrcode.NewWithForcedVersion(text, version, qrcode.Low)
	if err != nil {
		return nil, fmt.Errorf("a text of %d characters as version %d: %w", len(text), version, err)
	}
	q.DisableBorder = true
	bitmap := q.Bitmap()
	s := &Screen{n: len(bitmap) + 8}
	s.dark = make([]bool, s.n*s.n)
	for y, row := range bitmap {
		copy(s.dark[(y+4)*s.n+4:], row)
	}
	return s, nil
}

// Flat draws the screen as pixels of px×px a module, black on white, as a
// screenshot has it.
func (s *Screen) Flat(px int) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, s.n*px, s.n*px))
	for y := range s.n * px {
		for x := range s.n * px {
			if !s.dark[y/px*s.n+x/px] {
				m.Pix[y*m.Stride+x] = 255
			}
		}
	}
	return m
}

// scene is where the camera is and what is in its way. Angles are in radians,
// lengths in pixels of the picture.
type scene struct {
	tilt, axis, roll float64
	fill             float64
	dx, dy           float64
	blur, noise      float64
	quality          int
	gradient, from   float64
	k1               float64
	invert           bool
	subpixels        float64 // screen pixels a module; 0 is a screen without a grid
	motion, heading  float64
	glare            float64 // radius
	gx, gy           float64 // its place on the code, 0 to 1
	black, white     float64
	around           float64
}

func newScene(rng *rand.Rand, class Class) scene {
	between := func(a, b float64) float64 { return a + (b-a)*rng.Float64() }
	degrees := func(most float64) float64 { return between(-most, most) * math.Pi / 180 }
	s := scene{
		tilt: degrees(15), axis: between(0, 2*math.Pi), roll: degrees(10), fill: between(.75, .9),
		dx: between(-20, 20), dy: between(-10, 10),
		blur: between(.7, 1.1), noise: between(3, 6), quality: 80,
		gradient: between(0, .3), from: between(0, 2*math.Pi), k1: between(-.02, .02),
		black: between(15, 45), white: between(205, 235), around: between(30, 200),
	}
	switch class {
	case Clean:
		s.tilt, s.roll, s.fill, s.blur, s.noise, s.quality, s.gradient, s.k1 = degrees(3), degrees(3), .9, .6, 2, 92, 0, 0
	case Hard:
		s.tilt, s.roll, s.fill, s.blur, s.noise, s.quality = degrees(30), degrees(45), between(.65, .8), between(1, 1.6), between(7, 12), 60
		s.gradient = between(.3, .6)
	case Invert:
		s.invert = true
	case Moire:
		s.subpixels, s.blur = float64(4+rng.IntN(4)), between(.3, .6)
	case Motion:
		s.motion, s.heading = between(2, 5), between(0, math.Pi)
	case Far:
		s.fill = between(.5, .6)
	case Glare:
		s.glare, s.gx, s.gy = between(.05, .15)*Height, rng.Float64(), rng.Float64()
	}
	return s
}

// focal is the focal length in pixels: a horizontal view of 60°.
const focal = 1108

// view maps the screen, −½ to ½ a side, to the picture; row major.
func (s *scene) view(distance float64) [9]float64 {
	sinT, cosT := math.Sincos(s.tilt)
	sinA, cosA := math.Sincos(s.axis)
	sinR, cosR := math.Sincos(s.roll)
	// The rotation by tilt about an axis in the plane, of the vectors (1,0,0) and
	// (0,1,0) turned by roll.
	turn := func(x, y float64) (float64, float64, float64) {
		along := x*cosA + y*sinA
		px, py := x-along*cosA, y-along*sinA // across the axis
		return along*cosA + px*cosT, along*sinA + py*cosT, (cosA*y - sinA*x) * sinT
	}
	ax, ay, az := turn(cosR, sinR)
	bx, by, bz := turn(-sinR, cosR)
	cx, cy := float64(Width)/2, float64(Height)/2
	tx, ty := s.dx/focal*distance, s.dy/focal*distance
	return [9]float64{
		focal*ax + cx*az, focal*bx + cx*bz, focal*tx + cx*distance,
		focal*ay + cy*az, focal*by + cy*bz, focal*ty + cy*distance,
		az, bz, distance,
	}
}

func apply(m *[9]float64, x, y float64) (float64, float64) {
	w := m[6]*x + m[7]*y + m[8]
	return (m[0]*x + m[1]*y + m[2]) / w, (m[3]*x + m[4]*y + m[5]) / w
}

func invert(m [9]float64) [9]float64 {
	return [9]float64{ // the adjugate: the scale does not matter
		m[4]*m[8] - m[5]*m[7], m[2]*m[7] - m[1]*m[8], m[1]*m[5] - m[2]*m[4],
		m[5]*m[6] - m[3]*m[8], m[0]*m[8] - m[2]*m[6], m[2]*m[3] - m[0]*m[5],
		m[3]*m[7] - m[4]*m[6], m[1]*m[6] - m[0]*m[7], m[0]*m[4] - m[1]*m[3],
	}
}

// place stands the camera at the distance that the fill asks for, and goes back
// from there until the whole symbol is in the picture, as an operator would.
func (s *scene) place(n int) [9]float64 {
	distance := focal / (s.fill * Height)
	half := .5 * float64(n-8+2) / float64(n)
	for {
		m := s.view(distance)
		inside := true
		for _, p := range [][2]float64{{-half, -half}, {half, -half}, {half, half}, {-half, half}} {
			x, y := apply(&m, p[0], p[1])
			inside = inside && x >= 2 && x <= Width-2 && y >= 2 && y <= Height-2
		}
		if inside {
			return m
		}
		distance *= 1.02
		s.dx, s.dy = s.dx*.9, s.dy*.9
	}
}

// expose makes a picture of the screen while it shows first and second; share is
// how much of a row's exposure the first one has.
func (c *Camera) expose(s scene, first, second *Screen, share func(y int) float64, rng *rand.Rand) []byte {
	n := first.n
	m := s.place(n)
	inv := invert(m)
	black, white := float32(s.black), float32(s.white)
	if s.invert {
		black, white = white, black
	}
	steps := 2 // samples of a pixel, a side
	if s.subpixels > 0 {
		steps = 4
	}
	norm := 1 / float32(steps*steps)
	diagonal := float64(Width*Width+Height*Height) / 4
	for y := range Height {
		w := float32(share(y))
		row := c.light[y*Width : (y+1)*Width]
		for x := range row {
			sum := float32(0)
			for sy := range steps {
				fy := float64(y) + (float64(sy)+.5)/float64(steps) - Height/2
				for sx := range steps {
					fx := float64(x) + (float64(sx)+.5)/float64(steps) - Width/2
					k := 1 + s.k1*(fx*fx+fy*fy)/diagonal
					u, v := apply(&inv, fx*k+Width/2, fy*k+Height/2)
					u, v = (u+.5)*float64(n), (v+.5)*float64(n)
					if u < 0 || v < 0 || u >= float64(n) || v >= float64(n) {
						sum += float32(s.around)
						continue
					}
					at := int(v)*n + int(u)
					value := white
					if first.dark[at] == second.dark[at] {
						if first.dark[at] {
							value = black
						}
					} else if first.dark[at] {
						value = w*black + (1-w)*white
					} else {
						value = w*white + (1-w)*black
					}
					if s.subpixels > 0 {
						value = black + (value-black)*grid(u*s.subpixels, v*s.subpixels)
					}
					sum += value
				}
			}
			row[x] = sum * norm
		}
	}
	if s.motion > 0 {
		c.move(s.motion, s.heading)
	}
	c.defocus(s.blur)
	return c.develop(s, m, rng)
}

// grid is the light of an LCD at a place in screen pixels: three stripes with a
// dark frame about each, by their weight in brightness, 1 on average.
func grid(u, v float64) float32 {
	u, v = u-math.Floor(u), v-math.Floor(v)
	if v < .1 || v > .9 {
		return 0
	}
	stripe := int(u * 3)
	if f := u*3 - float64(stripe); f < .12 || f > .88 {
		return 0
	}
	return [3]float32{.299, .587, .114}[min(stripe, 2)] * 3 / (.8 * .76)
}

// move smears the picture along a line.
func (c *Camera) move(length, heading float64) {
	dy, dx := math.Sincos(heading)
	const taps = 9
	for y := range Height {
		for x := range Width {
			sum := float32(0)
			for t := range taps {
				d := length * (float64(t)/(taps-1) - .5)
				fx, fy := max(0, min(Width-1.001, float64(x)+d*dx)), max(0, min(Height-1.001, float64(y)+d*dy))
				ix, iy := int(fx), int(fy)
				rx, ry := float32(fx-float64(ix)), float32(fy-float64(iy))
				p := c.light[iy*Width+ix:]
				top := p[0] + rx*(p[1]-p[0])
				bottom := top
				if iy+1 < Height {
					q := c.light[(iy+1)*Width+ix:]
					bottom = q[0] + rx*(q[1]-q[0])
				}
				sum += top + ry*(bottom-top)
			}
			c.smear[y*Width+x] = sum / taps
		}
	}
	c.light, c.smear = c.smear, c.light
}

// defocus blurs by a Gaussian of σ pixels.
func (c *Camera) defocus(sigma float64) {
	r := int(math.Ceil(3 * sigma))
	kernel := make([]float32, 2*r+1)
	total := float32(0)
	for i := range kernel {
		kernel[i] = float32(math.Exp(-float64((i-r)*(i-r)) / (2 * sigma * sigma)))
		total += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= total
	}
	for y := range Height {
		row, to := c.light[y*Width:(y+1)*Width], c.smear[y*Width:(y+1)*Width]
		for x := range to {
			sum := float32(0)
			if x >= r && x < Width-r {
				for i, p := range row[x-r : x+r+1] {
					sum += kernel[i] * p
				}
			} else {
				for i, k := range kernel {
					sum += k * row[max(0, min(Width-1, x+i-r))]
				}
			}
			to[x] = sum
		}
	}
	for y := range Height {
		to := c.light[y*Width : (y+1)*Width]
		clear(to)
		for i, k := range kernel {
			row := c.smear[max(0, min(Height-1, y+i-r))*Width:][:Width]
			for x, p := range row {
				to[x] += k * p
			}
		}
	}
}

// develop adds light, reflections and noise, and writes the JPEG.
func (c *Camera) develop(s scene, m [9]float64, rng *rand.Rand) []byte {
	sin, cos := math.Sincos(s.from)
	gx, gy := apply(&m, s.gx-.5, s.gy-.5)
	for y := range Height {
		for x := range Width {
			// 0 at one edge of the picture and 1 at the other, along the gradient.
			t := .5 + (float64(x)/Width-.5)*cos + (float64(y)/Height-.5)*sin
			v := float64(c.light[y*Width+x]) * (1 - s.gradient*max(0, min(1, t)))
			if s.glare > 0 {
				d := math.Hypot(float64(x)-gx, float64(y)-gy) / s.glare
				v += 255 * max(0, min(1, (1.3-d)/.3))
			}
			v += s.noise * rng.NormFloat64()
			c.grey.Pix[y*Width+x] = byte(max(0, min(255, v+.5)))
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, c.grey, &jpeg.Options{Quality: s.quality}); err != nil {
		panic(err) // a buffer takes every byte, and the size is a constant
	}
	return b.Bytes()
}
