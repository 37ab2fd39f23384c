package scan

import (
	"cmp"
	"slices"

	"github.com/makiuchi-d/gozxing/qrcode/decoder"
)

// layout is where the data of a version are: the codewords' modules in the order
// of the symbol, eight for each.
type layout struct {
	order []int32
	words int
}

// blindness is the least number of check bytes of a block that are left to errors
// and to doubt when its least reliable codewords are taken for erased.
const blindness = 6

// repairer mends a grid of modules that gozxing's decoder could not: codewords
// whose modules are hardly dark or light, or that lie beyond a tear, are taken for
// erased, which Reed–Solomon mends twice as many of as of errors.
type repairer struct {
	layouts [41]layout
	words   []byte
	trust   []float32
	order   []int
	block   []byte
	where   []int // the words of the block
	fixed   []byte
}

// formatPlaces returns the modules (x, y) of both copies of the format, the first
// bit first.
func formatPlaces(dim int) (p [2][15][2]int) {
	n := 0
	for i := range 9 {
		if i != 6 {
			p[0][n] = [2]int{i, 8}
			n++
		}
	}
	for j := 7; j >= 0; j-- {
		if j != 6 {
			p[0][n] = [2]int{8, j}
			n++
		}
	}
	for i := range 7 {
		p[1][i] = [2]int{8, dim - 1 - i}
	}
	for i := range 8 {
		p[1][7+i] = [2]int{dim - 8 + i, 8}
	}
	return p
}

// formatWord returns the 15 bits for a level and a mask (ISO/IEC 18004, 7.9.1).
func formatWord(data int) int {
	rest := data << 10
	for b := 14; b >= 10; b-- {
		if rest>>b&1 == 1 {
			rest ^= 0x537 << (b - 10)
		}
	}
	return (data<<10 | rest) ^ 0x5412
}

// formats returns the likeliest formats by both copies together and by each.
func (m *modules) formats() [3]int {
	places := formatPlaces(m.dim)
	var best [3]int
	var most [3]float32
	for data := range 32 {
		word := formatWord(data)
		var sum [3]float32
		for c := range 2 {
			for b, p := range places[c] {
				s := max(-1, min(1, m.soft[p[1]*m.dim+p[0]]))
				if word>>(14-b)&1 == 1 {
					s = -s
				}
				sum[1+c] += s
			}
		}
		sum[0] = sum[1] + sum[2]
		for i := range sum {
			if data == 0 || sum[i] > most[i] {
				best[i], most[i] = data, sum[i]
			}
		}
	}
	return best
}

func masked(mask, i, j int) bool {
	switch mask {
	case 0:
		return (i+j)&1 == 0
	case 1:
		return i&1 == 0
	case 2:
		return j%3 == 0
	case 3:
		return (i+j)%3 == 0
	case 4:
		return (i/2+j/3)&1 == 0
	case 5:
		return i*j%6 == 0
	case 6:
		return i*j%6 < 3
	}
	return (i+j+i*j%3)&1 == 0
}

func (p *repairer) layout(m *modules, v *decoder.Version) *layout {
	l := &p.layouts[v.GetVersionNumber()]
	if l.order != nil {
		return l
	}
	known := m.pattern(v.GetVersionNumber())
	format := map[int]bool{}
	for _, copies := range formatPlaces(m.dim) {
		for _, q := range copies {
			format[q[1]*m.dim+q[0]] = true
		}
	}
	up := true
	for j := m.dim - 1; j > 0; j -= 2 {
		if j == 6 {
			j--
		}
		for count := range m.dim {
			i := count
			if up {
				i = m.dim - 1 - count
			}
			for c := range 2 {
				if at := i*m.dim + j - c; known[at] == 0 && !format[at] {
					l.order = append(l.order, int32(at))
				}
			}
		}
		up = !up
	}
	l.words = v.GetTotalCodewords()
	return l
}

// repair mends m.soft and says whether it did. With torn it also supposes that
// the first or the last rows belong to another code.
func (p *repairer) repair(m *modules, torn bool) bool {
	v, err := decoder.Version_GetVersionForNumber((m.dim - 17) / 4)
	if err != nil {
		return false
	}
	l := p.layout(m, v)
	if len(l.order) < l.words*8 {
		return false
	}
	formats := m.formats()
	suppositions := 1
	if torn {
		suppositions = 3
	}
	for s := range suppositions {
		p.judge(m, l, s)
		for i, format := range formats {
			if slices.Contains(formats[:i], format) || i > 0 && s == 0 {
				continue
			}
			if p.mend(m, l, v, format) {
				return true
			}
		}
	}
	return false
}

// judge sets how far each codeword is to be trusted: by its least sure module, or
// (1, 2) by how far it is from the first or the last row.
func (p *repairer) judge(m *modules, l *layout, supposition int) {
	p.trust = grow(p.trust, l.words)
	for w := range l.words {
		least := float32(1e9)
		for _, at := range l.order[w*8 : w*8+8] {
			var t float32
			switch supposition {
			case 0:
				if t = m.soft[at]; t < 0 {
					t = -t
				}
				if g := m.grey[at]; g > 252 || g < 1 {
					t *= .1 // blown out: no picture of the module
				}
			case 1:
				t = float32(int(at) / m.dim)
			case 2:
				t = float32(m.dim - int(at)/m.dim)
			}
			least = min(least, t)
		}
		p.trust[w] = least
	}
}

// mend corrects every block or none.
func (p *repairer) mend(m *modules, l *layout, v *decoder.Version, format int) bool {
	level, err := decoder.ErrorCorrectionLevel_ForBits(uint(format >> 3))
	if err != nil {
		return false
	}
	blocks := v.GetECBlocksForLevel(level)
	checks := blocks.GetECCodewordsPerBlock()
	p.words = grow(p.words, l.words)
	for w := range l.words {
		b := byte(0)
		for _, at := range l.order[w*8 : w*8+8] {
			b <<= 1
			if (m.soft[at] < 0) != masked(format&7, int(at)/m.dim, int(at)%m.dim) {
				b |= 1
			}
		}
		p.words[w] = b
	}
	p.fixed = append(p.fixed[:0], p.words...)
	// Codewords go round the blocks: first the data, whose blocks may be one
	// shorter at the beginning, then the checks.
	count, short, long := 0, 0, 0
	shorter := 0
	for _, g := range blocks.GetECBlocks() {
		if count == 0 {
			short, shorter = g.GetDataCodewords(), g.GetCount()
		}
		long = g.GetDataCodewords()
		count += g.GetCount()
	}
	if long == short {
		shorter = count
	}
	for b := range count {
		p.where = p.where[:0]
		for i := range short {
			p.where = append(p.where, i*count+b)
		}
		if b >= shorter {
			p.where = append(p.where, short*count+b-shorter)
		}
		data := short*count + (count-shorter)*(long-short)
		for i := range checks {
			p.where = append(p.where, data+i*count+b)
		}
		if p.where[len(p.where)-1] >= l.words || !p.correct(checks) {
			return false
		}
	}
	// Everything that is known is written as it must be, so that gozxing reads it.
	known := m.pattern(v.GetVersionNumber())
	for at, k := range known {
		if k != 0 {
			m.soft[at] = float32(k)
		}
	}
	word := formatWord(format)
	for _, copies := range formatPlaces(m.dim) {
		for b, q := range copies {
			m.soft[q[1]*m.dim+q[0]] = 1 - 2*float32(word>>(14-b)&1)
		}
	}
	for w := range l.words {
		for b, at := range l.order[w*8 : w*8+8] {
			dark := p.fixed[w]>>(7-b)&1 == 1
			if dark != masked(format&7, int(at)/m.dim, int(at)%m.dim) {
				m.soft[at] = -1
			} else {
				m.soft[at] = 1
			}
		}
	}
	return true
}

// correct corrects the block at p.where: with ever more of its least trusted
// codewords erased.
func (p *repairer) correct(checks int) bool {
	p.order = p.order[:0]
	for i := range p.where {
		p.order = append(p.order, i)
	}
	slices.SortFunc(p.order, func(a, b int) int { return cmp.Compare(p.trust[p.where[a]], p.trust[p.where[b]]) })
	for _, erased := range [4]int{0, checks / 3, checks * 2 / 3, checks - blindness} {
		p.block = p.block[:0]
		for _, w := range p.where {
			p.block = append(p.block, p.words[w])
		}
		if erased < 0 || !restore(p.block, checks, p.order[:erased]) {
			continue
		}
		for i, w := range p.where {
			p.fixed[w] = p.block[i]
		}
		return true
	}
	return false
}
