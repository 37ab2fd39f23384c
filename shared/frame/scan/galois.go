package scan

// The field of 256 elements of QR codes, by the polynomial 0x11d with the
// generator 2 (ISO/IEC 18004, 7.5.2), as tables of powers and logarithms.
var gfExp, gfLog = func() (exp [512]byte, log [256]int) {
	x := 1
	for i := range 255 {
		exp[i], exp[i+255] = byte(x), byte(x)
		log[x] = i
		if x <<= 1; x > 255 {
			x ^= 0x11d
		}
	}
	return exp, log
}()

func gfMul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return gfExp[gfLog[a]+gfLog[b]]
}

// spare is how many check bytes of a block must stay unused by erasures and
// errors: what they then happen to say is what a wrong block would have to guess,
// one in 2³² by chance, for each block of the symbol.
const spare = 4

// restore corrects a Reed–Solomon block in place: its last checks bytes are check
// bytes, and those at the places in erased are of no worth. It says whether the
// block is whole afterwards; with e erasures and t errors 2t + e must leave
// [spare] checks over. It is Berlekamp's and Massey's way with erasures, and
// Forney's for the values (Blahut, Algebraic Codes for Data Transmission, ch. 7).
func restore(block []byte, checks int, erased []int) bool {
	const most = 80 // the largest number of checks is 30 at present
	n := len(block)
	e := len(erased)
	if checks > most-2 || e > checks-spare || n > 255 {
		return false
	}
	var syndromes [most]byte
	if !syndromesOf(block, checks, &syndromes) {
		return true // nothing is wrong
	}
	var lambda, b, t [most]byte
	lambda[0] = 1
	for i, place := range erased {
		x := gfExp[n-1-place]
		for j := i + 1; j > 0; j-- {
			lambda[j] ^= gfMul(lambda[j-1], x)
		}
	}
	b = lambda
	length := e
	for r := e + 1; r <= checks; r++ {
		discrepancy := byte(0)
		for i := range r {
			discrepancy ^= gfMul(lambda[i], syndromes[r-i-1])
		}
		copy(b[1:], b[:most-1])
		b[0] = 0
		if discrepancy == 0 {
			continue
		}
		t = lambda
		for i := range t {
			t[i] ^= gfMul(discrepancy, b[i])
		}
		if 2*length <= r+e-1 {
			length = r + e - length
			inverse := gfExp[255-gfLog[discrepancy]]
			for i := range b {
				b[i] = gfMul(lambda[i], inverse)
			}
		}
		lambda = t
	}
	degree := checks
	for degree > 0 && lambda[degree] == 0 {
		degree--
	}
	if 2*(degree-e)+e > checks-spare {
		return false
	}
	// The values' polynomial: syndromes × locators, as far as there are checks.
	var omega [most]byte
	for i := range checks {
		for j := 0; j <= i && j <= degree; j++ {
			omega[i] ^= gfMul(syndromes[i-j], lambda[j])
		}
	}
	found := 0
	for place := range n {
		x := n - 1 - place // the locator is 2^x, the root 2^-x
		root := (255 - x) % 255
		value := byte(0)
		for i := range degree + 1 {
			if lambda[i] != 0 {
				value ^= gfExp[(gfLog[lambda[i]]+root*i)%255]
			}
		}
		if value != 0 {
			continue
		}
		found++
		top, slope := byte(0), byte(0)
		for i := range checks {
			if omega[i] != 0 {
				top ^= gfExp[(gfLog[omega[i]]+root*i)%255]
			}
		}
		for i := 1; i <= degree; i += 2 {
			if lambda[i] != 0 {
				slope ^= gfExp[(gfLog[lambda[i]]+root*(i-1))%255]
			}
		}
		if slope == 0 {
			return false
		}
		if top != 0 {
			block[place] ^= gfExp[(gfLog[top]+255-gfLog[slope]+x)%255]
		}
	}
	return found == degree && !syndromesOf(block, checks, &syndromes)
}

// syndromesOf says whether anything is wrong with a block.
func syndromesOf(block []byte, checks int, s *[80]byte) bool {
	any := byte(0)
	for i := range checks {
		sum := byte(0)
		for _, c := range block {
			if sum != 0 {
				sum = gfExp[gfLog[sum]+i]
			}
			sum ^= c
		}
		s[i] = sum
		any |= sum
	}
	return any != 0
}
