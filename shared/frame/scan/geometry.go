package scan

import "math"

// homography maps the symbol's plane (in modules, from its top left corner) to
// the picture (in pixels): a perspective, row major, the last entry 1.
type homography [9]float64

func (h *homography) at(u, v float64) (x, y float64) {
	w := 1 / (h[6]*u + h[7]*v + h[8])
	return (h[0]*u + h[1]*v + h[2]) * w, (h[3]*u + h[4]*v + h[5]) * w
}

// tie is a place in the plane and where it was seen.
type tie struct{ u, v, x, y, weight float64 }

// fitHomography returns the perspective that the ties lie on, by weighted least
// squares of the linear equations; size is the symbol's side in modules. It needs
// four ties of which no three are in line.
func fitHomography(ties []tie, size float64) (h homography, ok bool) {
	// Normal equations over coordinates of about ±1.
	var m [8 * 9]float64
	cx, cy, n := 0., 0., 0.
	for _, t := range ties {
		cx, cy, n = cx+t.x*t.weight, cy+t.y*t.weight, n+t.weight
	}
	if n == 0 {
		return h, false
	}
	cx, cy = cx/n, cy/n
	spread := 0.
	for _, t := range ties {
		spread += t.weight * (math.Abs(t.x-cx) + math.Abs(t.y-cy))
	}
	spread /= n
	if spread == 0 {
		return h, false
	}
	half := size / 2
	for _, t := range ties {
		u, v, x, y := t.u/half-1, t.v/half-1, (t.x-cx)/spread, (t.y-cy)/spread
		normal(m[:], 8, &[9]float64{u, v, 1, 0, 0, 0, -u * x, -v * x, x}, t.weight)
		normal(m[:], 8, &[9]float64{0, 0, 0, u, v, 1, -u * y, -v * y, y}, t.weight)
	}
	var s [8]float64
	if !solve(m[:], s[:]) {
		return h, false
	}
	// Back to modules and pixels: first u' = u/half − 1, then x = x'·spread + cx.
	a := [9]float64{
		s[0] / half, s[1] / half, s[2] - s[0] - s[1],
		s[3] / half, s[4] / half, s[5] - s[3] - s[4],
		s[6] / half, s[7] / half, 1 - s[6] - s[7],
	}
	for i := range 3 {
		h[i] = a[i]*spread + a[6+i]*cx
		h[3+i] = a[3+i]*spread + a[6+i]*cy
		h[6+i] = a[6+i]
	}
	return h, true
}

// normal adds one equation, n coefficients and its right side, to the normal
// equations m, which are n rows of n+1.
func normal(m []float64, n int, e *[9]float64, weight float64) {
	for i := range n {
		if e[i] == 0 {
			continue
		}
		w := weight * e[i]
		row := m[i*(n+1) : (i+1)*(n+1)]
		for j := range row {
			row[j] += w * e[j]
		}
	}
}

// solve solves the rows m (n × n+1) into s by elimination with pivots; m is used
// up.
func solve(m, s []float64) bool {
	n := len(s)
	for i := range n {
		pivot := i
		for r := i + 1; r < n; r++ {
			if math.Abs(m[r*(n+1)+i]) > math.Abs(m[pivot*(n+1)+i]) {
				pivot = r
			}
		}
		if math.Abs(m[pivot*(n+1)+i]) < 1e-12 {
			return false
		}
		if pivot != i {
			for j := range n + 1 {
				m[i*(n+1)+j], m[pivot*(n+1)+j] = m[pivot*(n+1)+j], m[i*(n+1)+j]
			}
		}
		for r := i + 1; r < n; r++ {
			k := m[r*(n+1)+i] / m[i*(n+1)+i]
			if k == 0 {
				continue
			}
			for j := i; j <= n; j++ {
				m[r*(n+1)+j] -= k * m[i*(n+1)+j]
			}
		}
	}
	for i := n - 1; i >= 0; i-- {
		v := m[i*(n+1)+n]
		for j := i + 1; j < n; j++ {
			v -= m[i*(n+1)+j] * s[j]
		}
		s[i] = v / m[i*(n+1)+i]
	}
	return true
}

// sample returns the grey at a place, between the four pixels around it; outside
// the picture it is that of the nearest pixel.
func (f *front) sample(x, y float64) float64 {
	x, y = x-.5, y-.5
	if !(x >= 0 && y >= 0 && x < float64(f.l.W-1) && y < float64(f.l.H-1)) {
		x, y = max(0, min(float64(f.l.W-1), x)), max(0, min(float64(f.l.H-1), y))
		if x != x || y != y { // not a number
			return 0
		}
		return float64(f.l.Pix[int(y)*f.l.Stride+int(x)])
	}
	ix, iy := int(x), int(y)
	fx, fy := x-float64(ix), y-float64(iy)
	p := f.l.Pix[iy*f.l.Stride+ix:]
	q := f.l.Pix[(iy+1)*f.l.Stride+ix:]
	p, q = p[:2], q[:2]
	top := float64(p[0]) + fx*(float64(p[1])-float64(p[0]))
	bottom := float64(q[0]) + fx*(float64(q[1])-float64(q[0]))
	return top + fy*(bottom-top)
}

// frame is a finder's own coordinates: its middle, and the steps of one module
// along the symbol's rows (a) and columns (b).
type frame struct {
	x, y           float64
	ax, ay, bx, by float64
}

func (r *frame) at(u, v float64) (x, y float64) {
	return r.x + u*r.ax + v*r.bx, r.y + u*r.ay + v*r.by
}

// module returns the geometric mean of a module's sides.
func (r *frame) module() float64 {
	return math.Sqrt(math.Abs(r.ax*r.by - r.ay*r.bx))
}

// fitFrame measures the edges of a finder at (x, y): from guessed steps it walks
// rays along both axes, finds where the grey crosses the middle between dark and
// light, and fits the lines on which the coordinate is ±1.5, ±2.5 and ±3.5.
func (f *front) fitFrame(r frame) (frame, bool) {
	for range 2 {
		var along [2][3]float64 // the dual vectors: coordinate = d·(x, y, 1), from the old middle
		for axis := range 2 {
			var m [3 * 4]float64
			edges := 0
			for s := -3; s <= 3; s++ {
				for sign := -1.; sign <= 1; sign += 2 {
					edges += f.ray(&r, axis, float64(s)*.4, sign, m[:])
				}
			}
			if edges < 20 || !solve(m[:], along[axis][:]) {
				return r, false
			}
		}
		det := along[0][0]*along[1][1] - along[0][1]*along[1][0]
		if math.Abs(det) < 1e-9 {
			return r, false
		}
		p, q := along[0], along[1]
		n := frame{ax: q[1] / det, ay: -q[0] / det, bx: -p[1] / det, by: p[0] / det}
		n.x, n.y = r.x-p[2]*n.ax-q[2]*n.bx, r.y-p[2]*n.ay-q[2]*n.by
		if ratio := n.module() / r.module(); !(ratio > .5 && ratio < 2) || math.Hypot(n.x-r.x, n.y-r.y) > 2*r.module() {
			return r, false
		}
		r = n
	}
	return r, true
}

// ray walks from the middle outward, s modules beside it, and adds the equations
// of the edges that it meets to m; it returns their number.
func (f *front) ray(r *frame, axis int, s, sign float64, m []float64) int {
	dx, dy, ox, oy := r.ax, r.ay, r.bx*s, r.by*s
	if axis == 1 {
		dx, dy, ox, oy = r.bx, r.by, r.ax*s, r.ay*s
	}
	const perModule = 4
	var grey [5 * perModule]float64
	lo, hi := 255., 0.
	n := len(grey)
	for i := range grey {
		t := sign * float64(i) / perModule
		x, y := r.x+ox+dx*t, r.y+oy+dy*t
		if x < 0 || y < 0 || x >= float64(f.l.W) || y >= float64(f.l.H) {
			n = i
			break
		}
		grey[i] = f.sample(x, y)
		if i < 3*perModule+2 {
			lo, hi = min(lo, grey[i]), max(hi, grey[i])
		}
	}
	if n == 0 || hi-lo < 16 {
		return 0
	}
	middle := (lo + hi) / 2
	coordinates := [3]float64{1.5, 2.5, 3.5}
	found := 0
	for i := 1; i < n && found < 3; i++ {
		if (grey[i-1] < middle) == (grey[i] < middle) {
			continue
		}
		t := (float64(i-1) + (grey[i-1]-middle)/(grey[i-1]-grey[i])) / perModule
		if math.Abs(t-coordinates[found]) > .9 {
			break
		}
		x, y := ox+dx*sign*t, oy+dy*sign*t
		normal(m, 3, &[9]float64{x, y, 1, sign * coordinates[found]}, 1)
		found++
	}
	return found
}
