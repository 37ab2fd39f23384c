package bundle

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// armor is one labelled base64 block of the text spelling, with a fixed line
// width: 70 columns as ssh-keygen writes signatures, 64 as age writes files.
type armor struct {
	label   string
	columns int
}

var (
	armorSignature = armor{"SSH SIGNATURE", 70}
	armorAge       = armor{"AGE ENCRYPTED FILE", 64}
	armorBody      = armor{"AZS-COURIER BODY", 64}
)

func (a armor) begin() string { return "-----BEGIN " + a.label + "-----\n" }
func (a armor) end() string   { return "-----END " + a.label + "-----\n" }

// encode spells data as a block that ends in one line feed.
func (a armor) encode(data []byte) []byte {
	text := make([]byte, base64.StdEncoding.EncodedLen(len(data)))
	base64.StdEncoding.Encode(text, data)
	out := make([]byte, 0, len(text)+len(text)/a.columns+1+len(a.begin())+len(a.end()))
	out = append(out, a.begin()...)
	for len(text) > 0 {
		n := min(a.columns, len(text))
		out = append(out, text[:n]...)
		out = append(out, '\n')
		text = text[n:]
	}
	return append(out, a.end()...)
}

// decode reads the block at the start of text and returns what follows it. Only
// the bytes that encode writes are accepted.
func (a armor) decode(text []byte) (data, rest []byte, err error) {
	inner, ok := bytes.CutPrefix(text, []byte(a.begin()))
	if !ok {
		return nil, nil, fmt.Errorf("%q block does not start where it must", a.label)
	}
	i := bytes.Index(inner, []byte(a.end()))
	if i < 0 {
		return nil, nil, fmt.Errorf("%q block has no end line: the file is cut short", a.label)
	}
	inner, rest = inner[:i], inner[i+len(a.end()):]
	data, err = base64.StdEncoding.Strict().DecodeString(string(inner)) // skips line feeds; encode decides below
	if err != nil {
		return nil, nil, fmt.Errorf("%q block is not base64: %w", a.label, err)
	}
	if !bytes.Equal(a.encode(data), text[:len(text)-len(rest)]) {
		return nil, nil, fmt.Errorf("%q block is not wrapped at %d columns as it must be", a.label, a.columns)
	}
	return data, rest, nil
}
