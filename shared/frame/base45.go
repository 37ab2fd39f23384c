package frame

// alphabet is that of base45 (RFC 9285) and of the alphanumeric mode of a QR
// code (ISO/IEC 18004).
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

// value is the value of each character, 0xff for those outside the alphabet.
var value = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xff
	}
	for i := range len(alphabet) {
		v[alphabet[i]] = byte(i)
	}
	return v
}()

// encode45 spells an even number of bytes: each two, as a number in big-endian
// order, are three digits of base 45, the lowest first. The highest of three is
// at most 32, so a text never ends in a blank or a symbol.
func encode45(b []byte) string {
	out := make([]byte, 0, len(b)/2*3)
	for i := 0; i+1 < len(b); i += 2 {
		n := int(b[i])<<8 | int(b[i+1])
		out = append(out, alphabet[n%45], alphabet[n/45%45], alphabet[n/2025])
	}
	return string(out)
}

// decode45 is the reverse of encode45 and accepts nothing else.
func decode45(text string) ([]byte, error) {
	if len(text)%3 != 0 {
		return nil, refused("it has %d characters, which are not a multiple of 3", len(text))
	}
	out := make([]byte, 0, len(text)/3*2)
	for i := 0; i < len(text); i += 3 {
		n := 0
		for j := 2; j >= 0; j-- {
			v := value[text[i+j]]
			if v == 0xff {
				return nil, refused("character %d is %q, which is not of base45", i+j+1, text[i+j:i+j+1])
			}
			n = n*45 + int(v)
		}
		if n > 0xffff {
			return nil, refused("characters %d to %d, %q, are no two bytes", i+1, i+3, text[i:i+3])
		}
		out = append(out, byte(n>>8), byte(n))
	}
	return out, nil
}
