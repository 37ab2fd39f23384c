package scan

import "math"

// modules is the grid of grey values of one symbol and what is made of them.
type modules struct {
	dim      int
	grey     []float32
	integral []float64 // (dim+1)², sums
	squares  []float64 // (dim+1)², sums of squares
	level    []float32 // grey, less the mean of the surroundings, in units of their spread
	soft     []float32 // below 0 is dark; the farther from 0, the surer
	known    [41][]int8
}

// surroundings are the radiuses, in modules, of the squares whose mean divides
// dark from light: small ones follow the light, in large ones it matters less how
// many of the modules happen to be dark, which decides between two codes that were
// exposed half and half. The third time nothing is learnt.
var surroundings = [...]int{6, 16, 6}

// read samples the grid at the middle of every module.
func (f *front) read() {
	m := &f.modules
	dim := f.dim
	m.dim = dim
	m.grey = grow(m.grey, dim*dim)
	n := len(f.centers)
	module := math.Sqrt(f.frames[0].module() * max(f.frames[1].module(), f.frames[2].module()))
	spread := 0.
	if module >= 4.5 {
		spread = .22 * module
	}
	var rx, ry [8]float64 // the anchors' offsets in this row
	for j := range dim {
		v := float64(j) + .5
		if n > 0 {
			b, t := f.between(v)
			for i := range n {
				p, q := &f.anchors[b*n+i], &f.anchors[(b+1)*n+i]
				rx[i], ry[i] = p.dx+t*(q.dx-p.dx), p.dy+t*(q.dy-p.dy)
			}
		}
		row := m.grey[j*dim : (j+1)*dim]
		h := &f.h
		nx, ny, nw := h[1]*v+h[2], h[4]*v+h[5], h[7]*v+h[8]
		cell, next := 0, 0.
		var from, scale float64
		if n > 1 {
			from, scale = float64(f.centers[0])+.5, 1/float64(f.centers[1]-f.centers[0])
			next = float64(f.centers[1]) + .5
		}
		for i := range row {
			u := float64(i) + .5
			w := 1 / (h[6]*u + nw)
			x, y := (h[0]*u+nx)*w, (h[3]*u+ny)*w
			if n > 1 {
				for u > next && cell < n-2 {
					cell++
					from, next = float64(f.centers[cell])+.5, float64(f.centers[cell+1])+.5
					scale = 1 / (next - from)
				}
				t := (u - from) * scale
				x += rx[cell] + t*(rx[cell+1]-rx[cell])
				y += ry[cell] + t*(ry[cell+1]-ry[cell])
			}
			g := f.sample(x, y)
			if spread > 0 {
				g = (2*g + f.sample(x-spread, y) + f.sample(x+spread, y) + f.sample(x, y-spread) + f.sample(x, y+spread)) / 6
			}
			row[i] = float32(g)
		}
	}
}

// between returns the row of anchors above a place and how far it is from there to
// the next one; beyond the grid it goes on in line.
func (f *front) between(v float64) (int, float64) {
	b := 0
	for b < len(f.centers)-2 && v > float64(f.centers[b+1])+.5 {
		b++
	}
	from, to := float64(f.centers[b])+.5, float64(f.centers[b+1])+.5
	return b, (v - from) / (to - from)
}

// even takes the uneven light out of the grid.
func (m *modules) even(radius int, light bool) {
	dim, stride := m.dim, m.dim+1
	m.integral, m.squares = grow(m.integral, stride*stride), grow(m.squares, stride*stride)
	m.level = grow(m.level, dim*dim)
	clear(m.integral[:stride])
	clear(m.squares[:stride])
	for j := range dim {
		sum, square := 0., 0.
		m.integral[(j+1)*stride], m.squares[(j+1)*stride] = 0, 0
		for i, g := range m.grey[j*dim : (j+1)*dim] {
			sum += float64(g)
			square += float64(g) * float64(g)
			m.integral[(j+1)*stride+i+1] = m.integral[j*stride+i+1] + sum
			m.squares[(j+1)*stride+i+1] = m.squares[j*stride+i+1] + square
		}
	}
	sign := float32(1)
	if light {
		sign = -1
	}
	for j := range dim {
		y0, y1 := max(0, j-radius)*stride, min(dim, j+radius+1)*stride
		rows := float64(y1-y0) / float64(stride)
		for i := range dim {
			x0, x1 := max(0, i-radius), min(dim, i+radius+1)
			n := 1 / (rows * float64(x1-x0))
			mean := (m.integral[y1+x1] - m.integral[y1+x0] - m.integral[y0+x1] + m.integral[y0+x0]) * n
			square := (m.squares[y1+x1] - m.squares[y1+x0] - m.squares[y0+x1] + m.squares[y0+x0]) * n
			s := math.Sqrt(max(36, square-mean*mean))
			m.level[j*dim+i] = sign * float32((float64(m.grey[j*dim+i])-mean)/s)
		}
	}
}

// learn finds, from the modules that every symbol of this version has alike, how a
// module's brightness follows from its own level and its eight neighbours': what
// blur and motion mixed into it is taken out again. It is a linear equaliser by
// least squares, pulled a little towards leaving things as they are.
func (m *modules) learn() {
	dim := m.dim
	known := m.pattern((dim - 17) / 4)
	const n = 10
	var e [n * (n + 1)]float64
	var x [n + 1]float32
	x[9] = 1
	count := 0
	for j := range dim {
		for i := range dim {
			k := known[j*dim+i]
			if k == 0 {
				continue
			}
			m.around(i, j, &x)
			x[10] = float32(k)
			for a := range n {
				row := e[a*(n+1) : (a+1)*(n+1)]
				xa := x[a]
				for b := a; b <= n; b++ {
					row[b] += float64(xa * x[b])
				}
			}
			count++
		}
	}
	for a := range n {
		for b := range a {
			e[a*(n+1)+b] = e[b*(n+1)+a]
		}
		pull := .02 * float64(count)
		e[a*(n+1)+a] += pull
		if a == 4 {
			e[a*(n+1)+n] += pull
		}
	}
	var w [n]float64
	if !solve(e[:], w[:]) {
		w = [n]float64{4: 1}
	}
	m.equalise(&w)
}

// around collects the level of a module and its neighbours; the quiet zone is
// light.
func (m *modules) around(i, j int, x *[11]float32) {
	dim := m.dim
	if i > 0 && j > 0 && i < dim-1 && j < dim-1 {
		at := (j-1)*dim + i - 1
		a, b, c := m.level[at:at+3], m.level[at+dim:at+dim+3], m.level[at+2*dim:at+2*dim+3]
		x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8] = a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2]
		return
	}
	for q := range 3 {
		for p := range 3 {
			u, v := i+p-1, j+q-1
			if u < 0 || v < 0 || u >= dim || v >= dim {
				x[q*3+p] = 1
			} else {
				x[q*3+p] = m.level[v*dim+u]
			}
		}
	}
}

// equalise applies what was learnt.
func (m *modules) equalise(w *[10]float64) {
	dim := m.dim
	m.soft = grow(m.soft, dim*dim)
	var k [10]float32
	for i := range k {
		k[i] = float32(w[i])
	}
	var x [11]float32
	for j := range dim {
		for i := range dim {
			m.around(i, j, &x)
			m.soft[j*dim+i] = x[0]*k[0] + x[1]*k[1] + x[2]*k[2] + x[3]*k[3] + x[4]*k[4] + x[5]*k[5] + x[6]*k[6] + x[7]*k[7] + x[8]*k[8] + k[9]
		}
	}
}
