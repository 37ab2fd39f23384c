package scan

import (
	"cmp"
	"math"
	"slices"
)

// finder is a place that looks like a finder pattern, the square of 7 modules
// in three corners of a symbol.
type finder struct {
	x, y, module float64
	hits         int
	light        bool // a light pattern on dark ground: the symbol is inverted
}

// maxFinders bounds the places that are kept of one picture.
const maxFinders = 400

// findFinders looks for runs of 1:1:3:1:1 in every step-th row, crosses them
// vertically and horizontally, and joins what belongs to one place. The best
// supported places come first.
func (f *front) findFinders(step int) {
	f.finders = f.finders[:0]
	for y := step / 2; y < f.l.H; y += step {
		f.row(y)
	}
	slices.SortStableFunc(f.finders, func(a, b finder) int { return cmp.Compare(b.hits, a.hits) })
}

// row looks at one row.
func (f *front) row(y int) {
	l := f.l
	pix := l.Pix[y*l.Stride : y*l.Stride+l.W]
	limits := f.t.at[y/block*f.t.w:][:f.t.w]
	runs := f.runs[:0]
	dark := pix[0] < limits[0]
	firstDark := dark
	for bx, limit := range limits {
		x0 := bx * block
		for i, p := range pix[x0:min(x0+block, len(pix))] {
			if (p < limit) != dark {
				dark = !dark
				runs = append(runs, int32(x0+i))
			}
		}
	}
	runs = append(runs, int32(l.W))
	f.runs = runs
	// runs[i] is where run i ends; a pattern is five runs, the first of them not at
	// the edge of the picture.
	for i := 5; i < len(runs); i++ {
		total := runs[i] - runs[i-5]
		middle := runs[i-2] - runs[i-3]
		if total < 10 || middle*14 < total*4 || middle*14 > total*9 {
			continue
		}
		if !oneOneThree(runs[i-4]-runs[i-5], runs[i-3]-runs[i-4], middle, runs[i-1]-runs[i-2], runs[i]-runs[i-1], total) {
			continue
		}
		light := (i&1 == 0) != firstDark // the pattern's first run, i-4, is light
		f.cross(float64(runs[i-2]+runs[i-3])/2, y, float64(total)/7, light)
		if len(f.finders) >= maxFinders {
			return
		}
	}
}

// oneOneThree says whether five runs are near 1:1:3:1:1.
func oneOneThree(a, b, c, d, e, total int32) bool {
	// In units of a seventh of the total: 0.35 to 1.9 for a narrow run, 1 to 3 for
	// two side by side, at least 1.5 for the core.
	for _, r := range [4]int32{a, b, d, e} {
		if r*20 < total || r*70 > total*19 {
			return false
		}
	}
	return (a+b)*7 > total && (a+b)*7 < 3*total && (d+e)*7 > total && (d+e)*7 < 3*total && c*14 > 3*total
}

// cross checks a row's hit with the column through it and the row through the
// column's middle, and keeps the place.
func (f *front) cross(x float64, y int, module float64, light bool) {
	for i := range f.finders {
		p := &f.finders[i]
		if p.light == light && p.hits > 1 && math.Abs(p.x-x) < p.module && math.Abs(p.y-float64(y)) < 1.5*p.module && module < 1.4*p.module && p.module < 1.4*module {
			p.hits++
			return
		}
	}
	cy, tall, ok := f.line(int(x), y, 0, 1, module, light)
	if !ok {
		return
	}
	cx, wide, ok := f.line(int(x), int(cy), 1, 0, module, light)
	if !ok || wide > 2*tall || tall > 2*wide {
		return
	}
	module = (tall + wide) / 2
	for i := range f.finders {
		p := &f.finders[i]
		if p.light == light && math.Abs(p.x-cx) < p.module && math.Abs(p.y-cy) < p.module && module < 1.5*p.module && p.module < 1.5*module {
			n := float64(p.hits)
			p.x, p.y, p.module = (p.x*n+cx)/(n+1), (p.y*n+cy)/(n+1), (p.module*n+module)/(n+1)
			p.hits++
			return
		}
	}
	if !f.ringed(cx, cy, module, light) {
		return
	}
	f.finders = append(f.finders, finder{x: cx, y: cy, module: module, hits: 1, light: light})
}

// line follows the pattern's five runs from (x, y) both ways along (dx, dy), one
// of which is 0, and returns the middle and the module.
func (f *front) line(x, y, dx, dy int, module float64, light bool) (middle, size float64, ok bool) {
	most := int(4*module) + 2
	var runs [5]int32
	walk := func(sign int) bool {
		px, py := x, y
		if sign > 0 {
			px, py = px+dx, py+dy
		}
		for stage := 0; stage < 3; stage++ {
			n := int32(0)
			wantDark := (stage != 1) != light
			for px >= 0 && py >= 0 && px < f.l.W && py < f.l.H && f.dark(px, py) == wantDark {
				if n++; int(n) > most {
					return false
				}
				px, py = px+sign*dx, py+sign*dy
			}
			if n == 0 && stage > 0 {
				return false
			}
			runs[2+sign*stage] += n
		}
		return true
	}
	if !walk(-1) {
		return 0, 0, false
	}
	// The middle lies left + core − half the core: count what lay before (x, y).
	before := runs[2]
	if !walk(1) {
		return 0, 0, false
	}
	total := runs[0] + runs[1] + runs[2] + runs[3] + runs[4]
	if total < 8 || !oneOneThree(runs[0], runs[1], runs[2], runs[3], runs[4], total) {
		return 0, 0, false
	}
	start := float64(x)*float64(dx) + float64(y)*float64(dy) + 1 - float64(before) // where the core starts
	return start + float64(runs[2])/2, float64(total) / 7, true
}

// eighths are eight directions, none of them along a side of an upright square.
var eighths = func() (d [8][2]float64) {
	for i := range d {
		d[i][1], d[i][0] = math.Sincos((float64(i) + .25) * math.Pi / 4)
	}
	return d
}()

// ringed says whether a core, a light ring and a dark ring lie about a place in
// nearly every direction, as they do however the square is turned. Most of what
// has the runs of a finder by chance does not.
func (f *front) ringed(cx, cy, module float64, light bool) bool {
	good, least, most := 0, math.Inf(1), 0.
	for _, d := range eighths {
		var ends [2]float64
		stage, r := 0, 0.
		for ; stage < 2 && r < 5*module; r += .7 {
			x, y := cx+r*d[0], cy+r*d[1]
			if x < 0 || y < 0 || x >= float64(f.l.W) || y >= float64(f.l.H) {
				break
			}
			if (f.dark(int(x), int(y)) != light) == (stage == 1) {
				ends[stage] = r
				stage++
			}
		}
		if stage == 2 && ends[0] > .7*module && ends[0] < 2.6*module && ends[1]-ends[0] > .35*module && ends[1]-ends[0] < 2*module {
			good++
			least, most = min(least, ends[0]), max(most, ends[0])
		}
	}
	return good >= 7 && most < 2.2*least
}

// dark says whether a pixel is darker than its surroundings.
func (f *front) dark(x, y int) bool {
	return f.l.Pix[y*f.l.Stride+x] < f.t.at[y/block*f.t.w+x/block]
}

// triple is three finders as they stand in a symbol: a in the corner, b along the
// top, c along the left side.
type triple struct {
	a, b, c finder
	cost    float64 // how unlike a symbol's finders they are
	size    float64 // about how many modules the symbol would have a side
}

// triples ranks what could be the three finders of a symbol among the first n
// places, the likeliest first.
func (f *front) findTriples(n int) {
	f.triples = f.triples[:0]
	n = min(n, len(f.finders))
	for i := range n {
		for j := i + 1; j < n; j++ {
			for k := j + 1; k < n; k++ {
				if t, ok := asTriple(f.finders[i], f.finders[j], f.finders[k]); ok {
					f.triples = append(f.triples, t)
				}
			}
		}
	}
	slices.SortStableFunc(f.triples, func(a, b triple) int { return cmp.Compare(a.cost, b.cost) })
}

func asTriple(p, q, r finder) (triple, bool) {
	if p.light != q.light || q.light != r.light {
		return triple{}, false
	}
	small, large := min(p.module, q.module, r.module), max(p.module, q.module, r.module)
	if large > 2*small {
		return triple{}, false
	}
	// The corner lies opposite the longest side.
	pq, qr, rp := apart(p, q), apart(q, r), apart(r, p)
	t := triple{a: p, b: q, c: r}
	switch max(pq, qr, rp) {
	case pq:
		t = triple{a: r, b: p, c: q}
	case rp:
		t = triple{a: q, b: r, c: p}
	}
	ux, uy, vx, vy := t.b.x-t.a.x, t.b.y-t.a.y, t.c.x-t.a.x, t.c.y-t.a.y
	turn := ux*vy - uy*vx
	if turn < 0 {
		t.b, t.c, ux, uy, vx, vy, turn = t.c, t.b, vx, vy, ux, uy, -turn
	}
	u, v := math.Hypot(ux, uy), math.Hypot(vx, vy)
	if u == 0 || v == 0 || u > 2*v || v > 2*u || turn < .6*u*v {
		return triple{}, false
	}
	size := (p.module + q.module + r.module) / 3
	// A finder's runs look longer by up to √2 when the symbol is turned.
	dimension := (u+v)/2/size + 7
	if dimension < 17 || dimension > 280 {
		return triple{}, false
	}
	cos := math.Abs(ux*vx+uy*vy) / (u * v)
	t.size = dimension
	hits := float64(min(p.hits, q.hits, r.hits))
	t.cost = (large/small - 1) + cos + math.Abs(math.Log(u/v)) + 1/hits
	return t, true
}

func apart(p, q finder) float64 { return math.Hypot(p.x-q.x, p.y-q.y) }
