// Package render draws the frames of a bundle: as QR codes in a terminal, as
// pictures, as an animation, as a page that plays without a network, and as
// sheets to print.
//
// The property: every code that leaves here was read back before it left. Some
// texts make codes whose data looks like a finder pattern, which common readers
// miss however sharp they are (one in ten at version 30), and on paper or in a
// loop such a code fails for ever. Every index of a bundle is as good as any
// other, so one whose code a plain reader (gozxing, flat, at 4 and at 8 pixels a
// module) does not read to exactly its text is left out. Codes are black on white
// with four modules of white around them, whatever colours a screen prefers, at
// level L and at one version for a whole bundle.
//
// The limit: what is read flat here may still be missed by a camera that shakes,
// which is what the frames behind the first K are for. And a picture shows what it
// was given: whether the frames are a bundle, and whose, is decided by the
// signature inside.
//
// Nothing here reads a clock, opens a file or meets a terminal: texts and sizes
// in, bytes out, the same bytes for the same input.
package render

import (
	qrcode "github.com/skip2/go-qrcode"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"

	"github.com/makiuchi-d/gozxing"
	reader "github.com/makiuchi-d/gozxing/qrcode"
)

// Quiet is the white around a code, in modules (ISO/IEC 18004, section 6.3.8).
const Quiet = 4

// Modules returns the modules on a side of a code of the version, without the
// white around it.
func Modules(version int) int { return 17 + 4*version }

// Code is the modules of one QR code, without the white around it.
type Code struct {
	side int
	bits []byte // row by row, each beginning with a new byte, the highest bit first
}

// Draw makes the QR code of a text at a version, level L. A text that does not
// fit is a [fault.Usage].
func Draw(text string, version int) (*Code, error) {
	q, err := qrcode.NewWithForcedVersion(text, version, qrcode.Low)
	if err != nil {
		return nil, fault.New(fault.Usage, "a text of %d characters makes no QR code of version %d: %w", len(text), version, err)
	}
	q.DisableBorder = true
	rows := q.Bitmap()
	c := &Code{side: len(rows), bits: make([]byte, len(rows)*stride(len(rows)))}
	for y, row := range rows {
		for x, black := range row {
			if black {
				c.bits[y*stride(c.side)+x/8] |= 0x80 >> (x % 8)
			}
		}
	}
	return c, nil
}

func stride(side int) int { return (side + 7) / 8 }

// Side returns the modules on a side.
func (c *Code) Side() int { return c.side }

// Black reports whether a module is black. Outside the code all is white.
func (c *Code) Black(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.side && y < c.side && c.bits[y*stride(c.side)+x/8]&(0x80>>(x%8)) != 0
}

// Bits returns the modules row by row, every row beginning with a new byte, the
// highest bit first, a set bit black. The caller must not change them.
func (c *Code) Bits() []byte { return c.bits }

// grey draws the code with its white around it, scale pixels a module, one byte a
// pixel, and returns the pixels on a side.
func (c *Code) grey(scale int) (pixels []byte, side int) {
	side = (c.side + 2*Quiet) * scale
	pixels = make([]byte, side*side)
	for y := range side {
		row := pixels[y*side : (y+1)*side]
		if y%scale != 0 {
			copy(row, pixels[(y-1)*side:])
			continue
		}
		for x := range row {
			if !c.Black(x/scale-Quiet, y/scale-Quiet) {
				row[x] = 0xff
			}
		}
	}
	return pixels, side
}

// Reads reports whether a plain reader finds the code and reads exactly text, at
// 4 and at 8 pixels a module.
func (c *Code) Reads(text string) bool {
	for _, scale := range []int{4, 8} {
		pixels, side := c.grey(scale)
		source, err := gozxing.NewPlanarYUVLuminanceSource(pixels, side, side, 0, 0, side, side, false)
		if err != nil {
			return false
		}
		bitmap, err := gozxing.NewBinaryBitmap(gozxing.NewHybridBinarizer(source))
		if err != nil {
			return false
		}
		got, err := reader.NewQRCodeReader().Decode(bitmap, nil)
		if err != nil || got.GetText() != text {
			return false
		}
	}
	return true
}

// Still is one frame of a bundle as a code.
type Still struct {
	Index int // of the frame in its set
	Code  *Code
}

// Reel is the codes of a bundle in the order of their frames, without those that
// a plain reader misses. A code is drawn when it is first asked for. It is for one
// goroutine at a time.
type Reel struct {
	set    *frame.Set
	stills []Still
	next   int // index of the first frame that was not tried
}

// NewReel returns the codes of a set.
func NewReel(set *frame.Set) *Reel { return &Reel{set: set} }

// Set returns what the codes are of.
func (r *Reel) Set() *frame.Set { return r.set }

// At returns the code at a place that counts from 0 over the codes that can be
// read, and begins again behind the last one.
func (r *Reel) At(place int) (Still, error) {
	for r.next < r.set.N() && place >= len(r.stills) {
		if err := r.try(); err != nil {
			return Still{}, err
		}
	}
	if len(r.stills) < r.set.K() && r.next == r.set.N() {
		return Still{}, fault.New(fault.Unexpected, "of the %d codes of bundle %s at version %d only %d can be read, %d are needed",
			r.set.N(), r.set.ID(), r.set.Version(), len(r.stills), r.set.K()).Hint("show the bundle with --version %d", r.set.Version()%40+1)
	}
	return r.stills[place%len(r.stills)], nil
}

// try draws the next frame and keeps it when it can be read.
func (r *Reel) try() error {
	text, err := r.set.Text(r.next)
	if err != nil {
		return err
	}
	c, err := Draw(text, r.set.Version())
	if err != nil {
		return err
	}
	if c.Reads(text) {
		r.stills = append(r.stills, Still{r.next, c})
	}
	r.next++
	return nil
}

// First returns the first n codes, or all when there are fewer.
func (r *Reel) First(n int) ([]Still, error) {
	if _, err := r.At(n - 1); err != nil {
		return nil, err
	}
	return r.stills[:min(n, len(r.stills))], nil
}

// All returns every code.
func (r *Reel) All() ([]Still, error) { return r.First(r.set.N()) }

// Kept returns the codes of a set that is kept, on paper or as pictures: K and a
// quarter more, at least two, for what is lost to a crease or a coffee cup.
//
// All K systematic frames are among them, because the recipe that needs no program
// of ours only knows how to put those together: one whose code cannot be read at
// the version of the set is drawn one or two versions larger.
func (r *Reel) Kept() ([]Still, error) {
	k := r.set.K()
	n := k + max(2, k/4)
	kept, err := r.First(n)
	if err != nil {
		return nil, err
	}
	var all []Still
	for index := range k {
		s, err := r.systematic(index, kept)
		if err != nil {
			return nil, err
		}
		if s != nil {
			all = append(all, *s)
		}
	}
	for _, s := range kept {
		if s.Index >= k && len(all) < n {
			all = append(all, s)
		}
	}
	return all, nil
}

// systematic returns the code of a systematic frame, from those that are here or
// larger, and nil when no size can be read.
func (r *Reel) systematic(index int, here []Still) (*Still, error) {
	for _, s := range here {
		if s.Index == index {
			return &s, nil
		}
	}
	text, err := r.set.Text(index)
	if err != nil {
		return nil, err
	}
	for v := r.set.Version() + 1; v <= min(40, r.set.Version()+2); v++ {
		c, err := Draw(text, v)
		if err != nil {
			return nil, err
		}
		if c.Reads(text) {
			return &Still{index, c}, nil
		}
	}
	return nil, nil
}

// Fit returns the version for a bundle of so many bytes where versions up to most
// can be shown: the smallest that needs no more codes than most does. It is 0 when
// even most is too small.
func Fit(length, most int) int {
	smallest := frame.SmallestVersion(length)
	if smallest == 0 || most < smallest {
		return 0
	}
	codes := func(v int) int { return needed(length, v) }
	best := most
	for best > smallest && codes(best-1) == codes(most) {
		best--
	}
	return best
}

// needed is K of a bundle at a version.
func needed(length, version int) int {
	set, err := frame.Split(make([]byte, length), version)
	if err != nil {
		return 1 << 30
	}
	return set.K()
}
