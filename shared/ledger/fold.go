package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// The keys of an entry's data that the fold understands.
const (
	keyRole   = "role"
	keyDigest = "digest"
	keyPair   = "pair"
	keySeqOut = "seq-out"
	keySeqIn  = "seq-in"
)

// Trip is what the journal says about one request, from its making or arrival
// to its end.
type Trip struct {
	ID      string            // the id of the request's bundle
	State   string            // the last state that it entered
	Data    map[string]string // the data of all its entries; later ones win
	Started time.Time         // of its first entry
	Updated time.Time         // of its last entry, notes included
	Entries []Entry           // states and notes in the order of the journal
}

// fold is what the lines of a journal add up to.
type fold struct {
	role     Role
	entries  []Entry
	head     string // digest of the last line
	size     int64  // bytes of the lines
	trips    map[string]*Trip
	order    []string          // ids of the trips by their first entry
	byDigest map[string]string // digest of a request's manifest → id
	seqOut   map[string]uint64 // highest by pair
	seqIn    map[string]uint64
	newest   time.Time // newest entry since the clock was last accepted
}

// load reads a journal. torn is what follows its last line feed. The error
// names the first line that is damaged; the fold then holds the lines before.
func load(journal []byte) (f *fold, torn []byte, err error) {
	f = &fold{
		head: noDigest, trips: map[string]*Trip{}, byDigest: map[string]string{},
		seqOut: map[string]uint64{}, seqIn: map[string]uint64{},
	}
	for {
		end := bytes.IndexByte(journal, '\n') + 1
		if end == 0 {
			break
		}
		if err := f.read(journal[:end]); err != nil {
			return f, nil, fault.New(fault.Refused, "line %d: %w", len(f.entries)+1, err)
		}
		journal = journal[end:]
	}
	switch {
	case len(f.entries) == 0:
		return f, nil, fault.New(fault.Refused, "line 1: it is missing")
	case len(journal) > maxLine:
		return f, nil, fault.New(fault.Refused, "line %d: it has %d bytes or more, at most %d are allowed", len(f.entries)+1, len(journal), maxLine)
	}
	return f, journal, nil
}

// read checks a line and adds it.
func (f *fold) read(line []byte) error {
	e, err := parse(line)
	if err != nil {
		return err
	}
	before := len(f.entries)
	switch {
	case e.Prev != f.head && before == 0:
		return fmt.Errorf("the chain is broken: it names %s as the digest of the line before, and there is none", e.Prev)
	case e.Prev != f.head:
		return fmt.Errorf("the chain is broken: it names %s as the digest of the line before, and line %d has %s", e.Prev, before, f.head)
	case e.N != uint64(before)+1:
		return fmt.Errorf("it has the number %d", e.N)
	}
	if err := f.check(e); err != nil {
		return err
	}
	f.add(e, line)
	return nil
}

// next makes the line that would follow, and checks it as if it were read.
func (f *fold) next(now time.Time, event, trip string, data map[string]string) (Entry, []byte, error) {
	line := Entry{uint64(len(f.entries)) + 1, now, f.head, event, trip, data}.Line()
	e, err := parse(line)
	if err != nil {
		return Entry{}, nil, fault.New(fault.Unexpected, "the event %q cannot be journaled: %w", event, err)
	}
	return e, line, f.check(e)
}

// check holds an entry against the tables and what the journal says so far.
func (f *fold) check(e Entry) error {
	if len(f.entries) == 0 || e.Event == eventInit {
		return f.checkInit(e)
	}
	if err := f.checkEvent(e); err != nil {
		return err
	}
	for _, key := range []string{keySeqOut, keySeqIn} {
		if s, ok := e.Data[key]; ok {
			if _, ok := parseSeq(s); !ok || e.Data[keyPair] == "" {
				return fault.New(fault.Unexpected, "%s %q of the pair %q is not a sequence number of a pair", key, s, e.Data[keyPair])
			}
		}
	}
	if d, ok := e.Data[keyDigest]; ok && e.Trip != "" {
		return f.checkDigest(e.Trip, d)
	}
	return nil
}

func (f *fold) checkInit(e Entry) error {
	switch {
	case e.Event != eventInit:
		return fault.New(fault.Unexpected, "the first event is %q, not %q", e.Event, eventInit)
	case len(f.entries) > 0:
		return fault.New(fault.Unexpected, "the event %q stands in line 1 only", eventInit)
	case !Role(e.Data[keyRole]).known() || e.Trip != "":
		return fault.New(fault.Unexpected, "the event %q names the role %q and the trip %q", eventInit, e.Data[keyRole], e.Trip)
	}
	return nil
}

func (f *fold) checkEvent(e Entry) error {
	t, found := f.trips[e.Trip]
	s, isState := findState(f.role, e.Event)
	switch {
	case !isState && !isNote(e.Event):
		return fault.New(fault.Unexpected, "the event %q is not known to the %s", e.Event, f.role)
	case !isState && (found || e.Trip == ""):
		return nil
	case e.Trip == "":
		return fault.New(fault.Unexpected, "the event %q names no trip", e.Event)
	}
	if !found {
		if isState && slices.Contains(s.from, fresh) {
			return nil
		}
		return fault.New(fault.Replay, "trip %s is not known and cannot be %s", e.Trip, e.Event)
	}
	if slices.Contains(s.from, t.State) {
		return nil
	}
	if t.State == e.Event {
		return fault.New(fault.Replay, "trip %s was already %s on %s", t.ID, t.State, clock.Format(t.since()))
	}
	for _, past := range t.Entries {
		if past.Event == e.Event {
			return fault.New(fault.Replay, "trip %s was already %s on %s and is %s now", t.ID, e.Event, clock.Format(past.Time), t.State)
		}
	}
	return fault.New(fault.Replay, "trip %s is %s since %s and cannot become %s", t.ID, t.State, clock.Format(t.since()), e.Event)
}

func (f *fold) checkDigest(trip, d string) error {
	if !isDigest(d) {
		return fault.New(fault.Unexpected, "the digest %q of trip %s is not of 64 hex digits", d, trip)
	}
	if t, ok := f.trips[trip]; ok && t.Data[keyDigest] != "" && t.Data[keyDigest] != d {
		return fault.New(fault.Unexpected, "trip %s has the request digest %s, not %s", trip, t.Data[keyDigest], d)
	}
	if other, ok := f.byDigest[d]; ok && other != trip {
		return fault.New(fault.Unexpected, "the request digest %s belongs to trip %s, not to %s", d, other, trip)
	}
	return nil
}

// parseSeq reads a decimal sequence number from 1 to 2^63-1, as a manifest has it.
func parseSeq(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return n, err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// add takes a checked entry in.
func (f *fold) add(e Entry, line []byte) {
	if e.Event == eventInit {
		f.role = Role(e.Data[keyRole])
	}
	f.entries = append(f.entries, e)
	f.head = digest(line)
	f.size += int64(len(line))
	if e.Event == ClockAccepted || e.Time.After(f.newest) {
		f.newest = e.Time
	}
	raise(f.seqOut, e, keySeqOut)
	raise(f.seqIn, e, keySeqIn)
	if e.Trip == "" {
		return
	}
	t, ok := f.trips[e.Trip]
	if !ok {
		t = &Trip{ID: e.Trip, Data: map[string]string{}, Started: e.Time}
		f.trips[e.Trip] = t
		f.order = append(f.order, e.Trip)
	}
	if _, isState := findState(f.role, e.Event); isState {
		t.State = e.Event
	}
	maps.Copy(t.Data, e.Data)
	t.Updated = e.Time
	t.Entries = append(t.Entries, e)
	if d := e.Data[keyDigest]; d != "" {
		f.byDigest[d] = e.Trip
	}
}

func raise(highest map[string]uint64, e Entry, key string) {
	if n, ok := parseSeq(e.Data[key]); ok {
		highest[e.Data[keyPair]] = max(highest[e.Data[keyPair]], n)
	}
}

// since returns the time at which the trip entered its state.
func (t *Trip) since() time.Time {
	for _, e := range slices.Backward(t.Entries) {
		if e.Event == t.State {
			return e.Time
		}
	}
	return t.Started
}
