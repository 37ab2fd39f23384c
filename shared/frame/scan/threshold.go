package scan

// block is the side of the squares, in pixels, for each of which there is one
// threshold.
const block = 8

// thresholds divides a picture into dark and light: a pixel is dark when it is
// darker than the mean of its surroundings. Means are taken over whole blocks,
// by an integral image of the blocks, so that another size of the surroundings
// costs little once the blocks are summed up.
type thresholds struct {
	w, h     int      // blocks
	integral []uint32 // (w+1)×(h+1): the sum of the blocks' means above and left
	at       []byte   // the threshold of a block
}

// measure sums up the blocks of l.
func (t *thresholds) measure(l Luma) {
	t.w, t.h = (l.W+block-1)/block, (l.H+block-1)/block
	t.integral = grow(t.integral, (t.w+1)*(t.h+1))
	t.at = grow(t.at, t.w*t.h)
	clear(t.integral[:t.w+1])
	for by := range t.h {
		above := t.integral[by*(t.w+1) : (by+1)*(t.w+1)]
		here := t.integral[(by+1)*(t.w+1) : (by+2)*(t.w+1)]
		row := uint32(0)
		here[0] = 0
		// Every second row of a block says enough about its mean.
		y0, y1 := by*block, min(l.H, by*block+block)
		for bx := range t.w {
			x0, x1 := bx*block, min(l.W, bx*block+block)
			sum, n := uint32(0), uint32(0)
			if x1-x0 == block {
				for y := y0; y < y1; y += 2 {
					p := l.Pix[y*l.Stride+x0 : y*l.Stride+x0+block : y*l.Stride+x0+block]
					sum += uint32(p[0]) + uint32(p[1]) + uint32(p[2]) + uint32(p[3]) + uint32(p[4]) + uint32(p[5]) + uint32(p[6]) + uint32(p[7])
					n += block
				}
			} else {
				for y := y0; y < y1; y += 2 {
					for _, p := range l.Pix[y*l.Stride+x0 : y*l.Stride+x1] {
						sum += uint32(p)
						n++
					}
				}
			}
			row += sum * 16 / n // in sixteenths
			here[bx+1] = above[bx+1] + row
		}
	}
}

// set makes the thresholds from surroundings of radius blocks about each block.
func (t *thresholds) set(radius int) {
	for by := range t.h {
		y0, y1 := max(0, by-radius), min(t.h, by+radius+1)
		above, below := t.integral[y0*(t.w+1):(y0+1)*(t.w+1)], t.integral[y1*(t.w+1):(y1+1)*(t.w+1)]
		for bx := range t.w {
			x0, x1 := max(0, bx-radius), min(t.w, bx+radius+1)
			sum := below[x1] - below[x0] - above[x1] + above[x0]
			t.at[by*t.w+bx] = byte(sum / uint32(16*(x1-x0)*(y1-y0)))
		}
	}
}

// grow returns s with n elements, whose values are of no meaning.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
