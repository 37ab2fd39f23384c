// Package clixml reads and writes CLIXML, the XML in which PowerShell carries
// objects ([MS-PSRP] section 2.2.5), within bounds.
//
// What is read here was written by a remote host that may be hostile or merely
// new. So reading is strict and bounded: a document is one value of at most
// [MaxBytes], nested at most [MaxDepth] deep and made of at most [MaxValues]
// values; an element, attribute or reference that CLIXML does not have is an
// error with its offset, never a guess and never a panic. There are no
// document types, entities of its own or processing instructions.
//
// What is written is the form that Windows writes, to the byte: a message of
// Windows PowerShell 5.1 that is parsed and marshalled again is the same
// message.
//
// The limit: only the value is carried, never its behaviour. An object is its
// type names, its text and its members; types that this package has no use for
// (see [Opaque]) keep their text as it stood. A string holds Unicode text, so a
// lone surrogate, which a .NET string can hold, becomes U+FFFD.
package clixml

import (
	"strconv"
	"strings"
	"time"
)

// The bounds of a document. Windows itself refuses an object over 10 MB and
// nests fifty deep at most.
const (
	MaxBytes  = 10 << 20 // of UTF-8 XML, byte order mark included
	MaxDepth  = 64       // objects within objects
	MaxValues = 1 << 16  // values, type names and dictionary entries in one document
)

// Value is one CLIXML value: [Nil], [String], [Bool], [Int32], [Int64],
// [Version], [GUID], [DateTime], [TimeSpan], [Opaque], [List], [Dict],
// [MemberSet] or *[Object].
type Value interface{ value() }

type (
	// Nil is $null (<Nil />).
	Nil struct{}
	// String is a string (<S>), with the _xHHHH_ escapes resolved.
	String string
	// Bool is a Boolean (<B>).
	Bool bool
	// Int32 is a signed 32-bit number (<I32>).
	Int32 int32
	// Int64 is a signed 64-bit number (<I64>).
	Int64 int64
	// Version is a System.Version (<Version>): two to four numbers with dots.
	Version string
	// GUID is a System.Guid (<G>) in its 36-character form.
	GUID string
	// DateTime is a System.DateTime (<DT>) in the XML form, such as
	// 2018-06-13T23:46:12.1316332+00:00; the zone is missing where .NET did not
	// know it.
	DateTime string
	// TimeSpan is a System.TimeSpan (<TS>) as an XML duration, such as PT1.5S.
	TimeSpan string
)

// Opaque is a value whose text is kept as it stood, escapes included. Tag is
// one of By SB I16 U16 U32 U64 Sg Db D C URI BA SS XD SBK.
type Opaque struct {
	Tag  string
	Text string
}

// List is an ordered collection. Kind is LST, STK, QUE or IE; empty means LST.
type List struct {
	Kind  string
	Items []Value
}

// Dict is a dictionary (<DCT>), in the order of the document.
type Dict []Entry

// Entry is one key and its value in a [Dict].
type Entry struct{ Key, Value Value }

// Member is a named property of an [Object].
type Member struct {
	Name  string
	Value Value
}

// MemberSet is a named group of members (<MS N="…">), such as the
// PSStandardMembers with which a script says how its objects are shown. It
// stands only among the members of an object.
type MemberSet []Member

// Object is a PSObject (<Obj>): a base value with type names, a text and two
// sets of members. Every part may be missing.
//
// One object may stand in several places of a document, and even within
// itself, because CLIXML has references. Only Base is always a tree. So code
// that walks members must bound its own way.
type Object struct {
	Types    []string // the most derived type first
	ToString *string  // what .NET's ToString said, or nil
	Base     Value    // a primitive, List, Dict or *Object; nil if there is none
	Props    []Member // adapted properties
	Members  []Member // extended properties (<MS>)
}

func (Nil) value()       {}
func (String) value()    {}
func (Bool) value()      {}
func (Int32) value()     {}
func (Int64) value()     {}
func (Version) value()   {}
func (GUID) value()      {}
func (DateTime) value()  {}
func (TimeSpan) value()  {}
func (Opaque) value()    {}
func (List) value()      {}
func (Dict) value()      {}
func (MemberSet) value() {}
func (*Object) value()   {}

// M returns a named member.
func M(name string, v Value) Member { return Member{name, v} }

// Bag returns an object that has extended members only, the form in which
// PSRP's own messages are written.
func Bag(members ...Member) *Object { return &Object{Members: members} }

// Enum returns an enumeration value of the type with that full name.
func Enum(typeName, label string, n int32) *Object {
	return &Object{
		Types:    []string{typeName, "System.Enum", "System.ValueType", "System.Object"},
		ToString: &label,
		Base:     Int32(n),
	}
}

// Get looks for a property as PowerShell's dot does: without regard to case,
// first among the extended members, then the adapted ones, then in the base
// value, be it a dictionary or an object. ok is false where v is no object or
// has no such property. Of two of one name the first counts.
func Get(v Value, name string) (found Value, ok bool) {
	switch v := v.(type) {
	case *Object:
		if v == nil {
			return nil, false
		}
		for _, set := range []MemberSet{v.Members, v.Props} {
			if found, ok := Get(set, name); ok {
				return found, true
			}
		}
		return Get(v.Base, name)
	case MemberSet:
		for _, m := range v {
			if strings.EqualFold(m.Name, name) {
				return m.Value, true
			}
		}
	case Dict:
		for _, e := range v {
			if strings.EqualFold(Text(e.Key), name) {
				return e.Value, true
			}
		}
	}
	return nil, false
}

// Text returns v as PowerShell would show it in a string: a scalar's text, an
// object's base text if that is a string, else its ToString. Nil and whatever
// has no text give "".
func Text(v Value) string {
	switch v := v.(type) {
	case String:
		return string(v)
	case Bool:
		if v {
			return "True"
		}
		return "False"
	case Int32:
		return strconv.FormatInt(int64(v), 10)
	case Int64:
		return strconv.FormatInt(int64(v), 10)
	case Version:
		return string(v)
	case GUID:
		return string(v)
	case DateTime:
		return string(v)
	case TimeSpan:
		return string(v)
	case Opaque:
		return v.Text
	case *Object:
		if v == nil {
			return ""
		}
		if s, ok := v.Base.(String); ok {
			return string(s)
		}
		if v.ToString != nil {
			return *v.ToString
		}
		return Text(v.Base)
	}
	return ""
}

// Int returns v as a number if it is one of the integer types, an enumeration
// included, and fits.
func Int(v Value) (n int64, ok bool) {
	switch v := v.(type) {
	case Int32:
		return int64(v), true
	case Int64:
		return int64(v), true
	case Opaque:
		if integer[v.Tag] == 0 {
			return 0, false
		}
		n, err := strconv.ParseInt(v.Text, 10, 64)
		return n, err == nil
	case *Object:
		if v != nil {
			return Int(v.Base)
		}
	}
	return 0, false
}

// Truth returns v as a Boolean if it is one; an object counts by its base, and
// a SwitchParameter, as Windows sends it, by its IsPresent.
func Truth(v Value) (b, ok bool) {
	switch v := v.(type) {
	case Bool:
		return bool(v), true
	case *Object:
		if v == nil {
			return false, false
		}
		for _, name := range v.Types {
			if strings.TrimPrefix(name, "Deserialized.") == "System.Management.Automation.SwitchParameter" {
				present, _ := Get(v, "IsPresent")
				b, ok := present.(Bool)
				return bool(b), ok
			}
		}
		return Truth(v.Base)
	}
	return false, false
}

// Items returns the elements of a list, bare or as an object's base. ok is
// false for everything else.
func Items(v Value) (items []Value, ok bool) {
	switch v := v.(type) {
	case List:
		return v.Items, true
	case *Object:
		if v != nil {
			return Items(v.Base)
		}
	}
	return nil, false
}

// Time returns the instant; a text without a zone is taken as UTC.
func (d DateTime) Time() (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, string(d)); err == nil {
		return t, nil
	}
	return time.Parse("2006-01-02T15:04:05", string(d))
}

// integer gives the integer types that are [Opaque] their width in bits;
// unsigned ones are negative.
var integer = map[string]int{"By": -8, "SB": 8, "I16": 16, "U16": -16, "U32": -32, "U64": -64, "C": -16}

// opaque lists the tags of [Opaque].
var opaque = map[string]bool{
	"By": true, "SB": true, "I16": true, "U16": true, "U32": true, "U64": true, "C": true,
	"Sg": true, "Db": true, "D": true,
	"URI": true, "BA": true, "SS": true, "XD": true, "SBK": true,
}

// containers lists the tags of [List].
var containers = map[string]bool{"LST": true, "STK": true, "QUE": true, "IE": true}
