package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// steps is a clock that moves on by a second each time it is asked.
type steps struct{ at time.Time }

func (s *steps) Now() time.Time {
	s.at = s.at.Add(time.Second)
	return s.at
}

func newLedger(t testing.TB, role Role) (*Ledger, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "home")
	l, err := Create(dir, role, &steps{noon})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, dir
}

func mustAppend(t testing.TB, l *Ledger, event, trip string, data map[string]string) Entry {
	t.Helper()
	e, err := l.Append(event, trip, data)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustOpen(t testing.TB, dir string, role Role) *Ledger {
	t.Helper()
	l, err := open(dir, role, clock.Fixed(noon), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustClose(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func readJournalFile(t testing.TB, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeJournalFile(t testing.TB, dir string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, journalFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind fault.Kind, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v with %q", kind, texts)
	}
	if fault.KindOf(err) != kind {
		t.Errorf("kind %v, want %v: %v", fault.KindOf(err), kind, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

// snapshot returns name → bytes of every file below dir but the lock.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == lockFile {
			return err
		}
		data, err := os.ReadFile(path)
		files[filepath.ToSlash(strings.TrimPrefix(path, dir))] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var (
	digestA = digest([]byte("a"))
	digestB = digest([]byte("b"))
)

func TestATripFromTheFirstLineToTheLast(t *testing.T) {
	l, dir := newLedger(t, Agent)
	mustAppend(t, l, "paired", "", map[string]string{"label": "relay & <co>"})
	mustAppend(t, l, Requested, "TRIP1", map[string]string{"digest": digestA, "pair": "P", "seq-out": "7", "note": "old"})
	mustAppend(t, l, Requested, "TRIP2", map[string]string{"digest": digestB, "pair": "P", "seq-out": "8"})
	mustAppend(t, l, Exported, "TRIP1", nil)
	mustAppend(t, l, "put", "TRIP1", map[string]string{"note": "new"})
	mustAppend(t, l, Admitted, "TRIP1", map[string]string{"pair": "P", "seq-in": "3"})
	last := mustAppend(t, l, Cancelled, "TRIP2", nil)
	mustClose(t, l)

	l = mustOpen(t, dir, Agent)
	var got []string
	for _, trip := range l.Trips() {
		got = append(got, fmt.Sprintf("%s %s %s %d", trip.ID, trip.State, trip.Data["note"], len(trip.Entries)))
	}
	if diff := cmp.Diff([]string{"TRIP1 admitted new 4", "TRIP2 cancelled  2"}, got); diff != "" {
		t.Errorf("trips differ (-want +got):\n%s", diff)
	}
	trip, ok := l.FindByDigest(digestA)
	if !ok || trip.ID != "TRIP1" {
		t.Errorf("found %v, %v for the digest of TRIP1", trip.ID, ok)
	}
	if _, ok := l.FindByDigest(digest([]byte("c"))); ok {
		t.Error("a digest that is in no trip was found")
	}
	if _, ok := l.Trip("TRIP3"); ok {
		t.Error("a trip that is not there was found")
	}
	if want := noon.Add(3 * time.Second); !trip.Started.Equal(want) {
		t.Errorf("started %v, want %v", trip.Started, want)
	}
	if want := noon.Add(7 * time.Second); !trip.Updated.Equal(want) {
		t.Errorf("updated %v, want %v", trip.Updated, want)
	}
	if got := l.NextSeq("P"); got != 9 {
		t.Errorf("next seq %d, want 9", got)
	}
	if got := l.NextSeq("Q"); got != 1 {
		t.Errorf("next seq of a new pair %d, want 1", got)
	}
	if in, other := l.LastSeqIn("P"), l.LastSeqIn("Q"); in != 3 || other != 0 {
		t.Errorf("last seq in %d and %d, want 3 and 0", in, other)
	}
	if l.Head() != digest(last.Line()) || !l.LastTime().Equal(last.Time) {
		t.Errorf("head %s at %v, want that of the last entry", l.Head(), l.LastTime())
	}
	if diff := cmp.Diff(last, l.Entries()[7]); diff != "" {
		t.Errorf("the last entry differs (-want +got):\n%s", diff)
	}
}

// Threat: an old bundle is written to a stick again, with its old number; the
// next one must not get a number that was given before.
func TestTheHighestSequenceNumberCounts(t *testing.T) {
	l, dir := newLedger(t, Agent)
	for _, seq := range []string{"3", "10", "9"} {
		mustAppend(t, l, "put", "", map[string]string{"pair": "P", "seq-out": seq, "seq-in": seq})
	}
	mustAppend(t, l, "put", "", map[string]string{"pair": "Q", "seq-out": "70", "seq-in": "70"})
	mustClose(t, l)
	for name, l := range map[string]*Ledger{"before": l, "opened again": mustOpen(t, dir, Agent)} {
		if next, in := l.NextSeq("P"), l.LastSeqIn("P"); next != 11 || in != 10 {
			t.Errorf("%s: next seq %d and last seq in %d, want 11 and 10", name, next, in)
		}
	}
}

// The bytes are a format: they are compared as they are, not through our own
// reader.
func TestTheSpellingOfALine(t *testing.T) {
	l, dir := newLedger(t, Relay)
	mustAppend(t, l, "paired", "", map[string]string{"label": "a<b>&\"ü", "fingerprint": "SHA256:x/+="})
	first := `{"n":1,"time":"2026-11-23T12:00:01Z","prev":"0000000000000000000000000000000000000000000000000000000000000000","event":"init","trip":"","data":{"role":"relay"}}` + "\n"
	want := first + `{"n":2,"time":"2026-11-23T12:00:02Z","prev":"` + digest([]byte(first)) +
		`","event":"paired","trip":"","data":{"fingerprint":"SHA256:x/+=","label":"a<b>&\"ü"}}` + "\n"
	if diff := cmp.Diff(want, string(readJournalFile(t, dir))); diff != "" {
		t.Errorf("journal differs (-want +got):\n%s", diff)
	}
}

// The package comment promises that sed and sha256sum check the chain.
func TestTheChainByHand(t *testing.T) {
	if _, err := exec.LookPath("sha256sum"); err != nil {
		t.Skipf("no sha256sum here: %v", err)
	}
	l, dir := newLedger(t, Agent)
	e := mustAppend(t, l, "keys", "", nil)
	cmd := exec.Command("sh", "-c", "sed -n 1p journal.jsonl | sha256sum; tail -n 1 journal.jsonl | sha256sum")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := string(out), fmt.Sprintf("%s  -\n%s  -\n", e.Prev, l.Head()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestCreate(t *testing.T) {
	l, dir := newLedger(t, Agent)
	mustClose(t, l)
	before := snapshot(t, dir)
	_, err := Create(dir, Agent, clock.Fixed(noon))
	wantKind(t, err, fault.Usage, "has a journal already")
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("errors.Is(%v, fs.ErrExist) is false", err)
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("the folder changed (-before +after):\n%s", diff)
	}
	if _, err := Create(filepath.Join(t.TempDir(), "x"), "kiosk", clock.Fixed(noon)); fault.KindOf(err) != fault.Unexpected {
		t.Errorf("a role that is not known: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, journalFile: 0o600, bundlesDir: 0o700, lockFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has the mode %v, want %v", name, got, want)
		}
	}
}

func TestNoState(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "missing")} {
		for name, try := range map[string]func() error{
			"open":  func() error { _, err := Open(dir, Relay, clock.Fixed(noon)); return err },
			"view":  func() error { _, err := View(dir, Relay, clock.Fixed(noon)); return err },
			"check": func() error { _, err := Check(dir, Relay); return err },
		} {
			err := try()
			wantKind(t, err, fault.Locked, dir, "was not made yet")
			if got := fault.HintOf(err); got != "azs-relay init" {
				t.Errorf("%s: hint %q", name, got)
			}
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) != 0 {
		t.Errorf("the empty folder has %v, %v now", entries, err)
	}
}

func TestTheOtherSidesFolder(t *testing.T) {
	l, dir := newLedger(t, Agent)
	mustClose(t, l)
	_, err := Open(dir, Relay, clock.Fixed(noon))
	wantKind(t, err, fault.NotForUs, dir, "azs-agent", "azs-relay")
	_, err = View(dir, Relay, clock.Fixed(noon))
	wantKind(t, err, fault.NotForUs)
	mustOpen(t, dir, Agent) // the lock was given back
}

func TestTheJournalIsNotARegularFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, journalFile), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := open(dir, Agent, clock.Fixed(noon), 0)
	wantKind(t, err, fault.Medium, "not a regular file")
}

// Every pair of states, each way: what is not in the list is refused.
func TestTransitions(t *testing.T) {
	allowed := map[Role]string{
		Agent: `- requested, requested exported, exported exported, requested admitted, exported admitted,
			admitted opened, opened applied, applied confirmed,
			requested cancelled, exported cancelled, admitted cancelled,
			requested superseded, exported superseded, admitted superseded`,
		Relay: `- seen, seen admitted, admitted registered, registered answered, answered answered, answered closed,
			admitted removed, removed registered, removed answered, removed closed, - moving, moving closed`,
	}
	ways := map[Role]map[string][]string{
		Agent: {
			"-": {}, Requested: {Requested}, Exported: {Requested, Exported}, Admitted: {Requested, Admitted},
			Opened: {Requested, Admitted, Opened}, Applied: {Requested, Admitted, Opened, Applied},
			Confirmed: {Requested, Admitted, Opened, Applied, Confirmed},
			Cancelled: {Requested, Cancelled}, Superseded: {Requested, Superseded},
		},
		Relay: {
			"-": {}, Seen: {Seen}, Admitted: {Seen, Admitted}, Registered: {Seen, Admitted, Registered},
			Answered: {Seen, Admitted, Registered, Answered}, Closed: {Seen, Admitted, Registered, Answered, Closed},
			Removed: {Seen, Admitted, Removed}, Moving: {Moving},
		},
	}
	for role, list := range allowed {
		want := map[string]bool{}
		for _, pair := range strings.Split(list, ",") {
			want[strings.TrimSpace(pair)] = true
		}
		for from, way := range ways[role] {
			for to := range ways[role] {
				if to == "-" {
					continue
				}
				t.Run(fmt.Sprintf("%s %s to %s", role, from, to), func(t *testing.T) {
					l, dir := newLedger(t, role)
					for _, event := range way {
						mustAppend(t, l, event, "T", nil)
					}
					before := readJournalFile(t, dir)
					_, err := l.Append(to, "T", nil)
					if want[from+" "+to] {
						if err != nil {
							t.Fatal(err)
						}
						if trip, _ := l.Trip("T"); trip.State != to {
							t.Errorf("state %s, want %s", trip.State, to)
						}
						return
					}
					wantKind(t, err, fault.Replay, "trip T ", to)
					if !bytes.Equal(before, readJournalFile(t, dir)) {
						t.Error("a refused event was written")
					}
				})
			}
		}
	}
}

func TestWhatIsRefusedSaysWhen(t *testing.T) {
	l, _ := newLedger(t, Agent)
	mustAppend(t, l, Requested, "T", nil) // 12:00:02
	mustAppend(t, l, Admitted, "T", nil)  // 12:00:03
	mustAppend(t, l, Opened, "T", nil)    // 12:00:04
	mustAppend(t, l, Applied, "T", nil)   // 12:00:05
	mustAppend(t, l, "receipt", "T", nil) // a note moves no state
	for event, want := range map[string]string{
		Opened:    "trip T was already opened on 2026-11-23T12:00:04Z and is applied now",
		Applied:   "trip T was already applied on 2026-11-23T12:00:05Z",
		Cancelled: "trip T is applied since 2026-11-23T12:00:05Z and cannot become cancelled",
	} {
		if _, err := l.Append(event, "T", nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestEvents(t *testing.T) {
	tests := []struct {
		name, event, trip string
		data              map[string]string
		kind              fault.Kind // 0: accepted
		text              string
	}{
		{"a note without a trip", "failed", "", nil, 0, ""},
		{"a note of a trip", "failed", "T", nil, 0, ""},
		{"a note of a trip that is not there", "failed", "U", nil, fault.Replay, "trip U is not known"},
		{"a state without a trip", Requested, "", nil, fault.Unexpected, "names no trip"},
		{"an event that is not known", "teleported", "T", nil, fault.Unexpected, `"teleported" is not known to the agent`},
		{"a state of the other side", Registered, "T", nil, fault.Unexpected, "not known to the agent"},
		{"no event", "", "", nil, fault.Unexpected, "the event"},
		{"init again", eventInit, "", map[string]string{"role": "agent"}, fault.Unexpected, "line 1 only"},
		{"a trip with a slash", "failed", "a/b", nil, fault.Unexpected, `"a/b"`},
		{"a trip too long", Requested, strings.Repeat("T", 65), nil, fault.Unexpected, "64"},
		{"a key with capitals", "put", "", map[string]string{"Label": "x"}, fault.Unexpected, `"Label"`},
		{"an empty key", "put", "", map[string]string{"": "x"}, fault.Unexpected, `data key ""`},
		{"a value of 4 KiB", "put", "", map[string]string{"label": strings.Repeat("x", 4096)}, 0, ""},
		{"a value over 4 KiB", "put", "", map[string]string{"label": strings.Repeat("x", 4097)}, fault.Unexpected, "has 4097 bytes"},
		{"a line feed", "put", "", map[string]string{"label": "a\nb"}, fault.Unexpected, "control character"},
		{"an escape", "put", "", map[string]string{"label": "\x1b[2J"}, fault.Unexpected, "control character"},
		{"a C1 control", "put", "", map[string]string{"label": "\u009b2J"}, fault.Unexpected, "control character"},
		{"not UTF-8", "put", "", map[string]string{"label": "\xff"}, fault.Unexpected, "not spelt"},
		{"seq without a pair", "put", "", map[string]string{"seq-out": "1"}, fault.Unexpected, "seq-out"},
		{"seq zero", "put", "", map[string]string{"pair": "P", "seq-in": "0"}, fault.Unexpected, "seq-in"},
		{"seq with a zero before", "put", "", map[string]string{"pair": "P", "seq-in": "07"}, fault.Unexpected, "seq-in"},
		{"seq too large", "put", "", map[string]string{"pair": "P", "seq-out": "9223372036854775808"}, fault.Unexpected, "seq-out"},
		{"seq at the limit", "put", "", map[string]string{"pair": "P", "seq-out": "9223372036854775807"}, 0, ""},
		{"the digest again", "put", "T", map[string]string{"digest": digestA}, 0, ""},
		{"another digest", "put", "T", map[string]string{"digest": digestB}, fault.Unexpected, digestB},
		{"the digest of another trip", Requested, "U", map[string]string{"digest": digestA}, fault.Unexpected, "belongs to trip T"},
		{"half a digest", Requested, "U", map[string]string{"digest": digestB[:32]}, fault.Unexpected, "64 hex digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, dir := newLedger(t, Agent)
			mustAppend(t, l, Requested, "T", map[string]string{"digest": digestA})
			before := readJournalFile(t, dir)
			_, err := l.Append(tt.event, tt.trip, tt.data)
			if tt.kind == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantKind(t, err, tt.kind, tt.text)
			if !bytes.Equal(before, readJournalFile(t, dir)) {
				t.Error("a refused event was written")
			}
		})
	}
}

func TestALineIsBounded(t *testing.T) {
	l, _ := newLedger(t, Agent)
	data := map[string]string{}
	for i := range 16 {
		data[fmt.Sprintf("k%d", i)] = strings.Repeat("x", maxValue)
	}
	_, err := l.Append("put", "", data)
	wantKind(t, err, fault.Unexpected, "at most 65536")
	delete(data, "k0")
	mustAppend(t, l, "put", "", data)
}

// A refusal tells the key, never the value: a caller's mistake must not print a
// token.
func TestARefusalDoesNotTellTheValue(t *testing.T) {
	l, dir := newLedger(t, Agent)
	for _, value := range []string{strings.Repeat("CANARY", 1000), "CANARY\n", "CANARY\xff"} {
		_, err := l.Append("put", "", map[string]string{"token": value})
		if err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("got %v", err)
		}
	}
	for name, text := range snapshot(t, dir) {
		if strings.Contains(text, "CANARY") {
			t.Errorf("%s holds the value", name)
		}
	}
}

func TestClean(t *testing.T) {
	long := strings.Repeat("x", maxValue-1)
	for _, tt := range []struct{ in, want string }{
		{"a\r\nb\tc\x1b\u0085d", "a  b c  d"},
		{"a\xffb", "a\uFFFDb"},
		{long + "ü", long},
		{long + "xx", long + "x"},
		{long + strings.Repeat("\xff", 100), long},
	} {
		got := Clean(tt.in)
		if got != tt.want {
			t.Errorf("Clean(%.40q…) has %d bytes, want %d", tt.in, len(got), len(tt.want))
		}
		l, _ := newLedger(t, Agent)
		mustAppend(t, l, "failed", "", map[string]string{"error": got})
	}
}

// What a caller does with what it gave or got does not reach the ledger.
func TestNothingIsShared(t *testing.T) {
	l, _ := newLedger(t, Agent)
	data := map[string]string{"label": "x"}
	mustAppend(t, l, Requested, "T", data)
	data["label"] = "changed"
	trip, _ := l.Trip("T")
	trip.Data["label"] = "changed"
	trip.Entries[0].Event = "changed"
	l.Entries()[0].Event = "changed"
	again, _ := l.Trip("T")
	if again.Data["label"] != "x" || again.Entries[0].Event != Requested || l.Entries()[0].Event != eventInit {
		t.Errorf("the ledger changed: %v", again)
	}
}

func TestClockWentBack(t *testing.T) {
	tests := []struct {
		name  string
		lines []string // "event offset" after init at noon
		now   time.Duration
		want  string // newest offset and how far back, or ""
	}{
		{"forward", []string{"put 1h"}, 2 * time.Hour, ""},
		{"at the tolerance", []string{"put 1h"}, time.Hour - Tolerance, ""},
		{"past the tolerance", []string{"put 1h"}, time.Hour - Tolerance - time.Second, "1h0m0s 2m1s"},
		{"the newest counts, not the last", []string{"put 5h", "put 1h"}, time.Hour, "5h0m0s 4h0m0s"},
		{"accepted", []string{"put 72h", "clock-accepted 0s"}, time.Minute, ""},
		{"accepted, then back again", []string{"put 72h", "clock-accepted 0s", "put 1h"}, 0, "1h0m0s 1h0m0s"},
		{"accepted, then back before the acceptance", []string{"put 72h", "clock-accepted 2h"}, time.Hour, "2h0m0s 1h0m0s"},
		{"five years ahead and right again", []string{"put 43800h"}, 0, "43800h0m0s 43800h0m0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := Create(dir, Agent, clock.Fixed(noon))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range tt.lines {
				event, after, _ := strings.Cut(line, " ")
				d, err := time.ParseDuration(after)
				if err != nil {
					t.Fatal(err)
				}
				l.clock = clock.Fixed(noon.Add(d))
				if e := mustAppend(t, l, event, "", nil); !e.Time.Equal(noon.Add(d)) {
					t.Errorf("%s has the time %v, not the clock's", line, e.Time)
				}
			}
			mustClose(t, l)
			v, err := View(dir, Agent, clock.Fixed(noon.Add(tt.now)))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if last, back, went := v.ClockWentBack(); went {
				got = fmt.Sprintf("%v %v", last.Sub(noon), back)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestView(t *testing.T) {
	l, dir := newLedger(t, Agent)
	mustAppend(t, l, Requested, "T", nil)
	whole := readJournalFile(t, dir)
	writeJournalFile(t, dir, append(bytes.Clone(whole), `{"n":3,"ti`...)) // as another process sees a write
	before := snapshot(t, dir)
	v, err := View(dir, Agent, clock.Fixed(noon)) // beside the lock
	if err != nil {
		t.Fatal(err)
	}
	if v.Head() != l.Head() || len(v.Entries()) != 2 {
		t.Errorf("%d entries with head %s, want 2 with %s", len(v.Entries()), v.Head(), l.Head())
	}
	_, err = v.Append("put", "", nil)
	wantKind(t, err, fault.Unexpected, "not open for writing")
	wantKind(t, v.Keep("a.azc", nil), fault.Unexpected, "not open for writing")
	mustClose(t, v)
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("a view changed the folder (-before +after):\n%s", diff)
	}

	_, err = l.Append("put", "", nil)
	wantKind(t, err, fault.Medium, "another program wrote to it")
	mustClose(t, l)
	mustClose(t, l)
	_, err = l.Append("put", "", nil)
	wantKind(t, err, fault.Unexpected, "not open for writing")
}

func TestKeep(t *testing.T) {
	l, dir := newLedger(t, Relay)
	for _, name := range []string{"b-2.azc", "a1.azc"} {
		for range 2 {
			if err := l.Keep(name, []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := l.Keep("a1.azc", []byte("other"))
	wantKind(t, err, fault.Refused, digest([]byte("a1.azc")), digest([]byte("other")))
	for _, name := range []string{"", ".azc", "A.azc", "a.azc.", "../a.azc", "a/b.azc", "a.txt", "a_b.azc", strings.Repeat("a", 65) + ".azc"} {
		wantKind(t, l.Keep(name, nil), fault.Unexpected, "the name")
		_, err := l.Kept(name)
		wantKind(t, err, fault.Unexpected, "the name")
	}
	if err := l.Keep("big.azc", make([]byte, maxKept)); err != nil {
		t.Error(err)
	}
	wantKind(t, l.Keep("bigger.azc", make([]byte, maxKept+1)), fault.Refused, "2097153")

	bundles := filepath.Join(dir, bundlesDir)
	for name, size := range map[string]int{"notes.txt": 1, ".azs-c.azc-1-0.tmp": 1, "huge.azc": maxKept + 1} {
		if err := os.WriteFile(filepath.Join(bundles, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(bundles, "folder.azc"), 0o700); err != nil {
		t.Fatal(err)
	}
	names, err := l.KeptNames()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a1.azc", "b-2.azc", "big.azc", "huge.azc"}, names); diff != "" {
		t.Errorf("names differ (-want +got):\n%s", diff)
	}
	got, err := l.Kept("a1.azc")
	if err != nil || string(got) != "a1.azc" {
		t.Errorf("kept %q, %v", got, err)
	}
	_, err = l.Kept("none.azc")
	wantKind(t, err, fault.Medium, "none.azc")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("errors.Is(%v, fs.ErrNotExist) is false", err)
	}
	_, err = l.Kept("folder.azc")
	wantKind(t, err, fault.Medium, "not a regular file")
	_, err = l.Kept("huge.azc")
	wantKind(t, err, fault.Medium, "longer than 2097152")
	if err := os.Symlink("a1.azc", filepath.Join(bundles, "link.azc")); err == nil {
		_, err = l.Kept("link.azc")
		wantKind(t, err, fault.Medium, "not a regular file")
	}
	mustClose(t, l)

	// A folder restored without its bundles still opens; what a killed process
	// left is swept.
	mustClose(t, mustOpen(t, dir, Relay))
	if _, err := os.Stat(filepath.Join(bundles, ".azs-c.azc-1-0.tmp")); err == nil {
		t.Error("the left-over temporary file is still there")
	}
	if err := os.RemoveAll(bundles); err != nil {
		t.Fatal(err)
	}
	v, err := View(dir, Relay, clock.Fixed(noon))
	if err != nil {
		t.Fatal(err)
	}
	if names, err := v.KeptNames(); len(names) != 0 || err != nil {
		t.Errorf("names %v, %v", names, err)
	}
	if err := mustOpen(t, dir, Relay).Keep("a1.azc", []byte("x")); err != nil {
		t.Error(err)
	}
}

// The tables hold each name once, and no note is also a state.
func TestTheTablesAreSound(t *testing.T) {
	for _, role := range []Role{Agent, Relay} {
		seen := map[string]bool{}
		for _, n := range notes {
			if seen[n.name] || !isName(n.name, isKeyByte) || n.meaning == "" {
				t.Errorf("note %q is there twice, or is no name, or has no meaning", n.name)
			}
			seen[n.name] = true
		}
		known := map[string]bool{fresh: true}
		for _, s := range states[role] {
			if seen[s.name] || !isName(s.name, isKeyByte) {
				t.Errorf("state %q of the %s is there twice, or is no name, or is a note", s.name, role)
			}
			seen[s.name], known[s.name] = true, true
			for _, from := range s.from {
				if !known[from] {
					t.Errorf("state %q of the %s is entered from %q, which stands after it", s.name, role, from)
				}
			}
		}
	}
}

func TestTwoLedgersOfOneProcess(t *testing.T) {
	l, dir := newLedger(t, Agent)
	_, err := open(dir, Agent, clock.Fixed(noon), 0)
	wantKind(t, err, fault.Medium, dir, "in use by another process", fmt.Sprintf("id %d", os.Getpid()))
	_, err = open(dir, Agent, clock.Fixed(noon), time.Millisecond)
	wantKind(t, err, fault.Medium, "in use by another process")
	mustClose(t, l)
	mustOpen(t, dir, Agent)
}

func TestALockFileWithoutAProcessID(t *testing.T) {
	path := filepath.Join(t.TempDir(), lockFile)
	for _, text := range []string{"", "x", "\x00", "\x00no number\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := holder(path); got != "" {
			t.Errorf("lock file %q names %q", text, got)
		}
	}
}

// Many goroutines of one process, as a batch has them.
func TestGoroutines(t *testing.T) {
	l, dir := newLedger(t, Relay)
	errs := make(chan error)
	for i := range 8 {
		go func() {
			_, err := l.Append(Seen, fmt.Sprintf("T%d", i), nil)
			l.Trips()
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	mustClose(t, l)
	var ids []string
	for _, trip := range mustOpen(t, dir, Relay).Trips() {
		ids = append(ids, trip.ID)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 8 {
		t.Errorf("trips %v, want 8", ids)
	}
}

func BenchmarkOpen10000(b *testing.B) {
	l, dir := newLedger(b, Relay)
	mustClose(b, l)
	journal := readJournalFile(b, dir)
	f, _, err := load(journal)
	if err != nil {
		b.Fatal(err)
	}
	way := []string{Seen, Admitted, Registered, Answered, Closed}
	for n := 1; n < 10_000; n++ {
		data := map[string]string{"pair": "7Q2MKX4R9D3T0V6PB8W5YHNC1G", "seq-in": fmt.Sprint(n), "label": "stamp north"}
		if n%5 == 1 {
			maps.Copy(data, map[string]string{"digest": digest(fmt.Append(nil, n))})
		}
		e, line, err := f.next(noon, way[(n-1)%5], fmt.Sprintf("TRIP%d", (n-1)/5), data)
		if err != nil {
			b.Fatal(err)
		}
		f.add(e, line)
		journal = append(journal, line...)
	}
	writeJournalFile(b, dir, journal)
	b.ReportAllocs()
	b.SetBytes(int64(len(journal)))
	for b.Loop() {
		mustClose(b, mustOpen(b, dir, Relay))
	}
}
