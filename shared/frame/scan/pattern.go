package scan

import "github.com/makiuchi-d/gozxing/qrcode/decoder"

// pattern returns the modules that every symbol of a version has alike: 1 is light,
// −1 is dark, 0 is data or format (ISO/IEC 18004, 6.3 and 7.10).
func (m *modules) pattern(version int) []int8 {
	if k := m.known[version]; k != nil {
		return k
	}
	dim := 17 + 4*version
	k := make([]int8, dim*dim)
	set := func(i, j int, dark bool) {
		if i < 0 || j < 0 || i >= dim || j >= dim {
			return
		}
		k[j*dim+i] = 1
		if dark {
			k[j*dim+i] = -1
		}
	}
	for i := 8; i < dim-8; i++ {
		set(i, 6, i&1 == 0)
		set(6, i, i&1 == 0)
	}
	rings := func(ci, cj, radius int, light int) {
		for j := -radius; j <= radius; j++ {
			for i := -radius; i <= radius; i++ {
				ring := max(i, -i, j, -j)
				set(ci+i, cj+j, ring != light && ring != 4)
			}
		}
	}
	if v, err := decoder.Version_GetVersionForNumber(version); err == nil {
		c := v.GetAlignmentPatternCenters()
		n := len(c) - 1
		for a := range c {
			for b := range c {
				if a == 0 && b == 0 || a == 0 && b == n || a == n && b == 0 {
					continue
				}
				rings(c[a], c[b], 2, 1)
			}
		}
	}
	rings(3, 3, 4, 2)
	rings(dim-4, 3, 4, 2)
	rings(3, dim-4, 4, 2)
	set(8, dim-8, true)
	if version >= 7 {
		word := decoder.VERSION_DECODE_INFO[version-7]
		for b := range 18 {
			i, j := dim-11+b%3, b/3
			dark := word>>b&1 == 1
			set(i, j, dark)
			set(j, i, dark)
		}
	}
	m.known[version] = k
	return k
}
