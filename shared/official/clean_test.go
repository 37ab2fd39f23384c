package official_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// encodings writes a text in every encoding that is accepted.
var encodings = map[official.Encoding]func(string) []byte{
	official.UTF8:       func(s string) []byte { return []byte(s) },
	official.UTF8BOM:    func(s string) []byte { return []byte("\uFEFF" + s) },
	official.UTF16LEBOM: func(s string) []byte { return encode16(binary.LittleEndian, "\uFEFF"+s) },
	official.UTF16BEBOM: func(s string) []byte { return encode16(binary.BigEndian, "\uFEFF"+s) },
	official.UTF16LE:    func(s string) []byte { return encode16(binary.LittleEndian, s) },
	official.UTF16BE:    func(s string) []byte { return encode16(binary.BigEndian, s) },
}

func encode16(order binary.AppendByteOrder, s string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		out = order.AppendUint16(out, u)
	}
	return out
}

// wrap breaks a text as a terminal of the given width does.
func wrap(s string, width int, end string) string {
	var out strings.Builder
	for len(s) > width {
		out.WriteString(s[:width] + end)
		s = s[width:]
	}
	return out.String() + s
}

// dressings is what shells, editors and terminals put around a text.
var dressings = map[string]func(string) string{
	"bare":              func(s string) string { return s },
	"LF":                func(s string) string { return s + "\n" },
	"CRLF":              func(s string) string { return s + "\r\n" },
	"blank lines":       func(s string) string { return "\r\n\r\n" + s + "\r\n\r\n" },
	"trailing blanks":   func(s string) string { return s + " \t  \r\n" },
	"wrapped at 80":     func(s string) string { return wrap(s, 80, "\r\n") },
	"wrapped, padded":   func(s string) string { return wrap(s, 119, " \n") + "  \n" },
	"wrapped by CR":     func(s string) string { return wrap(s, 64, "\r") },
	"quotes":            func(s string) string { return `"` + s + `"` + "\r\n" },
	"single quotes":     func(s string) string { return "'" + s + "'" },
	"English quotes":    func(s string) string { return "“" + s + "”\r\n" },
	"German quotes":     func(s string) string { return "„" + s + "“" },
	"French quotes":     func(s string) string { return "«\u00a0" + s + "\u00a0»" },
	"no-break space":    func(s string) string { return "\u00a0" + s + "\u00a0" },
	"zero-width spaces": func(s string) string { return "\u200b" + wrap(s, 500, "\u200b") + "\u200d\u2060" },
	"inner mark":        func(s string) string { return wrap(s, 700, "\ufeff") },
}

func TestEveryEncodingAndDressing(t *testing.T) {
	token, key := modelled(t, officialtest.Spec{Seed: 5, Nodes: 2})
	for enc, encode := range encodings {
		for name, dress := range dressings {
			tok, err := official.ReadToken(encode(dress(token)))
			if err != nil {
				t.Errorf("%v, %s: token: %v", enc, name, err)
			} else if tok.Text.Reveal() != token || tok.Encoding != enc || len(tok.Warnings) != 0 {
				t.Errorf("%v, %s: token differs, read as %v, warnings %q", enc, name, tok.Encoding, tok.Warnings)
			}
			k, err := official.ReadKey(encode(dress(key)))
			if err != nil {
				t.Errorf("%v, %s: key: %v", enc, name, err)
			} else if k.Text.Reveal() != key || k.Encoding != enc || len(k.Warnings) != 0 {
				t.Errorf("%v, %s: key differs, read as %v, warnings %q", enc, name, k.Encoding, k.Warnings)
			}
		}
	}
}

func TestWriteIsCleanedBack(t *testing.T) {
	token, key := modelled(t, officialtest.Spec{})
	for _, text := range []string{token, key} {
		raw := official.Write(secret.New(text))
		if want := text + "\n"; string(raw) != want {
			t.Fatalf("Write gave %d bytes, want %d", len(raw), len(want))
		}
		if got, enc, err := official.Clean(raw); err != nil || got != text || enc != official.UTF8 {
			t.Errorf("Clean(Write) = %d characters, %v, %v", len(got), enc, err)
		}
	}
}

func TestCleanRefuses(t *testing.T) {
	run := strings.Repeat("QUJD", 40)
	le := encodings[official.UTF16LEBOM]
	listing := "\r\n\r\n    Directory: C:\\temp\r\n\r\n\r\nMode   LastWriteTime   Length Name\r\n----   -------------   ------ ----\r\n" +
		"-a---- 1/10/2020 3:00 PM    0 token.txt\r\n" + run + "\r\n"
	tests := []struct {
		name string
		raw  string
		want string
	}{
		{"nothing", "", "the file is empty"},
		{"blanks", " \r\n\u00a0\t", "the file holds nothing but blanks"},
		{"mark alone", "\xff\xfe", "the file holds nothing but blanks"},
		{"quotes alone", "\"\"\r\n", "the file holds nothing but blanks"},
		{"zeros", "\x00\x00\x00\x00", "the file holds nothing but zero bytes: it was never written to its end"},
		{"zero tail", run + "\x00\x00\x00\x00", "the file mixes encodings or was written in part: it begins with one byte a character and has a zero byte at line 1, column 161"},
		{"UTF-16 after UTF-8", run + "\r\n" + string(encode16(binary.LittleEndian, "QUJD")), "the file mixes encodings or was written in part: it begins with one byte a character and has a zero byte at line 2, column 2"},
		{"UTF-8 after UTF-16", string(le(run)) + "QUJD", "the file mixes encodings: it is UTF-16 up to offset 322 and goes on with one byte a character"},
		{"odd UTF-16", string(le(run)[:301]), "the file is UTF-16 with an odd number of bytes, 301: it was cut, or something was added in another encoding"},
		{"odd UTF-16 without mark", string(le(run)[2:301]), "the file is UTF-16 with an odd number of bytes, 299: it was cut, or something was added in another encoding"},
		{"UTF-32", "\xff\xfe\x00\x00A\x00\x00\x00", "the file is written in UTF-32, which no official script writes"},
		{"Latin-1", run + "\r\nQUJ\xe9", "the file is neither UTF-8 nor UTF-16: byte 0xE9 at line 2, column 4"},
		{"foreign", run + "\r\n" + run + "é" + run, "the file holds the foreign character 'é' (U+00E9) at line 2, column 161"},
		{"foreign in UTF-16", string(le("\r\n" + run + "Ω" + run)), "the file holds the foreign character 'Ω' (U+03A9) at line 2, column 161"},
		{"replacement", run + "\ufffd" + run, "the file holds the foreign character '�' (U+FFFD) at line 1, column 161"},
		{"after a lone CR", run + "\r" + run + "?" + run, "the file holds the foreign character '?' (U+003F) at line 2, column 161"},
		{"half surrogate", string(le(run)) + "\x00\xd8A\x00", "the file holds the foreign character '�' (U+FFFD) at line 1, column 161"},
		{"opening quote", `"` + run, `the file holds the foreign character '"' (U+0022) at line 1, column 1: a quotation mark without its partner at the other end, where something is missing or too much`},
		{"two pairs of quotes", `'"` + run + `"'`, `the file holds the foreign character '"' (U+0022) at line 1, column 2: a quotation mark without its partner at the other end, where something is missing or too much`},
		{"table", run + "…", "the file holds the foreign character '…' (U+2026) at line 1, column 161: a table of PowerShell cut the text there"},
		{"answer of Resource Manager", `{"activationKey":"` + run + `"}`, "the file holds the foreign character '{' (U+007B) at line 1, column 1: it looks like JSON around or instead of the text"},
		{"prose", "no token today, sorry", "the file holds no text: there is the foreign character ',' (U+002C) at line 1, column 15"},
		{"listing before", listing, "the file holds other text around the text: there is the foreign character ':' (U+003A) at line 3, column 14, and the text itself seems to be on line 9; a script that printed something else as well leaves this"},
		{"text after", run + "\r\nPS C:\\>", "the file holds other text around the text: there is the foreign character ':' (U+003A) at line 2, column 5, and the text itself seems to be on line 1; a script that printed something else as well leaves this"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, _, err := official.Clean([]byte(tt.raw))
			if err == nil {
				t.Fatalf("accepted as %q", text)
			}
			if err.Error() != tt.want || fault.KindOf(err) != fault.Refused {
				t.Errorf("%v error\n got %v\nwant %v", fault.KindOf(err), err, tt.want)
			}
		})
	}
}

func TestSizes(t *testing.T) {
	for _, n := range []int{1 << 10, 10 << 10, 64 << 10, 256 << 10, 256<<10 + 4, official.MaxLength - 4, official.MaxLength} {
		text := opaque(uint64(n), n/4*3)
		for enc, encode := range encodings {
			tok, err := official.ReadToken(encode(wrap(text, 120, "\r\n")))
			if err != nil {
				t.Errorf("%d characters, %v: %v", n, enc, err)
				continue
			}
			long := false
			for _, w := range tok.Warnings {
				long = long || strings.Contains(w, "more than any stamp known")
			}
			if tok.Text.Reveal() != text || long != (n > official.WarnLength) {
				t.Errorf("%d characters, %v: same %t, warnings %q", n, enc, tok.Text.Reveal() == text, tok.Warnings)
			}
		}
	}
	full := bytes.Repeat([]byte("A"), official.MaxLength)
	if text, _, err := official.Clean(full[1:]); err != nil || len(text) != official.MaxLength-1 {
		t.Errorf("%d characters: %v", official.MaxLength-1, err)
	}
	if text, _, err := official.Clean(append(full, " \r\n"...)); err != nil || len(text) != official.MaxLength {
		t.Errorf("%d characters: %v", official.MaxLength, err)
	}
	for _, tt := range []struct {
		raw  []byte
		want string
	}{
		{append(full, 'A'), "the file holds more than 1048576 characters"},
		{make([]byte, official.MaxRaw+1), "the file has 4194305 bytes, more than the 4194304 that are read"},
	} {
		if _, _, err := official.Clean(tt.raw); err == nil || err.Error() != tt.want {
			t.Errorf("%d bytes: %v, want %s", len(tt.raw), err, tt.want)
		}
	}
}
