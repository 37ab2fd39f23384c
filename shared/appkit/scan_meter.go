package appkit

import (
	"fmt"
	"strings"
	"time"
)

// stuck is how long nothing new may arrive before the operator is told what may
// help.
const stuck = 10 * time.Second

// meter counts what a scan sees. It is told the time and knows no clock.
type meter struct {
	Pictures int // pictures that were looked at
	Read     int // of them, with a code
	Lines    int // typed lines
	Frames   int // texts that were frames, repeated ones too
	New      int // frames that had not arrived before
	Others   int // texts that are no frame of ours
	Foreign  int // frames of bundles that --id leaves out

	first, last time.Time // of the first sight of anything, of the last new frame or hint

	// counted since last: what the hint is made from
	pictures, read, again, others int
}

func (m *meter) begin(now time.Time) {
	if m.first.IsZero() {
		m.first, m.last = now, now
	}
}

// picture notes one picture and how many codes it had.
func (m *meter) picture(codes int) {
	m.Pictures++
	m.pictures++
	if codes > 0 {
		m.Read++
		m.read++
	}
}

// frame notes a text that is a frame.
func (m *meter) frame(isNew bool, now time.Time) {
	m.Frames++
	if !isNew {
		m.again++
		return
	}
	m.New++
	m.since(now)
}

// other notes a text that is none.
func (m *meter) other() {
	m.Others++
	m.others++
}

func (m *meter) since(now time.Time) {
	m.last, m.pictures, m.read, m.again, m.others = now, 0, 0, 0, 0
}

// rate is how many new frames a second arrived, from the first sight to now.
func (m *meter) rate(now time.Time) float64 {
	if s := now.Sub(m.first).Seconds(); s > 0 && !m.first.IsZero() {
		return float64(m.New) / s
	}
	return 0
}

// decoded is the share of pictures that had a code, 0 to 1.
func (m *meter) decoded() float64 {
	if m.Pictures == 0 {
		return 0
	}
	return float64(m.Read) / float64(m.Pictures)
}

// hint returns what may help when nothing new arrived for a while, and "" else.
// It is not repeated before as long a while.
func (m *meter) hint(now time.Time) string {
	if m.first.IsZero() || now.Sub(m.last) < stuck {
		return ""
	}
	defer m.since(now)
	return m.advice()
}

// advice is what fits to what was seen since the last new frame.
func (m *meter) advice() string {
	switch {
	case m.others > 0 && m.again == 0:
		return "codes are read, but they are not of azs-courier: show the bundle with the verb show"
	case m.again > 0 && m.pictures > 0 && m.read*3 < m.pictures:
		return "only some codes are read: a slower animation, a steady hand and a brighter screen help"
	case m.again > 0:
		return "the same codes come again: let the other side's animation run on, or show the next sheet"
	case m.pictures > 0:
		return "no code is read: closer, so that it fills the picture with all of its white border; no reflection, less tilt, a brighter screen, or a less dense code"
	}
	return "nothing arrives: the scanner types into this window, or the folder gets no new picture"
}

// ranges spells numbers in ascending order as "0, 2-4, 9".
func ranges(numbers []int) string {
	var out []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		switch {
		case j == i:
			out = append(out, fmt.Sprint(numbers[i]))
		case j == i+1:
			out = append(out, fmt.Sprint(numbers[i]), fmt.Sprint(numbers[j]))
		default:
			out = append(out, fmt.Sprintf("%d-%d", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}
