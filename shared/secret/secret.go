// Package secret holds values that must never be printed.
//
// A [Text] passes through format verbs, loggers and encoders as "[redacted]";
// only [Text.Reveal] gives the value, so that every place which uses a secret
// can be found by that one word.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a secret string: a passphrase, a client secret, a registration token,
// an activation key. Its zero value is the empty secret.
type Text struct{ value string }

// New wraps a value.
func New(value string) Text { return Text{value} }

// Reveal returns the value itself.
func (t Text) Reveal() string { return t.value }

// Empty reports whether there is no value.
func (t Text) Empty() bool { return t.value == "" }

// Len returns the length of the value in bytes, which may be told.
func (t Text) Len() int { return len(t.value) }

// String returns "[redacted]".
func (t Text) String() string { return redacted }

// GoString returns "[redacted]" for %#v.
func (t Text) GoString() string { return redacted }

// Format writes "[redacted]" for every verb and flag.
func (t Text) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns "[redacted]" for log/slog.
func (t Text) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]" for JSON, XML and every other text encoder.
func (t Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }
