package frame

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A handheld scanner types a code as a keyboard would: it presses the keys that
// a US keyboard has for the characters, and the machine reads them by its own
// layout, and with its own CapsLock. Each layout below says, for the characters
// of a frame that another layout moves, what the machine then reads. Letters are
// folded to upper case first, so a layout has one entry for both.
//
// Dead keys compose with what is typed next (grave accent and A: À); see
// composed.

// layout is one way in which a machine reads the keys.
type layout struct {
	name    string
	arrives string // what the machine reads, character for character of [alphabet]
	also    string // pairs: what it may read besides, and what that is
}

// The layouts as Windows has them (KBDUS, KBDGR, KBDFR, KBDIT), folded, and once
// with CapsLock where it moves more than letters. With CapsLock systems differ in
// which symbols move: both are taken, for the checksum decides.
var layouts = []layout{
	{"US", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:", ""},
	{"QWERTZ", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXZY $%(`ß.-Ö", "ẞ-"},
	{"QWERTZ, CapsLock", "=!\"§$%&/()ABCDEFGHIJKLMNOPQRSTUVWXZY 458´?:_Ö", "`+ß-..-/"},
	{"AZERTY", "À&É\"'(-È_ÇQBCDEFGHIJKL?NOPARSTUVZXYW 458+):!M", ",M"},
	{"AZERTY, CapsLock", "0123456789QBCDEFGHIJKL?NOPARSTUVZXYW '(_=°/§M", ",M++)-:.!/"},
	{"IT", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%(^'.-Ç", ""},
}

// maps has for each layout what each character that arrives was in the code.
var maps = func() (out []map[rune]byte) {
	for _, l := range layouts {
		m := map[rune]byte{}
		for i, r := range []rune(l.arrives) {
			m[r] = alphabet[i]
		}
		for pair := []rune(l.also); len(pair) > 1; pair = pair[2:] {
			m[pair[0]] = byte(pair[1])
		}
		out = append(out, m)
	}
	return out
}()

// maxTyped is the most characters of a line that is looked at: the longest text,
// and what a scanner may type around it.
const maxTyped = maxText + 16

// maxTries bounds how many places of eaten blanks are tried for a layout. A text
// that needs more is given up: any other frame does as well.
const maxTries = 512

// ParseTyped reads the text of a frame as a handheld scanner types it into a
// line: letters may arrive in either case, through the layout of a US, German,
// French or Italian keyboard, with CapsLock on or off, with white space or a line
// end around. Blanks inside are characters of the frame and are kept. The
// checksum says which reading is the right one; a line that has none is a
// [fault.Refused].
func ParseTyped(line string) (Frame, error) {
	line = strings.Trim(line, "\r\n\t ")
	if len(line) > 3*maxTyped || utf8.RuneCountInString(line) > maxTyped {
		return Frame{}, refused("the line is longer than the %d characters that fit into a code", maxText)
	}
	if f, err := Parse(line); err == nil {
		return f, nil
	}
	folded := []rune(strings.Map(unicode.ToUpper, line))
	for _, m := range maps {
		text, dead, ok := read(folded, m)
		if !ok {
			continue
		}
		if f, ok := putBack(text, dead); ok {
			return f, nil
		}
	}
	return Parse(strings.ToUpper(line)) // for the sentence that says what is wrong with it
}

// composed are the characters that a dead grave or acute accent makes of the
// next letter. Those that are keys of their own (È, À, É, Ç) are not undone
// where the layout has them.
var composed = map[rune]string{
	'À': "`A", 'È': "`E", 'Ì': "`I", 'Ò': "`O", 'Ù': "`U",
	'Á': "´A", 'É': "´E", 'Í': "´I", 'Ó': "´O", 'Ú': "´U", 'Ý': "´Y",
}

// read translates by a layout. dead are the places behind which a blank may have
// been eaten: a dead key and a blank make the accent alone.
func read(line []rune, m map[rune]byte) (text []byte, dead []int, ok bool) {
	put := func(r rune) bool {
		b, ok := m[r]
		if !ok {
			return false
		}
		text = append(text, b)
		if r == '`' || r == '´' {
			dead = append(dead, len(text))
		}
		return true
	}
	for _, r := range line {
		if put(r) {
			continue
		}
		pair, ok := composed[r]
		if !ok {
			return nil, nil, false
		}
		accent, letter := []rune(pair)[0], []rune(pair)[1]
		if !put(accent) || !put(letter) {
			return nil, nil, false
		}
		dead = dead[:len(dead)-1] // it composed: nothing was eaten
	}
	return text, dead, strings.HasPrefix(string(text), Prefix)
}

// putBack parses the text; when its length shows that one or two characters are
// missing, it puts blanks back behind dead keys until the checksum fits.
func putBack(text []byte, dead []int) (Frame, bool) {
	tries := maxTries
	var try func(text []byte, from, in, missing int) (Frame, bool)
	try = func(text []byte, from, in, missing int) (Frame, bool) {
		if missing == 0 {
			f, err := Parse(string(text))
			return f, err == nil
		}
		for i := from; i < len(dead) && tries > 0; i++ {
			tries--
			at := dead[i] + in // moved by the blanks that are in already
			if f, ok := try(slices.Concat(text[:at], []byte{' '}, text[at:]), i+1, in+1, missing-1); ok {
				return f, true
			}
		}
		return Frame{}, false
	}
	return try(text, 0, 0, (3-len(text)%3)%3)
}
