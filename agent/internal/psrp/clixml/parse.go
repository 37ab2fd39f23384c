package clixml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ErrSyntax is in the chain of every error about a document that is not
// CLIXML.
var ErrSyntax = errors.New("not valid CLIXML")

// ErrLimit is in the chain of every error about a document that is over one of
// the bounds.
var ErrLimit = errors.New("CLIXML over a limit")

// Namespace is the namespace of CLIXML. PSRP leaves it out; it is accepted.
const Namespace = "http://schemas.microsoft.com/powershell/2004/04"

// Parse reads a document of exactly one value. A byte order mark at its start,
// white space around the value, and the element <Objs> around it, which PSRP
// leaves out and files have, are allowed. The error wraps [ErrSyntax] or
// [ErrLimit] and says at which byte.
func Parse(data []byte) (Value, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrLimit, len(data), MaxBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	p := parser{
		xml:     xml.NewDecoder(bytes.NewReader(data)),
		objects: map[uint64]*Object{},
		types:   map[uint64][]string{},
	}
	v, err := p.document()
	switch {
	case err == nil:
		return v, nil
	case errors.Is(err, ErrLimit), errors.Is(err, ErrSyntax):
		return nil, fmt.Errorf("%w at byte %d", err, p.xml.InputOffset())
	}
	return nil, fmt.Errorf("%w at byte %d: %v", ErrSyntax, p.xml.InputOffset(), err)
}

type parser struct {
	xml     *xml.Decoder
	objects map[uint64]*Object
	types   map[uint64][]string
	values  int
}

func syntax(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
}

func (p *parser) document() (v Value, err error) {
	for {
		token, err := p.xml.Token()
		if err == io.EOF {
			if v == nil {
				return nil, syntax("no value")
			}
			return v, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if v != nil {
				return nil, syntax("a second value, %q, follows the first", t.Name.Local)
			}
			if v, err = p.root(t); err != nil {
				return nil, err
			}
		default:
			if err := onlySpace(t); err != nil {
				return nil, err
			}
		}
	}
}

// root reads the one value, within <Objs> or bare.
func (p *parser) root(e xml.StartElement) (v Value, err error) {
	if e.Name.Local != "Objs" {
		return p.unnamed(e, 0)
	}
	e.Attr = slices.DeleteFunc(e.Attr, func(a xml.Attr) bool { return a.Name == xml.Name{Local: "Version"} })
	if err := bare(e); err != nil {
		return nil, err
	}
	err = p.children(func(e xml.StartElement) (err error) {
		if v != nil {
			return syntax("a second value, %q, follows the first", e.Name.Local)
		}
		v, err = p.unnamed(e, 0)
		return err
	})
	if err == nil && v == nil {
		err = syntax("no value")
	}
	return v, err
}

// onlySpace refuses every token but white space.
func onlySpace(t xml.Token) error {
	switch t := t.(type) {
	case xml.CharData:
		if len(bytes.TrimLeft(t, " \t\r\n")) == 0 {
			return nil
		}
		return syntax("text between elements")
	case xml.Comment:
		return syntax("a comment")
	}
	return syntax("a processing instruction or document type")
}

// attributes returns N, unescaped, and RefId; CLIXML has no others.
func attributes(e xml.StartElement) (name string, ref uint64, hasRef bool, err error) {
	if e.Name.Space != "" && e.Name.Space != Namespace {
		return "", 0, false, syntax("element %q in the namespace %q", e.Name.Local, e.Name.Space)
	}
	hasName := false
	for _, a := range e.Attr {
		switch {
		case a.Name.Space == "" && a.Name.Local == "N" && !hasName:
			hasName, name = true, unescape(a.Value)
		case a.Name.Space == "" && a.Name.Local == "RefId" && !hasRef:
			hasRef = true
			if ref, err = strconv.ParseUint(a.Value, 10, 32); err != nil {
				return "", 0, false, syntax("the RefId %q of %q is no number", a.Value, e.Name.Local)
			}
		case a.Name.Space == "" && a.Name.Local == "xmlns" && a.Value == Namespace:
		default:
			return "", 0, false, syntax("element %q has the attribute %q", e.Name.Local, a.Name.Local)
		}
	}
	return name, ref, hasRef, nil
}

// bare refuses attributes on an element that has none.
func bare(e xml.StartElement) error {
	name, _, hasRef, err := attributes(e)
	if err == nil && (name != "" || hasRef) {
		err = syntax("element %q has a name or a RefId", e.Name.Local)
	}
	return err
}

// count takes one off the number of values that may still come.
func (p *parser) count() error {
	if p.values++; p.values > MaxValues {
		return fmt.Errorf("%w: over %d values", ErrLimit, MaxValues)
	}
	return nil
}

// children calls f for each child element; f must read up to its end. Only
// white space may stand between them.
func (p *parser) children(f func(xml.StartElement) error) error {
	for {
		token, err := p.xml.Token()
		if err != nil {
			return unexpectedEOF(err)
		}
		switch t := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if err := f(t); err != nil {
				return err
			}
		default:
			if err := onlySpace(t); err != nil {
				return err
			}
		}
	}
}

// text returns an element's text up to its end; it has no child elements.
func (p *parser) text() (string, error) {
	var text []byte
	for {
		token, err := p.xml.Token()
		if err != nil {
			return "", unexpectedEOF(err)
		}
		switch t := token.(type) {
		case xml.EndElement:
			return string(text), nil
		case xml.CharData:
			text = append(text, t...)
		case xml.StartElement:
			return "", syntax("element %q within a text", t.Name.Local)
		default:
			return "", onlySpace(t)
		}
	}
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// value reads the value that e starts, and its name if it has one.
func (p *parser) value(e xml.StartElement, depth int) (Value, string, error) {
	if err := p.count(); err != nil {
		return nil, "", err
	}
	tag := e.Name.Local
	name, ref, hasRef, err := attributes(e)
	if err != nil {
		return nil, "", err
	}
	switch {
	case tag == "Obj":
		o, err := p.object(ref, hasRef, depth+1)
		return o, name, err
	case tag == "Ref":
		o, known := p.objects[ref]
		if !hasRef || !known {
			return nil, "", syntax("a reference to an object, %d, that is not there", ref)
		}
		return o, name, p.empty(tag)
	case hasRef:
		return nil, "", syntax("element %q has a RefId", tag)
	case tag == "Nil":
		return Nil{}, name, p.empty(tag)
	case tag == "MS" && name != "":
		if depth >= MaxDepth {
			return nil, "", tooDeep()
		}
		set, err := p.eachMember(depth + 1)
		return set, name, err
	}
	text, err := p.text()
	if err != nil {
		return nil, "", err
	}
	v, err := scalar(tag, text)
	return v, name, err
}

// unnamed reads a value that must have no name.
func (p *parser) unnamed(e xml.StartElement, depth int) (Value, error) {
	v, name, err := p.value(e, depth)
	if err == nil && name != "" {
		err = syntax("element %q has the name %q where it needs none", e.Name.Local, name)
	}
	return v, err
}

func tooDeep() error { return fmt.Errorf("%w: objects nested over %d deep", ErrLimit, MaxDepth) }

func (p *parser) empty(tag string) error {
	return p.children(func(xml.StartElement) error { return syntax("element %q is not empty", tag) })
}

// scalar turns the text of a primitive into a value.
func scalar(tag, text string) (Value, error) {
	bad := func() (Value, error) { return nil, syntax("a value of type %s reads %.40q", tag, text) }
	switch tag {
	case "S":
		return String(unescape(text)), nil
	case "B":
		switch text {
		case "true", "1":
			return Bool(true), nil
		case "false", "0":
			return Bool(false), nil
		}
		return bad()
	case "I32":
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return bad()
		}
		return Int32(n), nil
	case "I64":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return bad()
		}
		return Int64(n), nil
	case "Version":
		parts := strings.Split(text, ".")
		for _, part := range parts {
			if n, err := strconv.ParseUint(part, 10, 31); err != nil || part != strconv.FormatUint(n, 10) {
				return bad()
			}
		}
		if len(parts) < 2 || len(parts) > 4 {
			return bad()
		}
		return Version(text), nil
	case "G":
		if !isGUID(text) {
			return bad()
		}
		return GUID(text), nil
	case "DT":
		if _, err := DateTime(text).Time(); err != nil {
			return bad()
		}
		return DateTime(text), nil
	case "TS":
		if !isDuration(text) {
			return bad()
		}
		return TimeSpan(text), nil
	}
	if !opaque[tag] {
		return nil, syntax("no value has the type %q", tag)
	}
	if bits := integer[tag]; bits > 0 {
		if _, err := strconv.ParseInt(text, 10, bits); err != nil {
			return bad()
		}
	} else if bits < 0 {
		if _, err := strconv.ParseUint(text, 10, -bits); err != nil {
			return bad()
		}
	}
	return Opaque{tag, text}, nil
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
		if dash != (c == '-') || !dash && !hex {
			return false
		}
	}
	return true
}

// isDuration says whether s can be an XML duration; its grammar is left to
// whoever needs the number.
func isDuration(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return len(s) > 2 && s[0] == 'P' && strings.Trim(s[1:], "0123456789.YMDTHS") == ""
}

// object reads the inside of an <Obj>.
func (p *parser) object(ref uint64, hasRef bool, depth int) (*Object, error) {
	if depth > MaxDepth {
		return nil, tooDeep()
	}
	o := new(Object)
	if hasRef {
		if _, twice := p.objects[ref]; twice {
			return nil, syntax("two objects have the RefId %d", ref)
		}
		p.objects[ref] = o
	}
	var seen struct{ types, props, members bool }
	once := func(flag *bool, e xml.StartElement) error {
		if *flag {
			return syntax("an object has %q twice", e.Name.Local)
		}
		*flag = true
		return nil
	}
	err := p.children(func(e xml.StartElement) (err error) {
		switch tag := e.Name.Local; tag {
		case "TN", "TNRef":
			if err := once(&seen.types, e); err != nil {
				return err
			}
			o.Types, err = p.typeNames(e)
			return err
		case "ToString":
			if o.ToString != nil {
				return syntax("an object has two texts")
			}
			if err := bare(e); err != nil {
				return err
			}
			text, err := p.text()
			text = unescape(text)
			o.ToString = &text
			return err
		case "Props":
			if err := once(&seen.props, e); err != nil {
				return err
			}
			o.Props, err = p.members(e, depth)
			return err
		case "MS":
			if err := once(&seen.members, e); err != nil {
				return err
			}
			o.Members, err = p.members(e, depth)
			return err
		default:
			if o.Base != nil {
				return syntax("an object has a second base value, %q", tag)
			}
			o.Base, err = p.base(e, depth)
			return err
		}
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (p *parser) typeNames(e xml.StartElement) (names []string, err error) {
	name, ref, hasRef, err := attributes(e)
	if err != nil {
		return nil, err
	}
	if name != "" || !hasRef {
		return nil, syntax("element %q needs a RefId only", e.Name.Local)
	}
	known, there := p.types[ref]
	if e.Name.Local == "TNRef" {
		if !there {
			return nil, syntax("a reference to type names, %d, that are not there", ref)
		}
		return known, p.empty("TNRef")
	}
	if there {
		return nil, syntax("two lists of type names have the RefId %d", ref)
	}
	err = p.children(func(e xml.StartElement) error {
		if e.Name.Local != "T" {
			return syntax("element %q among type names", e.Name.Local)
		}
		if err := bare(e); err != nil {
			return err
		}
		if err := p.count(); err != nil {
			return err
		}
		text, err := p.text()
		names = append(names, unescape(text))
		return err
	})
	p.types[ref] = names
	return names, err
}

func (p *parser) members(e xml.StartElement, depth int) ([]Member, error) {
	if err := bare(e); err != nil {
		return nil, err
	}
	return p.eachMember(depth)
}

func (p *parser) eachMember(depth int) (set MemberSet, err error) {
	err = p.children(func(e xml.StartElement) error {
		v, name, err := p.value(e, depth)
		if err == nil && name == "" {
			err = syntax("a member, %q, without a name", e.Name.Local)
		}
		set = append(set, Member{name, v})
		return err
	})
	return set, err
}

// base reads an object's base value. A reference cannot be one, so that a
// chain of bases has an end.
func (p *parser) base(e xml.StartElement, depth int) (Value, error) {
	tag := e.Name.Local
	switch {
	case tag == "Ref":
		return nil, syntax("a reference as the base of an object")
	case containers[tag]:
		if err := bare(e); err != nil {
			return nil, err
		}
		list := List{Kind: tag}
		err := p.children(func(e xml.StartElement) error {
			v, err := p.unnamed(e, depth)
			list.Items = append(list.Items, v)
			return err
		})
		return list, err
	case tag == "DCT":
		if err := bare(e); err != nil {
			return nil, err
		}
		var dict = Dict{}
		err := p.children(func(e xml.StartElement) error {
			entry, err := p.entry(e, depth)
			dict = append(dict, entry)
			return err
		})
		return dict, err
	}
	return p.unnamed(e, depth)
}

func (p *parser) entry(e xml.StartElement, depth int) (entry Entry, err error) {
	if e.Name.Local != "En" {
		return entry, syntax("element %q in a dictionary", e.Name.Local)
	}
	if err := bare(e); err != nil {
		return entry, err
	}
	if err := p.count(); err != nil {
		return entry, err
	}
	err = p.children(func(e xml.StartElement) error {
		v, name, err := p.value(e, depth)
		switch {
		case err != nil:
		case name == "Key" && entry.Key == nil:
			entry.Key = v
		case name == "Value" && entry.Value == nil:
			entry.Value = v
		default:
			err = syntax("a second or unknown part, %q, of a dictionary entry", name)
		}
		return err
	})
	if err == nil && (entry.Key == nil || entry.Value == nil) {
		err = syntax("a dictionary entry without key or value")
	}
	return entry, err
}
