package official

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Encoding is how the characters of a file were written.
type Encoding int

// The encodings that shells and editors on Windows leave behind.
const (
	UTF8       Encoding = iota + 1
	UTF8BOM             // UTF-8 after EF BB BF
	UTF16LEBOM          // after FF FE: Out-File and > of Windows PowerShell 5.1
	UTF16BEBOM          // after FE FF
	UTF16LE             // without a byte order mark: every second byte is 0
	UTF16BE
)

// String names the encoding for people.
func (e Encoding) String() string {
	switch e {
	case UTF8:
		return "UTF-8"
	case UTF8BOM:
		return "UTF-8 with byte order mark"
	case UTF16LEBOM:
		return "UTF-16 LE with byte order mark"
	case UTF16BEBOM:
		return "UTF-16 BE with byte order mark"
	case UTF16LE:
		return "UTF-16 LE without byte order mark"
	case UTF16BE:
		return "UTF-16 BE without byte order mark"
	}
	return fmt.Sprintf("encoding %d", int(e))
}

// Clean returns the text of a token or key file without what is not of it: byte
// order mark, white space of every kind (line ends, tabs, no-break spaces),
// format characters (zero-width spaces and joiners, direction marks, soft
// hyphens), and one pair of quotes, straight or typographic, around the whole.
// Wrapped lines are joined by that.
//
// What remains are letters and digits of ASCII and + / - _ = and full stop, at
// most [MaxLength] of them, unchanged and in their order. Clean refuses an empty
// file, one of more than [MaxRaw] bytes, UTF-16 with an odd number of bytes,
// bytes of no or of two encodings, and every other character, with its place.
func Clean(raw []byte) (string, Encoding, error) {
	c, err := clean(subject{file: "file", thing: "text"}, raw)
	if err != nil {
		return "", 0, err
	}
	return c.text, c.encoding, nil
}

// cleaned is a text that remembers where its characters stood.
type cleaned struct {
	text     string
	encoding Encoding
	runes    []rune  // of the file, without byte order mark
	at       []int32 // index in runes of each character of text
}

// place is a position in a file: line and column count from 1, in characters.
type place struct{ line, column int }

func (p place) String() string { return fmt.Sprintf("line %d, column %d", p.line, p.column) }

func placeOf(runes []rune, index int) place {
	p := place{1, 1}
	for i, r := range runes[:index] {
		if r == '\n' || r == '\r' && (i+1 == len(runes) || runes[i+1] != '\n') {
			p.line++
			p.column = 0
		}
		p.column++
	}
	return p
}

// place returns where character i of the text stood.
func (c *cleaned) place(i int) place { return placeOf(c.runes, int(c.at[i])) }

func clean(s subject, raw []byte) (*cleaned, error) {
	switch {
	case len(raw) == 0:
		return nil, s.refuse("%s is empty", s.file)
	case len(raw) > MaxRaw:
		return nil, s.refuse("%s has %d bytes, more than the %d that are read", s.file, len(raw), MaxRaw)
	}
	runes, enc, err := decode(s, raw)
	if err != nil {
		return nil, err
	}
	c := &cleaned{encoding: enc, runes: runes}
	first, last := 0, len(runes)-1
	for first <= last && dropped(runes[first]) {
		first++
	}
	for last >= first && dropped(runes[last]) {
		last--
	}
	if first < last {
		if q := quoteOf(runes[first]); q != 0 && q == quoteOf(runes[last]) {
			first, last = first+1, last-1
		}
	}
	var text strings.Builder
	for i := first; i <= last; i++ {
		r := runes[i]
		switch {
		case dropped(r):
			continue
		case !inAlphabet(r):
			return nil, c.foreign(s, i)
		case text.Len() == MaxLength:
			return nil, s.refuse("%s holds more than %d characters", s.file, MaxLength)
		}
		text.WriteByte(byte(r))
		c.at = append(c.at, int32(i))
	}
	if text.Len() == 0 {
		return nil, s.refuse("%s holds nothing but blanks", s.file)
	}
	c.text = text.String()
	return c, nil
}

// dropped reports whether r is white space or has no width.
func dropped(r rune) bool {
	if r < utf8.RuneSelf {
		return r == ' ' || r >= '\t' && r <= '\r'
	}
	return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r)
}

// quoteOf returns the kind of a quotation mark, 0 for every other character.
// Editors turn straight quotes into those of any language, and not always into
// a matching pair, so opening and closing ones of a kind are not told apart.
func quoteOf(r rune) rune {
	switch r {
	case '"', '“', '”', '„', '‟', '«', '»':
		return '"'
	case '\'', '‘', '’', '‚', '‛', '‹', '›':
		return '\''
	case '`':
		return '`'
	}
	return 0
}

// inAlphabet reports whether r stands in base64, base64url or between the parts
// of a JWS.
func inAlphabet(r rune) bool {
	return r < utf8.RuneSelf && (sextet(byte(r)) >= 0 || r == '=' || r == '.')
}

// foreign says that the character at the index does not belong to the text, and
// why it may stand there.
func (c *cleaned) foreign(s subject, index int) error {
	r := c.runes[index]
	what := fmt.Sprintf("the foreign character %q (U+%04X) at %v", r, r, placeOf(c.runes, index))
	line, ok := c.longLine()
	switch here := placeOf(c.runes, index).line; {
	case r == '{' || r == '}':
		return s.refuse("%s holds %s: it looks like JSON around or instead of the %s", s.file, what, s.thing)
	case !ok:
		return s.refuse("%s holds no %s: there is %s", s.file, s.thing, what)
	case here < line.first || here > line.last:
		return s.refuse("%s holds other text around the %s: there is %s, and the %s itself seems to be on line %d; a script that printed something else as well leaves this",
			s.file, s.thing, what, s.thing, line.first)
	case r == '…':
		return s.refuse("%s holds %s: a table of PowerShell cut the %s there", s.file, what, s.thing)
	case quoteOf(r) != 0:
		return s.refuse("%s holds %s: a quotation mark without its partner at the other end, where something is missing or too much", s.file, what)
	}
	return s.refuse("%s holds %s", s.file, what)
}

// longLine finds the lines that hold the text itself: those with an unbroken run
// of at least 40 characters of its alphabet.
func (c *cleaned) longLine() (lines struct{ first, last int }, ok bool) {
	run := 0
	line := 1
	for i, r := range c.runes {
		if !inAlphabet(r) {
			run = 0
			if r == '\n' || r == '\r' && (i+1 == len(c.runes) || c.runes[i+1] != '\n') {
				line++
			}
			continue
		}
		if run++; run == 40 {
			if !ok {
				lines.first = line
			}
			lines.last, ok = line, true
		}
	}
	return lines, ok
}

// jsonStart is base64 of a brace and a quotation mark, with which the JSON of
// tokens and of the headers of keys begins.
const jsonStart = "eyJ"

// textBefore returns the index at which a whole JSON or JWS text begins after a
// blank or a line end, other text standing before it; 0 if there is none.
func (c *cleaned) textBefore() int {
	tries := 16
	for i := 1; i < len(c.text) && tries > 0; i++ {
		if c.at[i] == c.at[i-1]+1 || !strings.HasPrefix(c.text[i:], jsonStart) {
			continue
		}
		tries--
		if doc, flaw := classify(c.text[i:]); flaw == nil && doc.form != Opaque {
			return i
		}
	}
	return 0
}

// decode returns the characters of a file without its byte order mark.
func decode(s subject, raw []byte) ([]rune, Encoding, error) {
	switch {
	case bytes.HasPrefix(raw, []byte{0xff, 0xfe, 0, 0}), bytes.HasPrefix(raw, []byte{0, 0, 0xfe, 0xff}):
		return nil, 0, s.refuse("%s is written in UTF-32, which no official script writes", s.file)
	case bytes.HasPrefix(raw, []byte{0xff, 0xfe}):
		return decode16(s, raw, 2, UTF16LEBOM)
	case bytes.HasPrefix(raw, []byte{0xfe, 0xff}):
		return decode16(s, raw, 2, UTF16BEBOM)
	case bytes.HasPrefix(raw, []byte{0xef, 0xbb, 0xbf}):
		return decode8(s, raw[3:], UTF8BOM)
	}
	var zero [2]int // zero bytes at even and at odd offsets
	for i, b := range raw {
		if b == 0 {
			zero[i%2]++
		}
	}
	switch half := len(raw) / 4; { // half of the characters, were they of two bytes
	case zero[0]+zero[1] == len(raw):
		return nil, 0, s.refuse("%s holds nothing but zero bytes: it was never written to its end", s.file)
	case zero[0] == 0 && zero[1] > half:
		return decode16(s, raw, 0, UTF16LE)
	case zero[1] == 0 && zero[0] > half:
		return decode16(s, raw, 0, UTF16BE)
	}
	return decode8(s, raw, UTF8)
}

func decode8(s subject, raw []byte, enc Encoding) ([]rune, Encoding, error) {
	runes := make([]rune, 0, len(raw))
	for rest := raw; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			return nil, 0, s.refuse("%s is neither UTF-8 nor UTF-16: byte 0x%02X at %v", s.file, rest[0], placeOf(append(runes, 0), len(runes)))
		}
		if r == 0 {
			return nil, 0, s.refuse("%s mixes encodings or was written in part: it begins with one byte a character and has a zero byte at %v",
				s.file, placeOf(append(runes, 0), len(runes)))
		}
		runes = append(runes, r)
		rest = rest[n:]
	}
	return runes, enc, nil
}

func decode16(s subject, raw []byte, skip int, enc Encoding) ([]rune, Encoding, error) {
	if len(raw)%2 != 0 {
		return nil, 0, s.refuse("%s is UTF-16 with an odd number of bytes, %d: it was cut, or something was added in another encoding", s.file, len(raw))
	}
	units := make([]uint16, 0, len(raw)/2)
	for i := skip; i < len(raw); i += 2 {
		lo, hi := raw[i], raw[i+1]
		if enc == UTF16BEBOM || enc == UTF16BE {
			lo, hi = hi, lo
		}
		u := uint16(hi)<<8 | uint16(lo)
		if readable(lo) && readable(hi) && !dropped(rune(u)) && (i+3 >= len(raw) || readable(raw[i+2]) && readable(raw[i+3])) {
			return nil, 0, s.refuse("%s mixes encodings: it is UTF-16 up to offset %d and goes on with one byte a character", s.file, i)
		}
		units = append(units, u)
	}
	return utf16.Decode(units), enc, nil
}
