package bundle

import "strings"

// Field is one named value of a body, for people.
type Field struct{ Name, Value string }

// Fields lists the typed fields of a content that are present, in the order of
// the format, unescaped.
func Fields(c Content) []Field {
	w := &writer{}
	c.bind(w)
	var out []Field
	for line := range strings.Lines(w.String()) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if value == "-" {
			continue
		}
		if text, err := unescape(value); err == nil {
			value = text
		}
		out = append(out, Field{name, value})
	}
	return out
}
