package official

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// document is a classified text.
type document struct {
	form     Form
	header   fields // of a JWS
	claims   fields // of JSON, and the payload of a JWS
	warnings []string
}

// flaw is what is wrong with a text.
type flaw struct {
	what string
	at   int  // index in the text where it shows, or -1
	cut  bool // it looks as if the end were missing
}

// cutters are what cuts a text, by the number of characters that it leaves.
var cutters = map[int]string{
	1022: "that is all that Read-Host takes of a pasted line",
	4095: "that is the longest line that a terminal takes",
	8191: "that is the longest line of cmd.exe",
}

// refuse makes the error for a flaw.
func (c *cleaned) refuse(s subject, f *flaw) error {
	msg := fmt.Sprintf("%s is damaged: %s", s.thing, f.what)
	if f.at >= 0 {
		msg += fmt.Sprintf(", at %v", c.place(f.at))
	}
	if f.cut {
		msg += fmt.Sprintf("; it stops after %d characters, at %v", len(c.text), c.place(len(c.text)-1))
		end := len(c.runes)
		for end > 0 && dropped(c.runes[end-1]) {
			end--
		}
		for _, n := range []int{len(c.text), end} {
			if by, ok := cutters[n]; ok {
				if n != len(c.text) {
					by = fmt.Sprintf("with blanks and quotes there are %d, and %s", n, by)
				}
				msg += ": " + by
				break
			}
		}
	}
	return s.refuse("%s", msg)
}

// classify says what a cleaned text is.
func classify(text string) (document, *flaw) {
	if strings.Contains(text, ".") {
		return classifyJWS(text)
	}
	return classifyPlain(text)
}

func classifyPlain(text string) (document, *flaw) {
	if half := len(text) / 2; half >= MinOpaque && text[:half] == text[half:] {
		return document{}, &flaw{what: "it stands in the file twice", at: half}
	}
	std, url := strings.IndexAny(text, "+/"), strings.IndexAny(text, "-_")
	if std >= 0 && url >= 0 {
		at := max(std, url)
		return document{}, &flaw{what: fmt.Sprintf("%q and %q do not stand in the same kind of base64", text[min(std, url)], text[at]), at: at}
	}
	body := strings.TrimRight(text, "=")
	pad := len(text) - len(body)
	if i := strings.IndexByte(body, '='); i >= 0 {
		return document{}, &flaw{what: fmt.Sprintf("%d more characters follow the padding at its end", len(text)-i-1), at: i}
	}
	data, zeroTail := unpack(body)
	obj, bad := parseObject(data)
	if bad != nil && miscased(body) {
		return document{}, miscasedFlaw(body, 0)
	}

	// The frame: length, padding, and the bits that no byte uses.
	need := (4 - len(body)%4) % 4 // padding characters; 3 cannot be
	switch {
	case need == 3, len(text)%4 != 0 && (pad > 0 || url < 0):
		if bad == nil && need < 3 && pad < need {
			return document{}, &flaw{what: fmt.Sprintf("%d of the padding characters %q at its end are missing", need-pad, '='), at: len(text) - 1}
		}
		what := fmt.Sprintf("its length, %d, is not a multiple of 4", len(text))
		if startsJSON(data) && bad != nil && bad.early {
			what += fmt.Sprintf(", and the JSON inside ends early, at byte %d", bad.offset)
		}
		return document{}, &flaw{what: what, at: -1, cut: true}
	case pad > 2:
		return document{}, &flaw{what: fmt.Sprintf("it ends in %d padding characters", pad), at: len(body)}
	case !zeroTail:
		return document{}, &flaw{what: "its last character is one that no encoder writes there", at: len(body) - 1, cut: pad == 0}
	}

	var warnings []string
	if url >= 0 {
		warnings = append(warnings, "the text is base64url, not base64 as every registration token known in public")
	}
	if bad == nil {
		return document{form: JSON, claims: obj, warnings: warnings}, nil
	}
	switch _, cut := cutters[len(text)]; {
	case startsJSON(data):
		return document{}, bad.flaw("the JSON inside", 0, len(body))
	case endsJSON(data):
		return document{}, &flaw{what: "its beginning is missing: the JSON inside has an end and no start", at: 0}
	case len(text) < MinOpaque:
		return document{}, &flaw{what: fmt.Sprintf("it is no JSON, and for anything else %d characters are too few", len(text)), at: -1}
	case cut:
		return document{}, &flaw{what: "its end is missing", at: -1, cut: true}
	}
	return document{form: Opaque, warnings: warnings}, nil
}

func classifyJWS(text string) (document, *flaw) {
	if strings.HasSuffix(text, "...") {
		return document{}, &flaw{what: "it ends in \"...\", as a table of PowerShell cuts a long value", at: len(text) - 3}
	}
	if i := strings.IndexAny(text, "+/="); i >= 0 {
		return document{}, &flaw{what: fmt.Sprintf("the character %q does not stand in base64url, of which a text with full stops is made", text[i]), at: i}
	}
	parts := strings.Split(text, ".")
	head, bad := object(parts[0])
	if bad != nil && miscased(parts[0], parts[1]) {
		return document{}, miscasedFlaw(parts[0], 0)
	}
	if bad != nil {
		return document{}, bad.flaw("the header", 0, len(parts[0]))
	}
	if len(parts) > 3 {
		return document{}, &flaw{what: fmt.Sprintf("it has %d parts, a compact JWS has 3", len(parts)), at: len(parts[0]) + len(parts[1]) + len(parts[2]) + 2}
	}
	start := len(parts[0]) + 1
	claims, bad := object(parts[1])
	if bad != nil && miscased(parts[1]) {
		return document{}, miscasedFlaw(parts[1], start)
	}
	if len(parts) == 2 || parts[2] == "" {
		what := "it has no signature, the last of the 3 parts of a compact JWS"
		if bad != nil && bad.early {
			what += fmt.Sprintf(", and the JSON of its payload ends early, at byte %d", bad.offset)
		}
		return document{}, &flaw{what: what, at: -1, cut: true}
	}
	if bad != nil {
		return document{}, bad.flaw("the payload", start, start+len(parts[1]))
	}
	warnings, f := checkSignature(head, parts[2], start+len(parts[1])+1)
	if f != nil {
		return document{}, f
	}
	return document{form: JWS, header: head, claims: claims, warnings: warnings}, nil
}

// signatureSizes are the lengths in bytes by the algorithm's first two letters or
// its name (RFC 7518 section 3.1, RFC 8037).
var signatureSizes = map[string][]int{
	"RS": {256, 384, 512, 1024}, "PS": {256, 384, 512, 1024},
	"ES256": {64}, "ES384": {96}, "ES512": {132}, "EdDSA": {64},
}

// checkSignature checks that the last part has the length of a signature by the
// header's algorithm.
func checkSignature(head fields, part string, start int) (warnings []string, f *flaw) {
	v := values{fields: head}
	alg := v.text("alg")
	if alg == "" || strings.EqualFold(alg, "none") {
		return nil, &flaw{what: "its header names no signature algorithm", at: 0}
	}
	if v.text("kid") == "" {
		warnings = append(warnings, "the header of the JWS names no key")
	}
	sig, zeroTail := unpack(part)
	sizes, known := signatureSizes[alg]
	if !known && len(alg) == 5 {
		sizes, known = signatureSizes[alg[:2]]
	}
	switch {
	case len(part)%4 != 1 && zeroTail && (known && slices.Contains(sizes, len(sig)) || !known && len(sig) >= 32):
		if !known {
			warnings = append(warnings, "the header of the JWS names a signature algorithm that is not known")
		}
		return warnings, nil
	case known && slices.Contains(sizes, len(sig)):
		return nil, &flaw{what: "the last character of its signature is one that no encoder writes there", at: start + len(part) - 1}
	case known:
		return nil, &flaw{what: fmt.Sprintf("its signature has %d bytes, its algorithm makes %s", len(sig), oneOf(sizes)), at: -1, cut: len(sig) < sizes[len(sizes)-1]}
	}
	return nil, &flaw{what: fmt.Sprintf("its signature has only %d bytes", len(sig)), at: -1, cut: true}
}

func oneOf(sizes []int) string {
	words := make([]string, len(sizes))
	for i, n := range sizes {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, " or ")
}

// object reads a part of a JWS.
func object(part string) (fields, *jsonFlaw) {
	data, zeroTail := unpack(part)
	obj, bad := parseObject(data)
	if bad == nil && (len(part)%4 == 1 || !zeroTail) {
		return nil, &jsonFlaw{offset: len(data), what: "is followed by a character that is part of no byte"}
	}
	return obj, bad
}

// unpack decodes base64 or base64url without padding. A single character at the
// end that makes no byte is left out; zeroTail reports whether the bits at the
// end that make no byte are zero, as every encoder writes them.
func unpack(body string) (data []byte, zeroTail bool) {
	whole := body
	if len(whole)%4 == 1 {
		whole = whole[:len(whole)-1]
	}
	std := strings.NewReplacer("-", "+", "_", "/").Replace(whole)
	data, err := base64.RawStdEncoding.DecodeString(std)
	if err != nil {
		panic(err) // the alphabet was checked before
	}
	_, err = base64.RawStdEncoding.Strict().DecodeString(std)
	return data, err == nil
}

// startsJSON reports whether data begins as a JSON object does: a brace, then
// ASCII text for 48 bytes or to the end. A random text does so once in 10^20.
func startsJSON(data []byte) bool {
	data = bytes.TrimLeft(bytes.TrimPrefix(data, byteOrderMark), " \t\r\n")
	return len(data) > 0 && data[0] == '{' && !slices.ContainsFunc(data[:min(48, len(data))], func(b byte) bool { return !readable(b) })
}

// endsJSON is the same for the end of an object.
func endsJSON(data []byte) bool {
	return len(data) >= 48 && data[len(data)-1] == '}' && !slices.ContainsFunc(data[len(data)-48:], func(b byte) bool { return !readable(b) })
}

// readable reports whether b is an ASCII character that stands in JSON.
func readable(b byte) bool {
	return b >= ' ' && b < 0x7f || b == '\n' || b == '\r' || b == '\t'
}

// sextet returns the six bits of a character of base64 or base64url, or -1.
func sextet(c byte) int {
	switch {
	case c >= 'A' && c <= 'Z':
		return int(c - 'A')
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 26
	case c >= '0' && c <= '9':
		return int(c-'0') + 52
	case c == '+' || c == '-':
		return 62
	case c == '/' || c == '_':
		return 63
	}
	return -1
}

// miscased reports whether the parts are base64 of JSON objects in which the case
// of letters was changed: in some choice of case at least nine in ten of their
// whole groups read as ASCII text and the first group of each as the start of an
// object, but they do not read so as they stand.
func miscased(parts ...string) bool {
	groups, plain, folded := 0, 0, 0
	startsPlain := true
	for _, p := range parts {
		for i := 0; i+4 <= len(p); i += 4 {
			first := byte(0)
			if i == 0 {
				first = '{'
			}
			groups++
			if spells(p[i:i+4], first, false) {
				plain++
			} else if i == 0 {
				startsPlain = false
			}
			if spells(p[i:i+4], first, true) {
				folded++
			} else if i == 0 {
				return false
			}
		}
	}
	return groups > 0 && folded*10 >= groups*9 && !(startsPlain && plain*10 >= groups*9)
}

// spells reports whether four characters of base64 stand for three readable
// bytes, the first of which is first unless that is 0; with fold in some choice
// of the case of the letters.
func spells(group string, first byte, fold bool) bool {
	choices := 1
	if fold {
		choices = 16
	}
	for choice := range choices {
		var bits int
		for i := range 4 {
			c := group[i]
			if isLetter := c|0x20 >= 'a' && c|0x20 <= 'z'; choice>>i&1 == 1 {
				if !isLetter {
					bits = -1
					break
				}
				c ^= 0x20
			}
			bits = bits<<6 | sextet(c)
		}
		b := [3]byte{byte(bits >> 16), byte(bits >> 8), byte(bits)}
		if bits >= 0 && readable(b[0]) && readable(b[1]) && readable(b[2]) && (first == 0 || b[0] == first) {
			return true
		}
	}
	return false
}

// miscasedFlaw points at the first group that cannot be read as it stands.
func miscasedFlaw(body string, start int) *flaw {
	at := 0
	for i := 0; i+4 <= len(body); i += 4 {
		if !spells(body[i:i+4], 0, false) {
			at = i
			break
		}
	}
	return &flaw{what: "the case of its letters was changed on the way: in another choice of capitals it reads as JSON, as it stands it does not", at: start + at}
}
