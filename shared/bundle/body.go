package bundle

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// Limits of the body's header.
const (
	MaxHeader      = 32 << 10 // bytes; a card inside a request has about 4 KiB
	MaxHeaderLines = 64
)

const bodyMagic = "azs-courier-body/v1 "

// Content is the typed inside of one kind: [*Request], [*Answer], [*Receipt],
// [*Card] or [*Rekey].
type Content interface {
	Kind() Kind
	bind(fields)
}

// newContent returns the empty content of a kind, or nil.
func newContent(k Kind) Content {
	switch k {
	case KindRequest:
		return new(Request)
	case KindAnswer:
		return new(Answer)
	case KindReceipt:
		return new(Receipt)
	case KindPairing:
		return new(Card)
	case KindRekey:
		return new(Rekey)
	}
	return nil
}

// Body is the inside of a bundle.
type Body struct {
	Context  Digest  // of the outside that it was made for
	Content  Content // the typed fields
	Encoding Encoding
	Length   int    // of the payload, decoded
	Encoded  []byte // the payload as it stands in the body
}

// newBody encodes the payload and binds it to the outside.
func newBody(context Digest, content Content, payload []byte) (*Body, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("payload has %d bytes, at most %d are allowed", len(payload), MaxPayload)
	}
	b := &Body{Context: context, Content: content, Length: len(payload)}
	b.Encoding, b.Encoded = encodePayload(payload)
	return b, nil
}

// Marshal spells the body.
func (b *Body) Marshal() []byte {
	w := &writer{}
	w.WriteString(bodyMagic + string(b.Content.Kind()) + "\n")
	w.line("context", b.Context.String())
	b.Content.bind(w)
	w.line("encoding", string(b.Encoding))
	w.line("length", strconv.Itoa(b.Length))
	w.WriteString("\n")
	w.Write(b.Encoded)
	return w.Bytes()
}

// parseBody reads a body. What is accepted marshals to the same bytes.
func parseBody(raw []byte) (*Body, error) {
	header := raw[:min(len(raw), MaxHeader)]
	i := bytes.Index(header, []byte("\n\n"))
	if i < 0 {
		return nil, fmt.Errorf("body: the header does not end within %d bytes", MaxHeader)
	}
	header, encoded := raw[:i+1], raw[i+2:]
	if n := bytes.Count(header, []byte("\n")); n > MaxHeaderLines {
		return nil, fmt.Errorf("body: the header has %d lines, at most %d are allowed", n, MaxHeaderLines)
	}
	r := &reader{newLines(header)}
	kind := Kind(r.first(bodyMagic))
	b := &Body{Content: newContent(kind), Encoded: encoded}
	if b.Content == nil {
		return nil, fmt.Errorf("body: kind %q is unknown", kind)
	}
	r.read("context", func(s string) (err error) { b.Context, err = ParseDigest(s); return })
	b.Content.bind(r)
	r.oneOf("encoding", (*string)(&b.Encoding), string(Identity), string(B64Deflate))
	r.read("length", func(s string) (err error) { b.Length, err = parseInt(s, MaxPayload); return })
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if !bytes.Equal(b.Marshal(), raw) {
		return nil, fmt.Errorf("body: a value is not in its one spelling")
	}
	return b, nil
}

// Payload decodes the payload. Whether it has the digest that a request or an
// answer names is the caller's comparison. Every failure is [fault.Refused].
func (b *Body) Payload() ([]byte, error) {
	payload, err := decodePayload(b.Encoding, b.Encoded, b.Length)
	if err != nil {
		return nil, fault.New(fault.Refused, "%w", err)
	}
	return payload, nil
}

// fields is the one list of a kind's fields, walked for writing and for reading,
// so that the two cannot differ. An absent value is spelt "-".
type fields interface {
	text(name string, v *string)    // any text, percent-escaped outside printable ASCII
	count(name string, v *int)      // 0 is absent
	flag(name string, v **bool)     // true, false, absent
	time(name string, v *time.Time) // whole seconds; zero is absent
	digest(name string, v *Digest)  // zero is absent
	bytes(name string, v *[]byte)   // base64; empty is absent
	list(name string, v *[]string)  // words; empty is absent
	oneOf(name string, v *string, allowed ...string)
}

type writer struct{ bytes.Buffer }

func (w *writer) line(name, value string) {
	if value == "" {
		value = "-"
	}
	w.WriteString(name + ": " + value + "\n")
}

func (w *writer) text(name string, v *string)               { w.line(name, escape(*v)) }
func (w *writer) oneOf(name string, v *string, _ ...string) { w.line(name, *v) }
func (w *writer) bytes(name string, v *[]byte)              { w.line(name, base64.StdEncoding.EncodeToString(*v)) }

// list puts one blank between words; a blank inside a word is escaped.
func (w *writer) list(name string, v *[]string) {
	var words []string
	for _, word := range *v {
		words = append(words, strings.ReplaceAll(escape(word), " ", "%20"))
	}
	w.line(name, strings.Join(words, " "))
}

func (w *writer) count(name string, v *int) {
	if *v == 0 {
		w.line(name, "")
		return
	}
	w.line(name, strconv.Itoa(*v))
}

func (w *writer) flag(name string, v **bool) {
	if *v == nil {
		w.line(name, "")
		return
	}
	w.line(name, strconv.FormatBool(**v))
}

func (w *writer) time(name string, v *time.Time) {
	if v.IsZero() {
		w.line(name, "")
		return
	}
	w.line(name, clock.Format(*v))
}

func (w *writer) digest(name string, v *Digest) {
	if v.IsZero() {
		w.line(name, "")
		return
	}
	w.line(name, v.String())
}

type reader struct{ *lines }

func (r *reader) text(name string, v *string) {
	r.read(name, optional(func(s string) (err error) { *v, err = unescape(s); return }))
}

func (r *reader) oneOf(name string, v *string, allowed ...string) {
	r.read(name, func(s string) error {
		for _, a := range allowed {
			if s == a {
				*v = s
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", s, strings.Join(allowed, ", "))
	})
}

func (r *reader) list(name string, v *[]string) {
	r.read(name, optional(func(s string) error {
		for word := range strings.SplitSeq(s, " ") {
			text, err := unescape(word)
			switch {
			case err != nil:
				return err
			case text == "":
				return errors.New("a word of the list is empty")
			}
			*v = append(*v, text)
		}
		return nil
	}))
}

func (r *reader) bytes(name string, v *[]byte) {
	r.read(name, optional(func(s string) (err error) { *v, err = base64.StdEncoding.Strict().DecodeString(s); return }))
}

func (r *reader) count(name string, v *int) {
	r.read(name, optional(func(s string) (err error) { *v, err = parseInt(s, math.MaxInt32); return }))
}

func (r *reader) flag(name string, v **bool) {
	r.read(name, optional(func(s string) error {
		b, err := strconv.ParseBool(s)
		*v = &b
		return err
	}))
}

func (r *reader) time(name string, v *time.Time) {
	r.read(name, optional(func(s string) (err error) { *v, err = clock.Parse(s); return }))
}

func (r *reader) digest(name string, v *Digest) {
	r.read(name, optional(func(s string) (err error) { *v, err = ParseDigest(s); return }))
}

// escape spells free text in printable ASCII: '%', every byte outside 0x21–0x7e
// but inner blanks, and a lone "-" become %XX.
func escape(s string) string {
	if s == "-" {
		return "%2D"
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		edge := i == 0 || i == len(s)-1
		if c == '%' || c < 0x20 || c > 0x7e || (c == ' ' && edge) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape is the inverse; other spellings of the same text are caught when the
// body is marshalled again.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("escape at the end is cut short")
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("escape %q is not two hex digits", s[i:i+3])
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
