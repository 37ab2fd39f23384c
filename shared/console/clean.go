package console

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Quote spells foreign text so that it cannot act on a terminal: a Go string
// literal in double quotes, as %q prints it.
func Quote(s string) string { return strconv.Quote(s) }

// Clean returns s with every character that could act on a terminal spelt out
// as a Go escape: control characters of C0 and C1 (ESC, CR, CSI) but newline
// and tab, direction and other invisible format characters (U+202E, U+200B),
// line and paragraph separators, unassigned and private characters, and bytes
// that are not UTF-8. What is left has a shape of its own or is a space.
func Clean(s string) string {
	at := strings.IndexFunc(s, func(r rune) bool { return !shown(r) || r == utf8.RuneError })
	if at < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:at])
	for i := at; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if shown(r) && !(r == utf8.RuneError && n == 1) {
			b.WriteString(s[i : i+n])
		} else {
			quoted := strconv.QuoteToASCII(s[i : i+n])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

func shown(r rune) bool { return r == '\n' || r == '\t' || graphic(r) }

// graphic reports whether r is a letter, mark, number, sign or space (Unicode
// categories L, M, N, P, S, Zs).
func graphic(r rune) bool { return unicode.IsGraphic(r) }
