// Package ledger remembers what happened to every trip of one side.
//
// There is one truth, the journal: a file of JSON lines to which is only ever
// added. The state of a trip is not stored anywhere; it is what the lines say
// when they are read from the first to the last. A process that is killed
// between a line and the deed that the line announces leaves a state from which
// the next run goes on, because deeds are journaled first and can be repeated.
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
//   - One process writes at a time, held off by a lock file.
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
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
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

// Ledger is the journal of one side, open for writing ([Open], [Create]) or for
// reading ([View]). Its methods may be called by several goroutines.
type Ledger struct {
	dir   string
	role  Role
	clock clock.Clock

	mu   sync.Mutex
	fold *fold
	file *os.File // nil: for reading only, or closed
	size int64    // bytes of the journal
	lock *flock.Flock
}

// Create makes the state folder of a side, with the line "init" that names the
// role, and opens it. A folder that is there already is used as it is; a new
// one gets the mode 0700. If the folder has a journal, the error is of kind
// [fault.Usage] and satisfies errors.Is(err, fs.ErrExist). A Create that was
// killed half way can be repeated.
func Create(dir string, role Role, c clock.Clock) (*Ledger, error) {
	if !role.known() {
		return nil, fault.New(fault.Unexpected, "the role %q is not known", string(role))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Medium, "the state folder %q could not be made: %w", dir, err)
	}
	lock, err := hold(dir, lockWait)
	if err != nil {
		return nil, err
	}
	l, err := create(dir, role, c, lock)
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return l, nil
}

func create(dir string, role Role, c clock.Clock, lock *flock.Flock) (*Ledger, error) {
	if err := makeBundles(dir); err != nil {
		return nil, err
	}
	first := Entry{N: 1, Time: c.Now(), Prev: noDigest, Event: eventInit, Data: map[string]string{keyRole: string(role)}}
	err := atomicfile.Create(filepath.Join(dir, journalFile), first.Line(), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fault.New(fault.Usage, "the state folder %q has a journal already: %w", dir, fs.ErrExist).Hint("%s status", role.Program())
	}
	if err != nil {
		return nil, err
	}
	if err := syncFolder(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fault.New(fault.Medium, "the state folder %q could not be made durable: %w", dir, err)
	}
	return openLocked(dir, role, c, lock)
}

// Open opens the state folder for writing. It waits up to ten seconds for
// another process to finish, checks every line of the journal and cuts off a
// last line that was written half.
//
// Errors: [fault.Locked] if there is no state yet, [fault.Medium] if the folder
// cannot be read or written or is in use, [fault.NotForUs] if the folder is the
// other side's, [fault.Refused] if the journal is damaged, which leaves the
// folder as it is.
func Open(dir string, role Role, c clock.Clock) (*Ledger, error) {
	return open(dir, role, c, lockWait)
}

func open(dir string, role Role, c clock.Clock, wait time.Duration) (*Ledger, error) {
	if _, err := os.Lstat(filepath.Join(dir, journalFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, noState(dir, role)
	}
	lock, err := hold(dir, wait)
	if err != nil {
		return nil, err
	}
	l, err := openLocked(dir, role, c, lock)
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return l, nil
}

func openLocked(dir string, role Role, c clock.Clock, lock *flock.Flock) (*Ledger, error) {
	path := filepath.Join(dir, journalFile)
	f, journal, torn, err := read(dir, role)
	if err != nil {
		return nil, err
	}
	if len(torn) > 0 {
		journal, err = repair(dir, f, journal, torn, c.Now())
		if err != nil {
			return nil, err
		}
	}
	if err := makeBundles(dir); err != nil {
		return nil, err
	}
	if err := sweep(dir); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.New(fault.Medium, "the journal %q could not be opened for writing: %w", path, err)
	}
	return &Ledger{dir: dir, role: role, clock: c, fold: f, file: file, size: int64(len(journal)), lock: lock}, nil
}

// View opens the state folder for reading, beside a process that may be writing
// to it. It takes no lock and changes nothing; a last line that is not whole
// yet is passed over. The errors are those of [Open].
func View(dir string, role Role, c clock.Clock) (*Ledger, error) {
	f, _, _, err := read(dir, role)
	if err != nil {
		return nil, err
	}
	return &Ledger{dir: dir, role: role, clock: c, fold: f}, nil
}

// Report is what [Check] found.
type Report struct {
	Role    Role    // the side whose journal it is, "" if line 1 is damaged
	Entries []Entry // the good lines before the first damage
	Head    string  // the digest of the last of them
	Torn    int     // bytes of a last line without its end; no damage
	Damage  error   // the first damage, of kind [fault.Refused], or nil
}

// Check reads the journal without the lock and reports the first damage instead
// of failing on it. The error is of kind [fault.Locked] if there is no journal
// and [fault.Medium] if it cannot be read; role serves its hint only.
func Check(dir string, role Role) (Report, error) {
	journal, err := readJournal(dir, role)
	if err != nil {
		return Report{}, err
	}
	f, torn, damage := load(journal)
	return Report{Role: f.role, Entries: f.entries, Head: f.head, Torn: len(torn), Damage: damage}, nil
}

// read gives the fold over a journal of the role, the bytes of its whole lines,
// and the bytes after them.
func read(dir string, role Role) (f *fold, journal, torn []byte, err error) {
	journal, err = readJournal(dir, role)
	if err != nil {
		return nil, nil, nil, err
	}
	path := filepath.Join(dir, journalFile)
	f, torn, err = load(journal)
	if err != nil {
		return nil, nil, nil, fault.New(fault.Refused, "the journal %q is damaged: %w", path, err).Hint("%s log", role.Program())
	}
	if f.role != role {
		return nil, nil, nil, fault.New(fault.NotForUs, "the state folder %q is that of %s, not of %s", dir, f.role.Program(), role.Program())
	}
	return f, journal[:len(journal)-len(torn)], torn, nil
}

func readJournal(dir string, role Role) ([]byte, error) {
	journal, err := readRegular(filepath.Join(dir, journalFile), maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noState(dir, role)
	}
	return journal, err
}

func noState(dir string, role Role) error {
	return fault.New(fault.Locked, "the state folder %q has no journal: it was not made yet", dir).Hint("%s init", role.Program())
}

// repair keeps torn in its side file and replaces the journal by its whole
// lines and the line "repaired". Each step replaces a file at once: killed
// anywhere, the next run finds the journal torn as it was, or repaired.
func repair(dir string, f *fold, journal, torn []byte, now time.Time) ([]byte, error) {
	side := filepath.Join(dir, tornFile)
	kept, err := readRegular(side, maxJournal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	piece := append(bytes.Clone(torn), '\n')
	if !bytes.Equal(kept, piece) && !bytes.HasSuffix(kept, append([]byte{'\n'}, piece...)) {
		if err := atomicfile.Write(side, append(kept, piece...), 0o600); err != nil {
			return nil, err
		}
	}
	e, line, err := f.next(now, eventRepaired, "", map[string]string{
		"bytes": strconv.Itoa(len(torn)), "file": tornFile, "sha256": digest(torn),
	})
	if err != nil {
		return nil, err
	}
	journal = append(bytes.Clone(journal), line...)
	if err := atomicfile.Write(filepath.Join(dir, journalFile), journal, 0o600); err != nil {
		return nil, err
	}
	f.add(e, line)
	return journal, nil
}

// sweep removes the temporary files of killed processes that the lock covers:
// those of the journal and of the kept bundles. Others in the state folder may
// be in use by a package that does not hold this lock.
func sweep(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.Medium, "the state folder %q could not be listed: %w", dir, atomicfile.Cause(err))
	}
	for _, d := range names {
		if atomicfile.IsTemp(d.Name()) && strings.HasPrefix(d.Name(), atomicfile.TempPrefix+"journal.") {
			if err := os.Remove(filepath.Join(dir, d.Name())); err != nil {
				return fault.New(fault.Medium, "the left-over file %q in %q could not be removed: %w", d.Name(), dir, atomicfile.Cause(err))
			}
		}
	}
	return atomicfile.Sweep(filepath.Join(dir, bundlesDir))
}

// Close gives the lock back. A closed ledger can still be read.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Close(), l.lock.Unlock())
	l.file = nil
	if err != nil {
		return fault.New(fault.Medium, "the state folder %q could not be closed: %w", l.dir, err)
	}
	return nil
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.writable(); err != nil {
		return Entry{}, err
	}
	e, line, err := l.fold.next(l.clock.Now(), event, trip, data)
	if err != nil {
		return Entry{}, err
	}
	info, err := l.file.Stat()
	switch {
	case err != nil:
		return Entry{}, fault.New(fault.Medium, "the journal %q could not be looked at: %w", l.file.Name(), err)
	case info.Size() != l.size:
		return Entry{}, fault.New(fault.Medium, "the journal %q has %d bytes instead of %d: a line before was left torn, or another program wrote to it",
			l.file.Name(), info.Size(), l.size).Hint("%s log", l.role.Program())
	case l.size+int64(len(line)) > maxJournal:
		return Entry{}, fault.New(fault.Medium, "the journal %q is full: it has %d bytes, at most %d are read", l.file.Name(), l.size, maxJournal)
	}
	if err := atomicfile.Append(l.file, line); err != nil {
		return Entry{}, err
	}
	l.size += int64(len(line))
	l.fold.add(e, line)
	return e, nil
}

func (l *Ledger) writable() error {
	if l.file == nil {
		return fault.New(fault.Unexpected, "the state folder %q is not open for writing", l.dir)
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
// than the highest seq-out in the journal, from 1.
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

// readRegular reads a regular file of at most max bytes. A missing file
// satisfies errors.Is(err, fs.ErrNotExist).
func readRegular(path string, max int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be looked at: %w", path, atomicfile.Cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Medium, "the file %q is not a regular file but %s", path, info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be opened: %w", path, atomicfile.Cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be read: %w", path, atomicfile.Cause(err))
	}
	if int64(len(data)) > max {
		return nil, fault.New(fault.Medium, "the file %q is longer than %d bytes", path, max)
	}
	return data, nil
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
