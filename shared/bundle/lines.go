package bundle

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// lines reads the line grammar that manifest and body share: a first line with a
// magic, then "name: value" lines in a fixed order, each ended by a line feed.
// The first failure sticks; end reports it.
type lines struct {
	rest []byte
	n    int
	err  error
}

func newLines(raw []byte) *lines { return &lines{rest: raw} }

func (l *lines) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf("line %d: "+format, append([]any{l.n}, args...)...)
	}
}

// next cuts one line of printable ASCII.
func (l *lines) next() string {
	if l.err != nil {
		return ""
	}
	l.n++
	line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
	if !ok {
		l.fail("there is no line feed")
		return ""
	}
	for _, c := range line {
		if c < 0x20 || c > 0x7e {
			l.fail("byte 0x%02x is not printable ASCII", c)
			return ""
		}
	}
	l.rest = rest
	return string(line)
}

// first reads the first line and returns what follows the magic.
func (l *lines) first(magic string) string {
	line := l.next()
	value, ok := strings.CutPrefix(line, magic)
	if !ok {
		l.fail("does not start with %q", magic)
	}
	return value
}

// value reads the line of a field.
func (l *lines) value(name string) string {
	line := l.next()
	value, ok := strings.CutPrefix(line, name+": ")
	switch {
	case !ok:
		l.fail("is not the field %q", name)
	case value == "" || strings.TrimSpace(value) != value:
		l.fail("the value of %q is empty or has blanks around it", name)
	}
	return value
}

// read reads the line of a field and hands its value to parse.
func (l *lines) read(name string, parse func(string) error) {
	value := l.value(name)
	if l.err == nil {
		if err := parse(value); err != nil {
			l.fail("%s: %w", name, err)
		}
	}
}

// end reports the first failure, or that something follows the last line.
func (l *lines) end() error {
	if l.err == nil && len(l.rest) > 0 {
		l.n++
		l.fail("a line too many")
	}
	return l.err
}

// parseUint reads a decimal number from 0 to limit. That it has no sign and no
// leading zero, the second marshalling decides.
func parseUint(s string, limit uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, limit)
	}
	return n, nil
}

func parseInt(s string, limit uint64) (int, error) {
	n, err := parseUint(s, limit)
	return int(n), err
}
