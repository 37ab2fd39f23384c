package render

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/frame"
)

// Escape sequences (ECMA-48, xterm). Synchronized output makes a terminal that
// knows it show a code at once and not row by row; the others ignore it.
const (
	enter     = "\x1b[?1049h\x1b[?25l\x1b[2J"
	leave     = "\x1b[?2026l\x1b[m\x1b[?25h\x1b[?1049l"
	syncBegin = "\x1b[?2026h"
	syncEnd   = "\x1b[?2026l"
	home      = "\x1b[H"
	clear     = "\x1b[2J"
	plain     = "\x1b[m"
	rest      = "\x1b[K"
)

// The two colours, as entries of the 256-colour cube: the sixteen named colours are
// a matter of taste, and "white" is beige or black in some themes.
const (
	black = 16
	white = 231
)

// denser and sparser than what fits by itself: the densest version that is chosen
// unasked, because a camera at arm's length reads no more.
const densestUnasked = 25

// Terminal plays a bundle in a terminal. It is a machine without hands: told the
// size, the keys and when a frame is due, it returns the bytes to write. Each
// answer is one write.
//
// A terminal cell is half as wide as it is high, so a cell carries two modules,
// one above the other: always the lower half block, with the lower module as the
// foreground and the upper one as the background, both said. Full blocks and
// blanks would follow the theme of the terminal, which inverts the code on every
// second screen.
type Terminal struct {
	wire       []byte
	ask        string // how else the bundle can be shown, one a line
	rate       int
	version    int // that was asked for; 0 means what fits
	cols, rows int
	reel       *Reel
	err        error // why there is no reel at this size
	place      int   // of the code that is shown
	shown      bool  // a code was drawn
	paused     bool
	escape     int // inside a key's escape sequence: 1 behind ESC, 2 behind ESC [ or ESC O
}

// Showing is what a [Terminal] is told.
type Showing struct {
	Wire    []byte   // the bundle in its wire spelling
	Version int      // QR version, 0 for the one that fits
	Rate    int      // codes a second, 0 for DefaultRate
	Instead []string // commands that show the bundle elsewhere, for a terminal that is too small
}

// NewTerminal returns a machine that waits to be told the size of its terminal.
func NewTerminal(s Showing) *Terminal {
	t := &Terminal{wire: s.Wire, version: s.Version, rate: s.Rate, ask: strings.Join(s.Instead, "\n")}
	if t.rate == 0 {
		t.rate = DefaultRate
	}
	return t
}

// TerminalSize returns the columns and rows that a code of the version needs, the
// status line included.
func TerminalSize(version int) (cols, rows int) {
	side := Modules(version) + 2*Quiet
	return side, (side+1)/2 + 1
}

// TerminalVersion returns the largest version that fits into a terminal, or 0.
func TerminalVersion(cols, rows int) int {
	for v := 40; v >= 1; v-- {
		if c, r := TerminalSize(v); c <= cols && r <= rows {
			return v
		}
	}
	return 0
}

// Start returns what takes the terminal over.
func (t *Terminal) Start() []byte { return []byte(enter) }

// Stop returns what gives the terminal back as it was. It is right at any time.
func (t *Terminal) Stop() []byte { return []byte(leave) }

// Resize tells the size of the terminal, at the beginning and when it changes, and
// returns the bytes of the picture in that size. The codes go on at their version
// while it fits.
func (t *Terminal) Resize(cols, rows int) []byte {
	t.cols, t.rows = cols, rows
	t.choose()
	return t.draw(clear)
}

// Tick goes on to the next code. It is due every [Terminal.Interval].
func (t *Terminal) Tick() []byte {
	if t.Interval() == 0 {
		return nil
	}
	t.place++
	return t.draw("")
}

// Interval returns the time between two codes, or 0 when nothing moves.
func (t *Terminal) Interval() time.Duration {
	if t.paused || t.reel == nil {
		return 0
	}
	return time.Second / time.Duration(t.rate)
}

// Shown reports whether any code was drawn: what a terminal that was too small
// did not show has not left.
func (t *Terminal) Shown() bool { return t.shown }

// Keys takes what was typed and returns the bytes to write, if any, and whether
// the operator is done.
func (t *Terminal) Keys(typed []byte) (out []byte, done bool) {
	var changed, resized bool
	for _, key := range typed {
		switch t.key(key) {
		case quit:
			return nil, true
		case redraw:
			changed = true
		case rechoose:
			resized = true
		}
	}
	switch {
	case resized:
		return t.draw(clear), false
	case changed:
		return t.draw(""), false
	}
	return nil, false
}

type effect int

const (
	nothing effect = iota
	redraw
	rechoose
	quit
)

// key takes one byte of what was typed. An arrow key is ESC [ A to D, or ESC O A
// to D, in up to three reads.
func (t *Terminal) key(b byte) effect {
	switch {
	case t.escape == 2 && b >= 0x40 && b <= 0x7e:
		t.escape = 0
		at := strings.IndexByte("ABCD", b)
		if at < 0 {
			return nothing
		}
		b = "ds+-"[at] // up, down, right, left
	case t.escape == 2:
		return nothing
	case t.escape == 1 && (b == '[' || b == 'O'):
		t.escape = 2
		return nothing
	case b == 0x1b:
		t.escape = 1
		return nothing
	}
	t.escape = 0
	switch b {
	case 'q', 'Q', 3, 4: // Ctrl-C and Ctrl-D too: the terminal makes no signals of them now
		return quit
	case '-', '_':
		t.rate = max(MinRate, t.rate-1)
	case '+', '=':
		t.rate = min(MaxRate, t.rate+1)
	case ' ', 'p', 'P':
		t.paused = !t.paused
	case 'n', 'N', '.', '\r', '\n':
		t.paused = true
		t.place++
	case 'd', 'D':
		return t.density(1)
	case 's', 'S':
		return t.density(-1)
	default:
		return nothing
	}
	return redraw
}

// density steps to the next version up or down at which the number of codes
// changes, if it fits the terminal and carries the bundle.
func (t *Terminal) density(by int) effect {
	if t.reel == nil {
		return nothing
	}
	now := t.reel.set.Version()
	for v := now + by; v >= frame.SmallestVersion(len(t.wire)) && v <= TerminalVersion(t.cols, t.rows); v += by {
		if needed(len(t.wire), v) != needed(len(t.wire), now) {
			t.version = v
			t.choose()
			return rechoose
		}
	}
	return nothing
}

// choose makes the codes for the size of the terminal.
func (t *Terminal) choose() {
	fits := TerminalVersion(t.cols, t.rows)
	v := t.version
	if v == 0 && t.reel != nil { // other codes would be a new beginning for the reader
		v = t.reel.set.Version()
	}
	if v == 0 || v > fits {
		v = Fit(len(t.wire), min(fits, densestUnasked))
		if v == 0 {
			v = Fit(len(t.wire), fits)
		}
	}
	if t.reel != nil && t.reel.set.Version() == v {
		return
	}
	t.reel, t.place, t.err = nil, 0, nil
	if v == 0 {
		return
	}
	set, err := frame.Split(t.wire, v)
	if err != nil {
		t.err = err
		return
	}
	t.reel = NewReel(set)
}

// draw paints everything, behind what is given.
func (t *Terminal) draw(before string) []byte {
	var b strings.Builder
	b.WriteString(syncBegin + plain + before + home)
	if t.reel != nil {
		if still, err := t.reel.At(t.place); err != nil {
			t.reel, t.err = nil, err
			b.WriteString(clear)
		} else {
			t.shown = true
			t.paint(&b, still.Code)
			t.status(&b, still)
		}
	}
	if t.reel == nil {
		t.excuse(&b)
	}
	b.WriteString(syncEnd)
	return []byte(b.String())
}

// paint draws a code in the middle of the top.
func (t *Terminal) paint(b *strings.Builder, c *Code) {
	side := c.side + 2*Quiet
	left := (t.cols - side) / 2
	colour := func(x, y int) int {
		if c.Black(x-Quiet, y-Quiet) {
			return black
		}
		return white
	}
	for y := 0; y < side; y += 2 {
		fmt.Fprintf(b, "\x1b[%d;%dH", y/2+1, left+1)
		fg, bg := -1, -1
		for x := range side {
			top, bottom := colour(x, y), colour(x, y+1)
			if bottom != fg || top != bg {
				fmt.Fprintf(b, "\x1b[38;5;%d;48;5;%dm", bottom, top)
				fg, bg = bottom, top
			}
			b.WriteString("▄")
		}
		b.WriteString(plain)
	}
}

// status writes the last line.
func (t *Terminal) status(b *strings.Builder, s Still) {
	set := t.reel.set
	speed := fmt.Sprintf("%d/s", t.rate)
	if t.paused {
		speed = "paused"
	}
	_, row := TerminalSize(set.Version())
	parts := []string{
		fmt.Sprintf("code %d", s.Index), fmt.Sprintf("any %d of %d", set.K(), set.N()), speed, fmt.Sprintf("V%d", set.Version()), set.ID().String(),
		"q quit", "-/+ speed", "space pause", "n step", "d/s density",
	}
	line := parts[0]
	for _, p := range parts[1:] {
		if utf8.RuneCountInString(line)+3+len(p) > t.cols {
			break
		}
		line += " · " + p
	}
	fmt.Fprintf(b, "\x1b[%d;1H%s%s", row, line, rest)
}

// excuse says why there is no code and what to do instead.
func (t *Terminal) excuse(b *strings.Builder) {
	var text string
	smallest := frame.SmallestVersion(len(t.wire))
	switch {
	case t.err != nil:
		text = "This bundle cannot be shown here: " + t.err.Error()
	case smallest == 0:
		text = fmt.Sprintf("This bundle has %d bytes, which is too many for codes: it crosses as a file.", len(t.wire))
	default:
		cols, rows := TerminalSize(smallest)
		text = fmt.Sprintf("This terminal has %d columns and %d rows. The codes of this bundle (%d bytes) need %d and %d: enlarge it, or make its letters smaller.",
			t.cols, t.rows, len(t.wire), cols, rows)
	}
	text += "\n\nInstead:\n" + t.ask + "\n\nq quits."
	row := 1
	for par := range strings.Lines(text) {
		for _, l := range wrap(strings.TrimRight(par, "\n"), t.cols) {
			if row > t.rows || t.cols == 0 {
				return
			}
			fmt.Fprintf(b, "\x1b[%d;1H%s%s", row, l, rest)
			row++
		}
	}
}

// wrap folds a paragraph between words, and a long word anywhere.
func wrap(text string, width int) []string {
	lines := []string{""}
	for _, w := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = w
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(w) <= width:
			*last += " " + w
		default:
			lines = append(lines, w)
		}
		for r := []rune(lines[len(lines)-1]); width > 0 && len(r) > width; r = []rune(lines[len(lines)-1]) {
			lines[len(lines)-1] = string(r[:width])
			lines = append(lines, string(r[width:]))
		}
	}
	return lines
}
