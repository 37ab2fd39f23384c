package clixml

import (
	"strconv"
	"strings"
)

// Marshal writes v as Windows does: one element without a byte order mark,
// references numbered in the order of appearance, a repeated list of type
// names as a TNRef and a repeated object as a Ref. Nil values, also a nil
// *Object, are <Nil />. A bare [List] or [Dict] becomes an object's base.
func Marshal(v Value) []byte {
	w := writer{objects: map[*Object]int{}, types: map[string]int{}}
	w.value("", v)
	return w.buf
}

type writer struct {
	buf     []byte
	objects map[*Object]int
	types   map[string]int
}

func (w *writer) value(name string, v Value) {
	switch v := v.(type) {
	case String:
		w.text("S", name, escape(string(v)))
	case Bool:
		w.text("B", name, strconv.FormatBool(bool(v)))
	case Int32:
		w.text("I32", name, strconv.FormatInt(int64(v), 10))
	case Int64:
		w.text("I64", name, strconv.FormatInt(int64(v), 10))
	case Version:
		w.text("Version", name, string(v))
	case GUID:
		w.text("G", name, string(v))
	case DateTime:
		w.text("DT", name, string(v))
	case TimeSpan:
		w.text("TS", name, string(v))
	case Opaque:
		w.text(v.Tag, name, v.Text)
	case List:
		w.object(name, &Object{Base: v})
	case Dict:
		w.object(name, &Object{Base: v})
	case MemberSet:
		w.open("MS", name, -1, false)
		w.each(v)
		w.close("MS")
	case *Object:
		if v == nil {
			w.open("Nil", name, -1, true)
			return
		}
		w.object(name, v)
	default:
		w.open("Nil", name, -1, true)
	}
}

func (w *writer) object(name string, o *Object) {
	if id, seen := w.objects[o]; seen {
		w.open("Ref", name, id, true)
		return
	}
	id := len(w.objects)
	w.objects[o] = id
	w.open("Obj", name, id, false)
	if len(o.Types) > 0 {
		key := strings.Join(o.Types, "\x00")
		if id, seen := w.types[key]; seen {
			w.open("TNRef", "", id, true)
		} else {
			id := len(w.types)
			w.types[key] = id
			w.open("TN", "", id, false)
			for _, t := range o.Types {
				w.text("T", "", escape(t))
			}
			w.close("TN")
		}
	}
	if o.ToString != nil {
		w.text("ToString", "", escape(*o.ToString))
	}
	switch base := o.Base.(type) {
	case nil:
	case List:
		kind := base.Kind
		if kind == "" {
			kind = "LST"
		}
		w.open(kind, "", -1, len(base.Items) == 0)
		for _, item := range base.Items {
			w.value("", item)
		}
		if len(base.Items) > 0 {
			w.close(kind)
		}
	case Dict:
		w.open("DCT", "", -1, len(base) == 0)
		for _, e := range base {
			w.open("En", "", -1, false)
			w.value("Key", e.Key)
			w.value("Value", e.Value)
			w.close("En")
		}
		if len(base) > 0 {
			w.close("DCT")
		}
	default:
		w.value("", base)
	}
	w.members("Props", o.Props)
	w.members("MS", o.Members)
	w.close("Obj")
}

func (w *writer) members(tag string, set []Member) {
	if len(set) == 0 {
		return
	}
	w.open(tag, "", -1, false)
	w.each(set)
	w.close(tag)
}

func (w *writer) each(set []Member) {
	for _, m := range set {
		w.value(m.Name, m.Value)
	}
}

// open writes a start tag; a name of "" and a reference below 0 are left out.
func (w *writer) open(tag, name string, ref int, empty bool) {
	w.raw("<", tag)
	if name != "" {
		w.raw(` N="`)
		w.escaped(escape(name), true)
		w.raw(`"`)
	}
	if ref >= 0 {
		w.raw(` RefId="`, strconv.Itoa(ref), `"`)
	}
	if empty {
		w.raw(" /")
	}
	w.raw(">")
}

func (w *writer) close(tag string) { w.raw("</", tag, ">") }

func (w *writer) text(tag, name, text string) {
	w.open(tag, name, -1, false)
	w.escaped(text, false)
	w.close(tag)
}

func (w *writer) raw(parts ...string) {
	for _, p := range parts {
		w.buf = append(w.buf, p...)
	}
}

// escaped writes XML text. A control character that escape has not seen, as in
// an [Opaque], is written as a character reference where XML allows one.
func (w *writer) escaped(s string, attribute bool) {
	for _, r := range s {
		switch {
		case r == '&':
			w.raw("&amp;")
		case r == '<':
			w.raw("&lt;")
		case r == '>':
			w.raw("&gt;")
		case r == '"' && attribute:
			w.raw("&quot;")
		case r == '\r', r == '\n' && attribute, r == '\t' && attribute:
			w.raw("&#", strconv.Itoa(int(r)), ";")
		case r < 0x20 && r != '\t' && r != '\n', r == 0xfffe, r == 0xffff:
			w.raw("\uFFFD")
		default:
			w.buf = append(w.buf, string(r)...)
		}
	}
}
