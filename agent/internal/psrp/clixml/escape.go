package clixml

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// escape writes what an XML text cannot hold or would change as _xHHHH_, one
// for each UTF-16 unit: control characters, everything beyond the basic plane,
// the two non-characters, and an underscore before an x. It is what
// PowerShell's serializer does ([MS-PSRP] 2.2.5.3.2). Bytes that are no UTF-8
// become U+FFFD.
func escape(s string) string {
	var b strings.Builder
	done := 0 // s[:done] is in b
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(s[done:i])
			b.WriteRune(utf8.RuneError)
			done = i + n
		case r == '_' && i+1 < len(s) && (s[i+1] == 'x' || s[i+1] == 'X'),
			r <= 0x1f, r >= 0x7f && r <= 0x9f, r == 0xfffe, r == 0xffff:
			b.WriteString(s[done:i])
			unit(&b, uint16(r))
			done = i + n
		case r > 0xffff:
			b.WriteString(s[done:i])
			high, low := utf16.EncodeRune(r)
			unit(&b, uint16(high))
			unit(&b, uint16(low))
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

func unit(b *strings.Builder, u uint16) {
	const hex = "0123456789ABCDEF"
	b.Write([]byte{'_', 'x', hex[u>>12], hex[u>>8&15], hex[u>>4&15], hex[u&15], '_'})
}

// unescape is the inverse of escape. Hexadecimal digits may have either case;
// what only looks like an escape stays; a lone surrogate becomes U+FFFD.
func unescape(s string) string {
	i := strings.IndexByte(s, '_')
	if i < 0 {
		return s
	}
	var b strings.Builder
	done := 0
	for i < len(s) {
		r, ok := escaped(s[i:])
		if !ok {
			i++
			continue
		}
		if b.Len() == 0 {
			b.Grow(len(s))
		}
		b.WriteString(s[done:i])
		i += escapeLen
		if utf16.IsSurrogate(r) {
			if low, ok := escaped(s[i:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				r = utf16.DecodeRune(r, low)
				i += escapeLen
			}
		}
		b.WriteRune(r) // a surrogate that is left is written as U+FFFD
		done = i
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

const escapeLen = len("_xHHHH_")

// escaped returns the UTF-16 unit of the escape at the start of s.
func escaped(s string) (rune, bool) {
	if len(s) < escapeLen || s[0] != '_' || s[1] != 'x' && s[1] != 'X' || s[6] != '_' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s[2:6]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
