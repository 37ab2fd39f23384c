package ledger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// journalOfSix makes a closed folder with a journal of six lines.
func journalOfSix(t testing.TB) (dir string, lines [][]byte) {
	t.Helper()
	l, dir := newLedger(t, Agent)
	mustAppend(t, l, "paired", "", map[string]string{"label": "relay", "pair": "P"})
	mustAppend(t, l, Requested, "TRIP1", map[string]string{"digest": digestA, "pair": "P", "seq-out": "1"})
	mustAppend(t, l, Exported, "TRIP1", nil)
	mustAppend(t, l, Requested, "TRIP2", map[string]string{"digest": digestB, "pair": "P", "seq-out": "2"})
	mustAppend(t, l, Admitted, "TRIP1", map[string]string{"pair": "P", "seq-in": "1"})
	mustClose(t, l)
	return dir, bytes.SplitAfter(readJournalFile(t, dir), []byte("\n"))[:6]
}

func join(lines ...[]byte) []byte { return bytes.Join(lines, nil) }

// Threat: the journal is edited to hide or invent a trip.
func TestAnEditedJournalIsRefused(t *testing.T) {
	dir, l := journalOfSix(t)
	_, foreign := journalOfSix(t)
	alien, _ := newLedger(t, Agent)
	mustAppend(t, alien, "keys", "", nil)
	alienLine := mustAppend(t, alien, "card", "", nil).Line()

	edited := bytes.Replace(l[2], []byte(`"seq-out":"1"`), []byte(`"seq-out":"9"`), 1)
	respelt := bytes.Replace(l[2], []byte(`"n":3`), []byte(`"n": 3`), 1)
	reordered := bytes.Replace(l[1], []byte(`"label":"relay","pair":"P"`), []byte(`"pair":"P","label":"relay"`), 1)
	unknown := bytes.Replace(l[2], []byte(`"trip":`), []byte(`"x":1,"trip":`), 1)
	doubled := bytes.Replace(l[2], []byte(`"n":3`), []byte(`"n":3,"n":3`), 1)
	null := bytes.Replace(l[3], []byte(`{}}`), []byte(`null}`), 1)
	capital := bytes.Replace(l[2], []byte(`"event"`), []byte(`"Event"`), 1)
	escaped := bytes.Replace(l[2], []byte(`TRIP1`), []byte(`TRIP\u0031`), 1)

	tests := []struct {
		name    string
		journal []byte
		line    int
		texts   []string
	}{
		{"edit", join(l[0], l[1], edited, l[3], l[4], l[5]), 4, []string{digest(l[2]), digest(edited)}},
		{"delete", join(l[0], l[1], l[3], l[4], l[5]), 3, []string{digest(l[1]), digest(l[2])}},
		{"insert a copy", join(l[0], l[1], l[2], l[2], l[3], l[4], l[5]), 4, []string{digest(l[1]), digest(l[2])}},
		{"swap", join(l[0], l[1], l[3], l[2], l[4], l[5]), 3, []string{digest(l[1]), digest(l[2])}},
		{"cut inside a line", join(l[0], l[1], l[2][:40], l[3], l[4], l[5]), 3, []string{"not an entry"}},
		{"cut the end of a line", join(l[0], l[1], l[2][:40], []byte("\n"), l[3]), 3, []string{"not an entry"}},
		{"cut off the first line", join(l[1], l[2]), 1, []string{digest(l[0]), "there is none"}},
		{"append a line of another journal", join(l[0], l[1], alienLine), 3, []string{digest(l[1]), "the chain is broken"}},
		{"append a whole journal", join(join(l...), join(foreign...)), 7, []string{noDigest, digest(l[5])}},
		{"an empty line", join(l[0], []byte("\n"), l[1]), 2, []string{"not an entry"}},
		{"an empty line at the end", join(join(l...), []byte("\n")), 7, []string{"not an entry"}},
		{"carriage returns", bytes.ReplaceAll(join(l...), []byte("\n"), []byte("\r\n")), 1, []string{"not spelt"}},
		{"a blank", join(l[0], l[1], respelt, l[3]), 3, []string{"not spelt"}},
		{"keys out of order", join(l[0], reordered), 2, []string{"not spelt"}},
		{"an unknown field", join(l[0], l[1], unknown), 3, []string{"not spelt"}},
		{"a field twice", join(l[0], l[1], doubled), 3, []string{"not spelt"}},
		{"a field with a capital", join(l[0], l[1], capital), 3, []string{"not spelt"}},
		{"an escape that is not needed", join(l[0], l[1], escaped), 3, []string{"not spelt"}},
		{"null for no data", join(l[0], l[1], l[2], null), 4, []string{"not spelt"}},
		{"empty", nil, 1, []string{"missing"}},
		{"a torn first line only", l[0][:len(l[0])-1], 1, []string{"missing"}},
		{"a line too long", join(l[0], bytes.Repeat([]byte("x"), maxLine), []byte("\n")), 2, []string{"65537"}},
		{"a torn line too long", join(l[0], bytes.Repeat([]byte("x"), maxLine+1)), 2, []string{"65537"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			writeJournalFile(t, dir, tt.journal)
			before := snapshot(t, dir)
			_, err := open(dir, Agent, clock.Fixed(noon), 0)
			wantKind(t, err, fault.Refused, append(tt.texts, fmt.Sprintf("line %d: ", tt.line), journalFile)...)
			if got := fault.HintOf(err); got != "azs-agent log" {
				t.Errorf("hint %q", got)
			}
			_, err = View(dir, Agent, clock.Fixed(noon))
			wantKind(t, err, fault.Refused, fmt.Sprintf("line %d: ", tt.line))
			report, err := Check(dir, Agent)
			if err != nil {
				t.Fatal(err)
			}
			wantKind(t, report.Damage, fault.Refused, fmt.Sprintf("line %d: ", tt.line))
			if len(report.Entries) != tt.line-1 {
				t.Errorf("the report has %d entries, want %d", len(report.Entries), tt.line-1)
			}
			if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
				t.Errorf("the folder changed (-before +after):\n%s", diff)
			}
		})
	}
}

// forge makes lines with a right chain, as somebody with the file and a hash
// program can.
func forge(entries ...Entry) []byte {
	var journal []byte
	prev := noDigest
	for i, e := range entries {
		if e.N == 0 {
			e.N = uint64(i) + 1
		}
		e.Time, e.Prev = noon, prev
		journal = append(journal, e.Line()...)
		prev = digest(e.Line())
	}
	return journal
}

// A right chain does not make a right journal: each line is also held against
// the tables.
func TestARightChainOfWrongEvents(t *testing.T) {
	first := Entry{Event: eventInit, Data: map[string]string{"role": "agent"}}
	for _, tt := range []struct {
		name    string
		journal []byte
		line    int
		text    string
	}{
		{"no init", forge(Entry{Event: "paired"}), 1, `"paired", not "init"`},
		{"init without a role", forge(Entry{Event: eventInit}), 1, `the role ""`},
		{"init twice", forge(first, first), 2, "line 1 only"},
		{"an unknown event", forge(first, Entry{Event: "teleported"}), 2, "teleported"},
		{"a state backward", forge(first, Entry{Event: Requested, Trip: "T"}, Entry{Event: Admitted, Trip: "T"},
			Entry{Event: Requested, Trip: "T"}), 4, "already requested"},
		{"a wrong number", forge(first, Entry{N: 3, Event: "put"}), 2, "has the number 3"},
		{"a control character", forge(first, Entry{Event: "put", Data: map[string]string{"x": "\x1b"}}), 2, "control character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(tt.journal)
			wantKind(t, err, fault.Refused, fmt.Sprintf("line %d: ", tt.line), tt.text)
		})
	}
}

// Threat: a byte is changed. The digest in the next line covers every byte, so
// only a change in the newest line can go unseen (see the package comment).
func TestEveryFlippedByteBeforeTheLastLine(t *testing.T) {
	_, l := journalOfSix(t)
	journal := join(l...)
	covered := len(journal) - len(l[5])
	for i := range covered {
		for _, mask := range []byte{0x01, 0x20, 0x80} {
			bad := bytes.Clone(journal)
			bad[i] ^= mask
			if _, _, err := load(bad); fault.KindOf(err) != fault.Refused {
				t.Fatalf("byte %d ^ %#x: %v", i, mask, err)
			}
		}
	}
}

func TestCheckOfAGoodJournal(t *testing.T) {
	dir, l := journalOfSix(t)
	writeJournalFile(t, dir, join(join(l...), []byte("half")))
	report, err := Check(dir, Agent)
	if err != nil {
		t.Fatal(err)
	}
	if report.Damage != nil || len(report.Entries) != 6 || report.Head != digest(l[5]) || report.Torn != 4 || report.Role != Agent {
		t.Errorf("report %+v", report)
	}
}

// Threat: power fails while a line is written. Whatever part of it arrived, the
// lines before are there and the part is kept.
func TestTheLastLineTornAtEveryByte(t *testing.T) {
	dir, l := journalOfSix(t)
	whole := join(l[:5]...)
	for cut := 1; cut < len(l[5]); cut++ {
		torn := l[5][:cut]
		writeJournalFile(t, dir, join(whole, torn))
		os.Remove(filepath.Join(dir, tornFile))

		led := mustOpen(t, dir, Agent)
		entries := led.Entries()
		if len(entries) != 6 || !bytes.HasPrefix(readJournalFile(t, dir), whole) {
			t.Fatalf("cut at %d: %d entries", cut, len(entries))
		}
		want := map[string]string{"bytes": strconv.Itoa(cut), "file": "journal.torn", "sha256": digest(torn)}
		if diff := cmp.Diff(want, entries[5].Data); entries[5].Event != eventRepaired || diff != "" {
			t.Fatalf("cut at %d: event %s, data differ (-want +got):\n%s", cut, entries[5].Event, diff)
		}
		if got, err := os.ReadFile(filepath.Join(dir, tornFile)); err != nil || string(got) != string(torn)+"\n" {
			t.Fatalf("cut at %d: journal.torn has %q, %v", cut, got, err)
		}
		mustAppend(t, led, Admitted, "TRIP1", nil)
		mustClose(t, led)
		again := mustOpen(t, dir, Agent)
		if n := len(again.Entries()); n != 7 {
			t.Fatalf("cut at %d: %d entries at the next opening, want 7", cut, n)
		}
		mustClose(t, again)
	}
}

func TestTornTwiceKeepsBothPieces(t *testing.T) {
	l, dir := newLedger(t, Agent)
	mustClose(t, l)
	for _, piece := range []string{"first", "second", "ond"} {
		writeJournalFile(t, dir, append(readJournalFile(t, dir), piece...))
		mustClose(t, mustOpen(t, dir, Agent))
	}
	got, err := os.ReadFile(filepath.Join(dir, tornFile))
	if err != nil || string(got) != "first\nsecond\nond\n" {
		t.Errorf("journal.torn has %q, %v", got, err)
	}
}

// FuzzJournal: what is accepted, re-encodes to the same bytes. Run it with
// -fuzzminimizetime=10x: by default the minute that Go may spend on shortening
// one input of many lines takes a short run's whole time, and nothing is tried.
func FuzzJournal(f *testing.F) {
	_, l := journalOfSix(f)
	f.Add(join(l...))
	f.Add(join(l[:3]...))
	f.Add(join(l[0], l[1][:30]))
	f.Add(forge(Entry{Event: eventInit, Data: map[string]string{"role": "relay", "label": "ü\u2028<>&\"\\"}},
		Entry{Event: Seen, Trip: "T", Data: map[string]string{"digest": digestA, "pair": "P", "seq-in": "1"}},
		Entry{Event: Admitted, Trip: "T"}, Entry{Event: "failed", Trip: "T", Data: map[string]string{"error": "no"}}))
	f.Add([]byte(strings.Repeat("{}\n", 3)))
	f.Fuzz(func(t *testing.T, journal []byte) {
		fold, torn, err := load(journal)
		var again []byte
		for _, e := range fold.entries {
			again = append(again, e.Line()...)
		}
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("kind %v: %v", fault.KindOf(err), err)
			}
			if !bytes.HasPrefix(journal, again) {
				t.Error("the lines before the damage re-encode to other bytes")
			}
			return
		}
		if !bytes.Equal(append(again, torn...), journal) {
			t.Errorf("re-encodes to other bytes:\n%q\n%q", journal, again)
		}
		if len(again) == 0 || fold.head != digest(again[bytes.LastIndexByte(again[:len(again)-1], '\n')+1:]) {
			t.Errorf("the head %s is not that of the last line", fold.head)
		}
	})
}

// FuzzLine: a line alone, without the chain that stops most changes.
func FuzzLine(f *testing.F) {
	_, l := journalOfSix(f)
	for _, line := range l {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parse(line)
		if err == nil && !bytes.Equal(e.Line(), line) {
			t.Errorf("re-encodes to other bytes:\n%q\n%q", line, e.Line())
		}
	})
}

// FuzzAppend: what can be appended, can be opened again. Otherwise one odd name
// in one line would shut a side out of its own journal.
func FuzzAppend(f *testing.F) {
	f.Add("put", "T", "label", "a<b>&\u2028")
	f.Add(Admitted, "T", "seq-in", "9")
	f.Add(Seen, "U", "digest", digestB)
	f.Add("paired", "", "pair", "\xff")
	f.Fuzz(func(t *testing.T, event, trip, key, value string) {
		journal := forge(Entry{Event: eventInit, Data: map[string]string{"role": "relay"}},
			Entry{Event: Seen, Trip: "T", Data: map[string]string{"digest": digestA}})
		fold, _, err := load(journal)
		if err != nil {
			t.Fatal(err)
		}
		data := map[string]string{"pair": "P"}
		data[key] = value
		e, line, err := fold.next(noon, event, trip, data)
		if err != nil {
			return
		}
		fold.add(e, line)
		again, torn, err := load(append(journal, line...))
		if err != nil || len(torn) > 0 || again.head != fold.head {
			t.Fatalf("appended and not opened: %v, %d bytes torn\n%q", err, len(torn), line)
		}
		if got := again.entries[2].Data[key]; got != value {
			t.Errorf("%q came back as %q", value, got)
		}
	})
}
