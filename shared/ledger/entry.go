package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/clock"
)

const (
	maxLine  = 64 << 10 // bytes of a line with its line feed
	maxValue = 4 << 10  // bytes of a value in an entry's data
	maxName  = 64       // bytes of an event, a trip's id or a key
)

// noDigest stands in the first line for the line before.
var noDigest = strings.Repeat("0", 64)

// Entry is a line of the journal:
//
//	{"n":2,"time":"2026-11-23T06:24:00Z","prev":"9f…","event":"paired","trip":"","data":{"label":"relay"}}
//
// with the fields in this order, the keys of data sorted, no blanks, and a line
// feed. <, > and & stand as themselves.
type Entry struct {
	N     uint64            // the number of the line, from 1
	Time  time.Time         // whole seconds, UTC, by the side's own clock
	Prev  string            // SHA-256 of the line before with its line feed, hex; 64 zeros in line 1
	Event string            // a state or a note, see the tables
	Trip  string            // the id of the request's bundle, or ""
	Data  map[string]string // never nil when read from a journal
}

// spelling is an entry as encoding/json writes it.
type spelling struct {
	N     uint64            `json:"n"`
	Time  string            `json:"time"`
	Prev  string            `json:"prev"`
	Event string            `json:"event"`
	Trip  string            `json:"trip"`
	Data  map[string]string `json:"data"`
}

// Line returns the bytes of the entry in the journal, with the line feed.
func (e Entry) Line() []byte {
	data := e.Data
	if data == nil {
		data = map[string]string{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(spelling{e.N, clock.Format(e.Time), e.Prev, e.Event, e.Trip, data}); err != nil {
		panic(err) // a number, strings and a map of strings into memory
	}
	return b.Bytes()
}

// parse reads a line with its line feed. What it accepts, [Entry.Line] spells
// with the same bytes. Its errors never hold a value of the data.
func parse(line []byte) (Entry, error) {
	if len(line) > maxLine {
		return Entry{}, fmt.Errorf("it has %d bytes, at most %d are allowed", len(line), maxLine)
	}
	var s spelling
	if err := json.Unmarshal(line, &s); err != nil {
		return Entry{}, fmt.Errorf("it is not an entry: %w", err)
	}
	t, err := clock.Parse(s.Time)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{s.N, t, s.Prev, s.Event, s.Trip, s.Data}
	if !bytes.Equal(e.Line(), line) {
		return Entry{}, fmt.Errorf("it is not spelt as an entry: a field is unknown, missing, repeated, out of order or written in another way")
	}
	return e, e.shape()
}

// shape checks lengths and characters.
func (e Entry) shape() error {
	switch {
	case !isDigest(e.Prev):
		return fmt.Errorf("prev %q is not a digest of 64 hex digits", e.Prev)
	case !isName(e.Event, isKeyByte):
		return fmt.Errorf("the event %q is not of 1 to %d characters a-z, 0-9 and hyphen", e.Event, maxName)
	case e.Trip != "" && !isName(e.Trip, isTripByte):
		return fmt.Errorf("the trip %q is not of 1 to %d letters, digits and hyphens", e.Trip, maxName)
	}
	for key, value := range e.Data {
		switch {
		case !isName(key, isKeyByte):
			return fmt.Errorf("the data key %q is not of 1 to %d characters a-z, 0-9 and hyphen", key, maxName)
		case len(value) > maxValue:
			return fmt.Errorf("the data value of %q has %d bytes, at most %d are allowed", key, len(value), maxValue)
		case !utf8.ValidString(value):
			return fmt.Errorf("the data value of %q is not UTF-8", key)
		case strings.ContainsFunc(value, unicode.IsControl):
			return fmt.Errorf("the data value of %q holds a control character", key)
		}
	}
	return nil
}

// Clean makes a foreign sentence fit for a value: control characters and bytes
// that are not UTF-8 become blanks or U+FFFD, and what is longer than 4 KiB is
// cut.
func Clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) <= maxValue {
		return text
	}
	cut := maxValue
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

func isName(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func isKeyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}

func isTripByte(c byte) bool { return isKeyByte(c) || 'A' <= c && c <= 'Z' }

func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
