// Package ledger remembers what happened to every trip of one side.
//
// There is one truth, the journal: JSON lines, in a file or in the rows of a
// database, to which is only ever added. The state of a trip is not stored
// anywhere; it is what the lines say when they are read from the first to the
// last. A process that is killed between a line and the deed that the line
// announces leaves a state from which the next run goes on, because deeds are
// journaled first and can be repeated.
//
// The properties:
//
//   - A line is on the disk, synced, before [Ledger.Append] returns it.
//   - Each line holds the SHA-256 of the line before it. An edited, removed,
//     inserted or moved line is found by [Open], which then refuses to work and
//     names the line and both digests. With the usual tools:
//     `sed -n 4p journal.jsonl | sha256sum` gives the "prev" of line 5.
//   - A line exists in one spelling only: what is read, re-encodes to the same
//     bytes, or it is refused.
//   - In a folder one process writes at a time, held off by a lock file. In a
//     store that several hosts share, see [Store], line n goes in once, behind the
//     line that its writer had read, and [Ledger.Claim] holds the others off what
//     is done between two lines.
//   - A half-written last line (power failure) is moved to journal.torn and the
//     move is itself a line of the journal.
//   - The tables in tables.go say which event may follow which. Going backward
//     is refused, so an answer that was opened cannot be opened again.
//
// The limits: the chain has no key. Whoever may write into the folder can cut
// off the newest lines or write the whole journal anew; only a digest that was
// kept elsewhere shows that, which is why [Ledger.Head] is printed on evidence
// pages. A folder restored from an old copy is likewise a correct journal of an
// earlier day.
//
// Nothing secret is kept here. A registration token or an activation key stands
// in the journal as a digest at most, and in the folder bundles only sealed, as
// it was encrypted for the peer. The package cannot tell a token from any other
// text: keeping tokens out of the data is the duty of the caller, and the tests
// of the programs search the folder for them.
//
// The folder:
//
//	journal.jsonl   the journal, one [Entry] a line
//	journal.torn    what was cut off the end of the journal, one piece a line
//	lock            held while a process may write; holds its process id
//	bundles/        sealed bundles by name, see [Ledger.Keep]
package ledger

import (
	"bytes"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// The names in the state folder.
const (
	journalFile = "journal.jsonl"
	tornFile    = "journal.torn"
	lockFile    = "lock"
	bundlesDir  = "bundles"
)

const (
	// Tolerance is how far the clock may stand before the newest entry without
	// being called wrong: an adjustment by a time server is not a clock that
	// went back.
	Tolerance = 2 * time.Minute

	maxJournal = 256 << 20 // bytes of a journal, about half a million lines
	lockWait   = 10 * time.Second
	lockStep   = 20 * time.Millisecond
)

// Ledger is the journal of one side, open for writing ([Open], [Create],
// [OpenOn]) or for reading ([View]). Its methods may be called by several
// goroutines.
type Ledger struct {
	store  Store
	role   Role
	clock  clock.Clock
	claims claims

	adding sync.Mutex // held by who changes the fold; taken before mu
	mu     sync.Mutex // guards what follows
	fold   *fold
	writes bool // open for writing
}

// Report is what [Check] found.
type Report struct {
	Role    Role    // the side whose journal it is, "" if line 1 is damaged
	Entries []Entry // the good lines before the first damage
	Head    string  // the digest of the last of them
	Torn    int     // bytes of a last line without its end; no damage
	Damage  error   // the first damage, of kind [fault.Refused], or nil
}

// Close gives the store back. The lines of a closed ledger can still be read.
func (l *Ledger) Close() error {
	l.adding.Lock()
	defer l.adding.Unlock()
	l.mu.Lock()
	l.writes = false
	l.mu.Unlock()
	return l.store.Close()
}

// Append adds a line with the clock's time, whatever the clock says, and
// returns it when it is durable. The event is a state of the side or a note, by
// the tables of this package; trip is the id of the request's bundle (1 to 64
// letters, digits and hyphens) or "". Keys of data are of a-z, 0-9 and hyphen,
// at most 64 bytes; values are UTF-8 without control characters, at most 4 KiB;
// [Clean] makes a foreign sentence fit. Keys with a meaning here:
//
//	digest    of a trip's request manifest, SHA-256 in hex; given once, never changed
//	pair      the pair that seq-out and seq-in belong to
//	seq-out   the sequence number of a bundle that leaves
//	seq-in    the sequence number of a bundle that came
//
// Errors: [fault.Replay] if the trip is past the state, or is not there yet;
// [fault.Medium] if the line could not be written, and then the journal is what
// it was before; [fault.Unexpected] for an event or data that no program should
// have sent.
func (l *Ledger) Append(event, trip string, data map[string]string) (Entry, error) {
	return l.append(event, trip, func(*fold) map[string]string { return data })
}

// AppendNext is [Ledger.Append] of a line that takes the next sequence number of
// the pair, as [Ledger.NextSeq] would give it, and returns the number: pair and
// seq-out are added to the data. Number and line are one act, so that no other
// goroutine, process or host gets the same number. A number whose bundle is then
// not made stays unused.
func (l *Ledger) AppendNext(event, trip, pair string, data map[string]string) (seq uint64, err error) {
	_, err = l.append(event, trip, func(f *fold) map[string]string {
		seq = f.seqOut[pair] + 1
		numbered := map[string]string{keyPair: pair, keySeqOut: strconv.FormatUint(seq, 10)}
		maps.Copy(numbered, data)
		return numbered
	})
	return seq, err
}

// append adds the line that data gives for the newest state of the journal. What
// is refused or overtaken is judged again after reading on; a journal that has
// nothing new stands by its answer.
func (l *Ledger) append(event, trip string, data func(*fold) map[string]string) (Entry, error) {
	l.adding.Lock()
	defer l.adding.Unlock()
	for {
		if err := l.writable(); err != nil {
			return Entry{}, err
		}
		e, line, err := l.next(event, trip, data)
		if err == nil {
			err = l.store.Append(e.N, e.Prev, line)
		}
		if err == nil {
			l.mu.Lock()
			l.fold.add(e, line)
			l.mu.Unlock()
			return e, nil
		}
		if k := fault.KindOf(err); k == fault.Medium || k == fault.Unreachable {
			return Entry{}, err
		}
		n, rerr := l.readOn()
		switch {
		case rerr != nil:
			return Entry{}, rerr
		case n == 0 && errors.Is(err, ErrMoved):
			return Entry{}, fault.New(fault.Refused, "the journal of the %s takes no line %d, and has none: its last lines are not those that were read", l.store, e.N).
				Hint("%s log", l.role.Program())
		case n == 0:
			return Entry{}, err
		}
	}
}

// next makes the next line, as it stands in the fold now.
func (l *Ledger) next(event, trip string, data func(*fold) map[string]string) (Entry, []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, line, err := l.fold.next(l.clock.Now(), event, trip, data(l.fold))
	if err == nil && l.fold.size+int64(len(line)) > maxJournal {
		err = fault.New(fault.Medium, "the journal of the %s is full: it has %d bytes, at most %d are read", l.store, l.fold.size, maxJournal)
	}
	return e, line, err
}

// Refresh takes in the lines that other processes added.
func (l *Ledger) Refresh() error {
	l.adding.Lock()
	defer l.adding.Unlock()
	_, err := l.readOn()
	return err
}

// readOn returns how many lines were new. l.adding is held.
func (l *Ledger) readOn() (n int, err error) {
	l.mu.Lock()
	have := len(l.fold.entries)
	l.mu.Unlock()
	lines, err := l.store.Lines(uint64(have))
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(lines) {
		if err := l.fold.read(line); err != nil {
			return n, fault.New(fault.Refused, "the journal of the %s is damaged: line %d: %w", l.store, have+n+1, err).Hint("%s log", l.role.Program())
		}
		n++
	}
	return n, nil
}

func (l *Ledger) writable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.writes {
		return fault.New(fault.Unexpected, "the %s is not open for writing", l.store)
	}
	return nil
}

// Trips returns every trip in the order of their beginning.
func (l *Ledger) Trips() []Trip {
	l.mu.Lock()
	defer l.mu.Unlock()
	trips := make([]Trip, len(l.fold.order))
	for i, id := range l.fold.order {
		trips[i] = l.fold.trips[id].copy()
	}
	return trips
}

// Trip returns the trip with the id.
func (l *Ledger) Trip(id string) (Trip, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.fold.trips[id]
	if !ok {
		return Trip{}, false
	}
	return t.copy(), true
}

// FindByDigest returns the trip whose request has the manifest digest, 64 hex
// digits.
func (l *Ledger) FindByDigest(hex string) (Trip, bool) {
	l.mu.Lock()
	id, ok := l.fold.byDigest[hex]
	l.mu.Unlock()
	if !ok {
		return Trip{}, false
	}
	return l.Trip(id)
}

// Entries returns every line of the journal. Their Data is the ledger's own and
// is not to be changed.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Entry(nil), l.fold.entries...)
}

// Head returns the SHA-256 of the last line with its line feed, in hex. Two
// journals with the same head are the same journal.
func (l *Ledger) Head() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fold.head
}

// LastTime returns the time of the last line, as the clock gave it then.
func (l *Ledger) LastTime() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fold.entries[len(l.fold.entries)-1].Time
}

// ClockWentBack reports whether the clock stands more than [Tolerance] before
// the newest time in the journal, that time, and by how much. A line
// "clock-accepted" settles it: only lines from the last such line on count.
func (l *Ledger) ClockWentBack() (last time.Time, back time.Duration, went bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last = l.fold.newest
	back = last.Sub(l.clock.Now())
	return last, back, back > Tolerance
}

// NextSeq returns the sequence number for the next bundle to the pair: one more
// than the highest seq-out in the journal, from 1. Only a side whose state has
// one process and one goroutine may count on it; others use [Ledger.AppendNext].
func (l *Ledger) NextSeq(pair string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fold.seqOut[pair] + 1
}

// LastSeqIn returns the highest seq-in of the pair in the journal, or 0.
func (l *Ledger) LastSeqIn(pair string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fold.seqIn[pair]
}

// copy returns a trip that shares nothing with the ledger but the data of its
// entries.
func (t *Trip) copy() Trip {
	c := *t
	c.Data = maps.Clone(t.Data)
	c.Entries = append([]Entry(nil), t.Entries...)
	return c
}

// CheckClock refuses to go on while the clock stands behind the journal: no expiry
// could be judged and every new time would be wrong. With accept the jump is
// written down and taken as it is. The refusal is [fault.Expired].
func (l *Ledger) CheckClock(accept bool) error {
	last, back, went := l.ClockWentBack()
	if !went {
		return nil
	}
	back = back.Round(time.Second)
	if !accept {
		return fault.New(fault.Expired, "the clock went back by %s: the journal's last entry is of %s", back, clock.Format(last)).
			Hint("set the clock, or run the same command with --accept-clock if the clock is right now")
	}
	_, err := l.Append(ClockAccepted, "", map[string]string{"last": clock.Format(last), "back": back.String()})
	return err
}
