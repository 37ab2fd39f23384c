// Package console is the only place that writes to a terminal.
//
// A courier program is read by three readers at once: a person at a terminal, a
// script that parses its output, and a security officer who keeps its log. The
// rules below keep the three apart. What the package promises is that text
// which came from outside (a label on a card, an error of a remote, the name of
// a file on a foreign stick) cannot move the cursor, change colours, reorder
// letters or forge a line that begins like one of the program's own; and that a
// secret typed at a prompt is neither shown nor left in a stream that somebody
// may redirect. What it does not promise: a look-alike letter stays a letter,
// and a terminal that was replaced by something else reads what is typed.
//
// # Rules
//
//   - Data goes to standard output, talk goes to standard error, prompts and
//     what is typed at them stay on the terminal itself.
//   - With --json a run prints exactly one envelope on standard output, at its
//     end: {"schema":1,"type":…}. A run that failed says so in the field "error"
//     of its result, or, when it has none, in an envelope of type "error".
//   - Foreign text is printed with %q or [Quote]. The writers here spell out
//     every control character that slips through, as the last line of defence.
//   - Colour only ever marks the words "warning", "error" and "hint"; it is
//     left out when NO_COLOR is set or the stream is no terminal.
//   - Nothing is asked with --json, or when neither standard input, output nor
//     error is a terminal: the program fails and names the flag that answers.
//   - A prompt reads the terminal, never standard input: a bundle or a scanner
//     may be on the pipe.
//   - Errors, warnings and talk are whole sentences about the thing, lower case,
//     with no full stop; a hint is a command that can be pasted.
package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Schema is the number of the JSON envelope's layout. Fields are added under the
// same number; a field that goes or changes its meaning takes the next one.
const Schema = 1

// Options say how a run talks.
type Options struct {
	Program  string          // name before every warning, error and hint
	Command  string          // program and verb as typed, for hints; empty means Program
	JSON     bool            // envelopes on standard output, and no prompts
	Quiet    bool            // no talk; warnings and errors stay
	Color    string          // "auto" (or ""), "always" or "never"
	NoPrompt bool            // never ask, even on a terminal
	Stop     <-chan struct{} // closed when the program shall end; a waiting prompt then gives up
}

// Console writes what a run has to say. It may be used by several goroutines.
type Console struct {
	opt       Options
	stdin     io.Reader
	out, err  screen
	prompting bool // one of the streams is a terminal

	mu        sync.Mutex
	transient bool   // a progress line stands unfinished on err
	failed    error  // first failure to write to standard output
	result    []byte // with --json, the envelope that End prints
}

// screen is an output stream and what it can show.
type screen struct {
	w        io.Writer
	terminal bool
	color    bool
	width    int
}

// New makes a console over the three standard streams. A stream counts as a
// terminal only when it is an *os.File that is one.
func New(stdin io.Reader, stdout, stderr io.Writer, opt Options) *Console {
	if opt.Command == "" {
		opt.Command = opt.Program
	}
	c := &Console{opt: opt, stdin: stdin, out: newScreen(stdout, opt.Color), err: newScreen(stderr, opt.Color)}
	in, _ := stdin.(*os.File)
	c.prompting = c.out.terminal || c.err.terminal || in != nil && term.IsTerminal(int(in.Fd()))
	return c
}

func newScreen(w io.Writer, color string) screen {
	s := screen{w: w, width: 80}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal = true
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			s.width = width
		}
		s.color = os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == "" && enableEscapes(f)
	}
	switch color {
	case "always":
		s.color = true
	case "never":
		s.color = false
	}
	return s
}

// JSON reports whether the run prints envelopes.
func (c *Console) JSON() bool { return c.opt.JSON }

// Stdin returns standard input, which carries data and never an answer to a
// prompt.
func (c *Console) Stdin() io.Reader { return c.stdin }

// Result tells the outcome of a verb on standard output, as what text writes.
// With --json it is kept for [Console.End] instead, as an envelope of the type with
// the fields of v; there is one in a run. v marshals to an object without the
// fields "schema", "type" and "error", or is nil.
func (c *Console) Result(typ string, v any, text func(w io.Writer)) {
	if c.opt.JSON {
		line, err := envelope(typ, v)
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err != nil:
			c.fail(err)
		case c.result != nil:
			c.fail(fault.New(fault.Unexpected, "a run has a second result, of type %q", typ))
		default:
			c.result = line
		}
		return
	}
	if text == nil {
		return
	}
	var b bytes.Buffer
	text(&b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data([]byte(Clean(b.String())))
}

// Data writes bytes to standard output unchanged: a bundle, a key file, a QR
// code. Text that a person shall read goes through [Console.Result]. With --json
// there is no room for them, and the run fails.
func (c *Console) Data(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opt.JSON {
		c.fail(fault.New(fault.Unexpected, "%d bytes that are no envelope were to be written to standard output", len(b)))
		return
	}
	c.data(b)
}

// Say tells the operator what happens: one line on standard error, left out
// with --quiet.
func (c *Console) Say(format string, args ...any) {
	if !c.opt.Quiet {
		c.talk("%s", Clean(fmt.Sprintf(format, args...)))
	}
}

// Call tells the operator what to do now, without which the run does not go on: as
// [Console.Say], and with --quiet too.
func (c *Console) Call(format string, args ...any) {
	c.talk("%s", Clean(fmt.Sprintf(format, args...)))
}

// Step tells the operator that step n of total begins: one line on standard
// error that stays, on a terminal as in a log. Without a total (0) the number
// stands alone.
func (c *Console) Step(n, total int, format string, args ...any) {
	of := ""
	if total > 0 {
		of = "/" + strconv.Itoa(total)
	}
	c.Say("[%d%s] %s", n, of, fmt.Sprintf(format, args...))
}

// Progress shows where a long step stands, on a line that the next line of any
// kind replaces. It is shown on a terminal only: a log keeps the steps.
func (c *Console) Progress(format string, args ...any) {
	if c.opt.Quiet || !c.err.terminal {
		return
	}
	line := strings.ReplaceAll(Clean(fmt.Sprintf(format, args...)), "\n", " ")
	if runes := []rune(line); len(runes) >= c.err.width {
		line = string(runes[:c.err.width-1])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	_, _ = io.WriteString(c.err.w, line)
	c.transient = true
}

// Warn tells the operator that something is odd although the run goes on. It is
// shown with --quiet too.
func (c *Console) Warn(format string, args ...any) {
	c.marked("warning", yellow, fmt.Sprintf(format, args...))
}

// End ends what a run has to say and returns how it went: err, or a failure to
// write standard output, because a program whose output was lost must not exit 0.
// The failure is printed on standard error with its hint. With --json the result
// goes out now, and tells a failure in its field "error"; a failure without a result
// has an envelope of its own:
//
//	{"schema":1,"type":"doctor","checks":[…],"error":{"kind":"locked","exit":8,"message":"…"}}
//	{"schema":1,"type":"error","kind":"replay","exit":5,"message":"…","hint":"…"}
func (c *Console) End(err error) error {
	c.mu.Lock()
	if err == nil {
		err = c.failed
	}
	line := c.result
	if c.opt.JSON && err != nil {
		line = failure{fault.KindOf(err).String(), fault.ExitCode(err), err.Error(), fault.HintOf(err)}.in(line)
	}
	if line != nil {
		c.data(append(line, '\n'))
	}
	if err == nil {
		err = c.failed
	}
	c.mu.Unlock()
	if err != nil {
		c.marked("error", red, err.Error())
		if hint := fault.HintOf(err); hint != "" {
			c.marked("hint", cyan, hint)
		}
	}
	return err
}

// failure is what an envelope tells of one.
type failure struct {
	Kind    string `json:"kind"`
	Exit    int    `json:"exit"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// in returns the envelope that tells the failure: result, or one of its own.
func (f failure) in(result []byte) []byte {
	text, _ := spell(f) // three texts and a number always have a spelling
	if result == nil {
		return fmt.Appendf(nil, `{"schema":%d,"type":"error",%s`, Schema, text[1:])
	}
	return fmt.Appendf(nil, `%s,"error":%s}`, bytes.TrimSuffix(result, []byte("}")), text)
}

// Colours of the marks, as SGR codes (ECMA-48).
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	plain  = "\x1b[m"
)

// marked writes "program: mark: text". A second line of the text is indented,
// so that foreign text cannot begin a line that looks like another mark.
func (c *Console) marked(mark, color, text string) {
	text = strings.ReplaceAll(strings.TrimRight(Clean(text), "\n"), "\n", "\n    ")
	if c.err.color {
		mark = color + mark + plain
	}
	c.talk("%s: %s: %s", c.opt.Program, mark, text)
}

// talk writes one clean line to standard error.
func (c *Console) talk(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	_, _ = io.WriteString(c.err.w, strings.TrimSuffix(line, "\n")+"\n")
}

// settle takes the progress line away; c.mu is held.
func (c *Console) settle() {
	if !c.transient {
		return
	}
	c.transient = false
	if c.err.color {
		_, _ = io.WriteString(c.err.w, "\r\x1b[K")
		return
	}
	_, _ = io.WriteString(c.err.w, "\r"+strings.Repeat(" ", c.err.width-1)+"\r")
}

// data writes to standard output; c.mu is held.
func (c *Console) data(b []byte) {
	c.settle()
	if _, err := c.out.w.Write(b); err != nil {
		c.fail(fault.New(fault.Medium, "standard output could not be written: %w", err))
	}
}

func (c *Console) fail(err error) {
	if c.failed == nil {
		c.failed = err
	}
}

// envelope spells v behind schema and type, on one line without its end.
func envelope(typ string, v any) ([]byte, error) {
	if v == nil {
		v = struct{}{}
	}
	fields, err := spell(v)
	if err != nil {
		return nil, fault.New(fault.Unexpected, "result %q cannot be spelt as JSON: %w", typ, err)
	}
	var names map[string]json.RawMessage
	if err := json.Unmarshal(fields, &names); err != nil || names == nil {
		return nil, fault.New(fault.Unexpected, "result %q is %T, which is no JSON object", typ, v)
	}
	for _, name := range []string{"schema", "type", "error"} {
		if _, ok := names[name]; ok {
			return nil, fault.New(fault.Unexpected, "result %q has a field %q of its own", typ, name)
		}
	}
	name, err := spell(typ)
	if err != nil {
		return nil, fault.New(fault.Unexpected, "result %q cannot be spelt as JSON: %w", typ, err)
	}
	if len(names) > 0 {
		name = append(name, ',')
	}
	return fmt.Appendf(nil, `{"schema":%d,"type":%s%s`, Schema, name, fields[1:]), nil
}

// spell spells v as JSON on one line without its end.
func spell(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return escapeJSON(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), err
}

// escapeJSON spells every character that [Clean] would spell out as \uXXXX.
// Outside ASCII a JSON text has characters only inside its strings, where the
// escape means the same character (RFC 8259, section 7).
func escapeJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case graphic(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
