package scan

import (
	"math"
	"math/bits"

	"github.com/makiuchi-d/gozxing/qrcode/decoder"
)

// front is the way from a picture to a module matrix. It keeps its buffers.
type front struct {
	l       Luma
	t       thresholds
	runs    []int32
	finders []finder
	triples []triple

	frames  [3]frame // of the triple that is looked at
	light   bool     // it is inverted
	ties    []tie
	h       homography
	dim     int
	centers []int
	anchors []anchor // len(centers)², row by row
	patch   []float64

	modules modules
}

// begin takes a picture.
func (f *front) begin(l Luma) {
	f.l = l
	f.t.measure(l)
}

// frame measures the three finders of a triple.
func (f *front) frame(t triple) bool {
	f.light = t.a.light
	for i, p := range [3]finder{t.a, t.b, t.c} {
		ux, uy := t.b.x-t.a.x, t.b.y-t.a.y
		vx, vy := t.c.x-t.a.x, t.c.y-t.a.y
		u, v := math.Hypot(ux, uy), math.Hypot(vx, vy)
		ux, uy, vx, vy = ux/u, uy/u, vx/v, vy/v
		// Rows and columns measure a turned square along the picture's axes.
		m := p.module * max(math.Abs(ux), math.Abs(uy))
		r, ok := f.fitFrame(frame{x: p.x, y: p.y, ax: ux * m, ay: uy * m, bx: vx * m, by: vy * m})
		if !ok {
			return false
		}
		f.frames[i] = r
	}
	return true
}

// dimension estimates the modules a side from the distances of the finders: the
// number of modules between two places of a line in perspective is the distance
// divided by the geometric mean of the modules at its ends.
func (f *front) dimension() float64 {
	a, b, c := &f.frames[0], &f.frames[1], &f.frames[2]
	across := math.Hypot(b.x-a.x, b.y-a.y) / math.Sqrt(math.Hypot(a.ax, a.ay)*math.Hypot(b.ax, b.ay))
	down := math.Hypot(c.x-a.x, c.y-a.y) / math.Sqrt(math.Hypot(a.bx, a.by)*math.Hypot(c.bx, c.by))
	return (across+down)/2 + 7
}

// versionInfo reads the version beside two of the finders, with up to three wrong
// bits, or returns 0; below 7 a symbol has none.
func (f *front) versionInfo() int {
	for i := 1; i <= 2; i++ {
		r := &f.frames[i]
		x, y := r.at(0, 0)
		core := f.sample(x, y)
		ring := 0.
		for _, d := range [4][2]float64{{2, 0}, {-2, 0}, {0, 2}, {0, -2}} {
			x, y := r.at(d[0], d[1])
			ring += f.sample(x, y) / 4
		}
		middle := (core + ring) / 2
		word := 0
		for j := 2; j >= -3; j-- {
			for k := -5; k >= -7; k-- {
				u, v := float64(k), float64(j)
				if i == 2 {
					u, v = v, u
				}
				x, y := r.at(u, v)
				word <<= 1
				if (f.sample(x, y) < middle) != f.light {
					word |= 1
				}
			}
		}
		for k, known := range decoder.VERSION_DECODE_INFO {
			if bits.OnesCount(uint(word^known)) <= 3 {
				return k + 7
			}
		}
	}
	return 0
}

// suppose lays a symbol of a version through the three finders.
func (f *front) suppose(version int) bool {
	f.dim = 17 + 4*version
	d := float64(f.dim)
	f.ties = f.ties[:0]
	for i, middle := range [3][2]float64{{3.5, 3.5}, {d - 3.5, 3.5}, {3.5, d - 3.5}} {
		for _, p := range [5][3]float64{{0, 0, 2}, {-3, -3, .5}, {3, -3, .5}, {3, 3, .5}, {-3, 3, .5}} {
			x, y := f.frames[i].at(p[0], p[1])
			f.ties = append(f.ties, tie{middle[0] + p[0], middle[1] + p[1], x, y, p[2]})
		}
	}
	var ok bool
	f.h, ok = fitHomography(f.ties, d)
	return ok
}

// timing says how well the two timing patterns alternate where they should be:
// 1 at best, about 0 by chance.
func (f *front) timing() float64 {
	total := 0.
	for axis := range 2 {
		best := -1.
		for _, beside := range [3]float64{6.5, 6.1, 6.9} {
			var last, here float64
			sum, all := 0., 1e-9
			for i := 7; i <= f.dim-8; i++ {
				u, v := float64(i)+.5, beside
				if axis == 1 {
					u, v = v, u
				}
				x, y := f.h.at(u, v)
				next := f.sample(x, y)
				if i >= 9 {
					bend := 2*here - last - next // of module i−1: dark when i−1 is even
					if (i&1 == 1) != f.light {
						bend = -bend
					}
					sum += bend
					all += math.Abs(bend)
				}
				last, here = here, next
			}
			best = max(best, sum/all)
		}
		total += best
	}
	return total / 2
}

// anchor is an alignment pattern: how far it lies from where the perspective
// alone puts it.
type anchor struct {
	dx, dy float64
	score  float64 // of the search; 0 is not found
}

// found is the least correlation with which an alignment pattern counts.
const found = .62

// align looks for every alignment pattern: first those beside the finders, then
// each from its neighbours above and to the left, since a lens or a bent sheet
// moves neighbours alike.
func (f *front) align() {
	version := (f.dim - 17) / 4
	v, err := decoder.Version_GetVersionForNumber(version)
	if err != nil {
		return
	}
	f.centers = v.GetAlignmentPatternCenters()
	n := len(f.centers)
	f.anchors = grow(f.anchors, n*n)
	clear(f.anchors)
	if n == 0 {
		return
	}
	f.walk(2.5)
	// Now that there are ties all over the symbol, the perspective is better known.
	d := float64(f.dim)
	f.ties = f.ties[:0]
	for i, middle := range [3][2]float64{{3.5, 3.5}, {d - 3.5, 3.5}, {3.5, d - 3.5}} {
		f.ties = append(f.ties, tie{middle[0], middle[1], f.frames[i].x, f.frames[i].y, 1})
	}
	for j := range n {
		for i := range n {
			if a := &f.anchors[j*n+i]; a.score > found && !f.corner(i, j) {
				u, v := float64(f.centers[i])+.5, float64(f.centers[j])+.5
				x, y := f.h.at(u, v)
				f.ties = append(f.ties, tie{u, v, x + a.dx, y + a.dy, a.score})
			}
		}
	}
	if len(f.ties) < 4 {
		f.fill()
		return
	}
	if h, ok := fitHomography(f.ties, d); ok {
		old := f.h
		f.h = h
		for j := range n {
			for i := range n {
				a := &f.anchors[j*n+i]
				u, v := float64(f.centers[i])+.5, float64(f.centers[j])+.5
				x0, y0 := old.at(u, v)
				x1, y1 := h.at(u, v)
				a.dx, a.dy = a.dx+x0-x1, a.dy+y0-y1
			}
		}
	}
	f.reject()
	f.fill()
	f.again()
}

// corner says whether a place of the grid is under a finder.
func (f *front) corner(i, j int) bool {
	n := len(f.centers) - 1
	return i == 0 && j == 0 || i == n && j == 0 || i == 0 && j == n
}

// walk searches from the top left to the bottom right.
func (f *front) walk(reach float64) {
	n := len(f.centers)
	d := float64(f.dim)
	for sum := range 2*n - 1 {
		for j := max(0, sum-n+1); j <= min(sum, n-1); j++ {
			i := sum - j
			a := &f.anchors[j*n+i]
			u, v := float64(f.centers[i])+.5, float64(f.centers[j])+.5
			if f.corner(i, j) {
				r, mu, mv := &f.frames[0], 3.5, 3.5
				if i > 0 {
					r, mu = &f.frames[1], d-3.5
				} else if j > 0 {
					r, mv = &f.frames[2], d-3.5
				}
				x0, y0 := f.h.at(mu, mv)
				a.dx, a.dy, a.score = r.x-x0, r.y-y0, 1
				continue
			}
			var dx, dy float64
			near := reach
			switch {
			case i > 0 && j > 0:
				l, t, lt := &f.anchors[j*n+i-1], &f.anchors[(j-1)*n+i], &f.anchors[(j-1)*n+i-1]
				if n > 2 {
					dx, dy = l.dx+t.dx-lt.dx, l.dy+t.dy-lt.dy
					if l.score > found && t.score > found {
						near = reach - 1
					}
				}
			case i > 0:
				p := &f.anchors[j*n+i-1]
				dx, dy = p.dx, p.dy
			default:
				p := &f.anchors[(j-1)*n+i]
				dx, dy = p.dx, p.dy
			}
			if n == 2 {
				near = 4 // one pattern, far from all that is known
			}
			ex, ey, score := f.search(u, v, dx, dy, near)
			if score > found {
				a.dx, a.dy, a.score = ex, ey, score
			} else {
				a.dx, a.dy, a.score = dx, dy, 0
			}
		}
	}
}

// search looks for an alignment pattern within reach modules of its place, which
// lies (dx, dy) pixels beside the perspective, and returns where it is best.
func (f *front) search(u, v, dx, dy, reach float64) (bx, by, best float64) {
	x, y := f.h.at(u, v)
	x1, y1 := f.h.at(u+1, v)
	x2, y2 := f.h.at(u, v+1)
	ax, ay, cx, cy := x1-x, y1-y, x2-x, y2-y
	x, y = x+dx, y+dy
	half := int(reach * 2) // steps of half a module
	side := 2*(half+4) + 1
	f.patch = grow(f.patch, side*side)
	for j := range side {
		for i := range side {
			p, q := float64(i-half-4)/2, float64(j-half-4)/2
			f.patch[j*side+i] = f.sample(x+p*ax+q*cx, y+p*ay+q*cy)
		}
	}
	bi, bj := 0, 0
	best = -2
	for j := range 2*half + 1 {
		for i := range 2*half + 1 {
			s := bull(f.patch[j*side+i:], side, 2, f.light)
			// Of two that fit alike the nearer one.
			far := math.Hypot(float64(i-half), float64(j-half)) * .01
			if s-far > best {
				best, bi, bj = s-far, i, j
			}
		}
	}
	p, q := float64(bi-half)/2, float64(bj-half)/2
	if best < found {
		return 0, 0, best
	}
	for _, step := range [2]float64{.25, .12} {
		var s [3][3]float64
		for j := range 3 {
			for i := range 3 {
				var cell [25]float64
				p, q := p+float64(i-1)*step, q+float64(j-1)*step
				for k := range 25 {
					p, q := p+float64(k%5-2), q+float64(k/5-2)
					cell[k] = f.sample(x+p*ax+q*cx, y+p*ay+q*cy)
				}
				s[j][i] = bull(cell[:], 5, 1, f.light)
			}
		}
		rows := [3]float64{s[0][0] + s[0][1] + s[0][2], s[1][0] + s[1][1] + s[1][2], s[2][0] + s[2][1] + s[2][2]}
		columns := [3]float64{s[0][0] + s[1][0] + s[2][0], s[0][1] + s[1][1] + s[2][1], s[0][2] + s[1][2] + s[2][2]}
		p += step * peak(columns)
		q += step * peak(rows)
		best = max(best, s[1][1])
	}
	return dx + p*ax + q*cx, dy + p*ay + q*cy, best
}

// peak returns where the parabola through three values has its top, −1 to 1.
func peak(s [3]float64) float64 {
	bend := 2*s[1] - s[0] - s[2]
	if bend < 1e-3 { // level, as within the modules of a flat picture, or no top
		switch slope := s[2] - s[0]; {
		case slope > 1e-2:
			return 1
		case slope < -1e-2:
			return -1
		}
		return 0
	}
	return max(-1, min(1, (s[2]-s[0])/(2*bend)))
}

// bull returns the correlation of 5×5 places, step apart in rows of stride, with
// the alignment pattern: a dark ring, a light ring, a dark dot.
func bull(p []float64, stride, step int, light bool) float64 {
	sum, squares, rings := 0., 0., 0.
	for j := range 5 {
		for i := range 5 {
			v := p[j*step*stride+i*step]
			sum += v
			squares += v * v
			if i >= 1 && i <= 3 && j >= 1 && j <= 3 && !(i == 2 && j == 2) {
				rings += v
			}
		}
	}
	variance := squares - sum*sum/25
	if variance < 25*16 {
		return 0
	}
	// The light ring has 8 of 25 places: cov = rings − 8/25·sum; the pattern's own
	// variance is 8·17/25.
	c := (rings - sum*8/25) / math.Sqrt(variance*8*17/25)
	if light {
		return -c
	}
	return c
}

// reject drops the patterns that lie elsewhere than their neighbours say.
func (f *front) reject() {
	n := len(f.centers)
	module := f.frames[0].module()
	for j := range n {
		for i := range n {
			a := &f.anchors[j*n+i]
			if a.score == 0 || f.corner(i, j) {
				continue
			}
			sx, sy, k := 0., 0., 0.
			for _, d := range [4][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}} {
				p, q := i+d[0], j+d[1]
				if p < 0 || q < 0 || p >= n || q >= n || f.anchors[q*n+p].score == 0 {
					continue
				}
				sx, sy, k = sx+f.anchors[q*n+p].dx, sy+f.anchors[q*n+p].dy, k+1
			}
			if k >= 2 && math.Hypot(sx/k-a.dx, sy/k-a.dy) > .8*module {
				a.score = 0
			}
		}
	}
}

// fill gives the patterns that were not found the mean of their neighbours.
func (f *front) fill() {
	n := len(f.centers)
	for range n {
		missing := false
		for j := range n {
			for i := range n {
				a := &f.anchors[j*n+i]
				if a.score != 0 {
					continue
				}
				sx, sy, k := 0., 0., 0.
				for _, d := range [4][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}} {
					p, q := i+d[0], j+d[1]
					if p < 0 || q < 0 || p >= n || q >= n || f.anchors[q*n+p].score == 0 {
						continue
					}
					sx, sy, k = sx+f.anchors[q*n+p].dx, sy+f.anchors[q*n+p].dy, k+1
				}
				if k == 0 {
					missing = true
					continue
				}
				a.dx, a.dy, a.score = sx/k, sy/k, 1e-9
			}
		}
		if !missing {
			return
		}
	}
}

// again searches, near where they now must be, for the patterns that were filled
// in.
func (f *front) again() {
	n := len(f.centers)
	for j := range n {
		for i := range n {
			a := &f.anchors[j*n+i]
			if a.score > found || f.corner(i, j) {
				continue
			}
			x, y, score := f.search(float64(f.centers[i])+.5, float64(f.centers[j])+.5, a.dx, a.dy, 1)
			if score > found {
				a.dx, a.dy, a.score = x, y, score
			}
		}
	}
}

// alternating is the least timing with which a symbol is looked at.
const alternating = .3

// versions returns what the symbol's version may be, the likeliest first and 0
// for nothing: what it says itself, the last one, and the nearest to its size.
// Among several symbols, finders whose symbol says another size than theirs do
// not belong together: strict.
func (f *front) versions(last int, strict bool) [3]int {
	size := f.dimension()
	var all [3]int
	n := 0
	add := func(version int, within float64) {
		if version < 1 || version > 40 || n == len(all) || math.Abs(float64(17+4*version)-size) > within {
			return
		}
		for _, v := range all[:n] {
			if v == version {
				return
			}
		}
		all[n] = version
		n++
	}
	if said := f.versionInfo(); said > 0 {
		add(said, 4+.1*size)
		if strict {
			return all
		}
	}
	add(last, 4+.04*size)
	nearest := int(math.Round((size - 17) / 4))
	add(nearest, 4)
	if float64(17+4*nearest) < size {
		add(nearest+1, 6)
	} else {
		add(nearest-1, 6)
	}
	return all
}

// place returns where a place of the symbol is in the picture, by the perspective
// and by the alignment patterns around it.
func (f *front) place(u, v float64) (x, y float64) {
	x, y = f.h.at(u, v)
	n := len(f.centers)
	if n == 0 {
		return x, y
	}
	i, s := f.between(u)
	j, t := f.between(v)
	a, b, c, d := &f.anchors[j*n+i], &f.anchors[j*n+i+1], &f.anchors[(j+1)*n+i], &f.anchors[(j+1)*n+i+1]
	x += (1-t)*(a.dx+s*(b.dx-a.dx)) + t*(c.dx+s*(d.dx-c.dx))
	y += (1-t)*(a.dy+s*(b.dy-a.dy)) + t*(c.dy+s*(d.dy-c.dy))
	return x, y
}
