package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// ErrMoved is what [Store.Append] answers when another process added a line with
// that number first. The ledger then reads on, judges its event anew and tries
// the next number.
var ErrMoved = errors.New("another process added a line first")

// Store is where the bytes of a ledger lie: the state folder, or a database that
// several hosts share. It keeps bytes and knows nothing of events; what a line
// may say is judged by the ledger, against every line that is there, at the
// moment at which it is added.
//
// A store is open already when a ledger is made of it. Its methods may be called
// by several goroutines and do their own waiting, for a bounded time. Errors are
// of kind [fault.Medium] or [fault.Unreachable].
type Store interface {
	// String names the store in messages: `state folder "/var/lib/azs-relay"`.
	String() string

	// Lines returns the journal behind its first n lines: whole lines, each with
	// its line feed.
	Lines(n uint64) ([]byte, error)

	// Append makes line n durable behind line n-1, which has the SHA-256 prev in
	// hex. It is [ErrMoved] when there is a line n already, whoever added it, or
	// when line n-1 is another one. On any other error the line is not there, or,
	// where the store says so, it may be; it is never there twice.
	Append(n uint64, prev string, line []byte) error

	// Keep stores a file under a name that was not used before; if it was, the
	// error satisfies errors.Is(err, fs.ErrExist).
	Keep(name string, data []byte) error

	// Kept returns a kept file of at most 2 MiB. If there is none, the error
	// satisfies errors.Is(err, fs.ErrNotExist).
	Kept(name string) ([]byte, error)

	// KeptNames returns the names of the kept files, sorted.
	KeptNames() ([]string, error)

	// Claim holds off every other process that claims the key, until release is
	// called or this process ends, however it ends. The context that it returns
	// ends early, with the reason as its cause, when the store can no longer
	// vouch for the claim. The ledger never claims a key that it holds.
	Claim(ctx context.Context, key string) (held context.Context, release func(), err error)

	// Close gives up every claim and what else the process holds of the store.
	// What was kept can still be read where the store allows it.
	Close() error
}

// CreateOn makes a ledger in a store that has no journal yet. If it has one, the
// error is of kind [fault.Usage] and satisfies errors.Is(err, fs.ErrExist). Of
// several processes that create at the same time one succeeds.
func CreateOn(s Store, role Role, c clock.Clock) (*Ledger, error) {
	if !role.known() {
		return nil, fault.New(fault.Unexpected, "the role %q is not known", string(role))
	}
	err := s.Append(1, noDigest, firstLine(role, c).Line())
	if errors.Is(err, ErrMoved) {
		return nil, hasJournal(s, role)
	}
	if err != nil {
		return nil, err
	}
	return OpenOn(s, role, c)
}

// OpenOn opens the ledger in a store for writing. The errors are those of [Open].
// The ledger closes the store when it is closed; after an error the store is
// still open.
func OpenOn(s Store, role Role, c clock.Clock) (*Ledger, error) {
	l, err := ViewOn(s, role, c)
	if err != nil {
		return nil, err
	}
	l.writes = true
	return l, nil
}

// ViewOn is [OpenOn] for reading.
func ViewOn(s Store, role Role, c clock.Clock) (*Ledger, error) {
	journal, err := s.Lines(0)
	if err != nil {
		return nil, err
	}
	if len(journal) == 0 {
		return nil, noState(s, role)
	}
	f, _, err := foldOf(s, fmt.Sprintf("journal of the %s", s), role, journal)
	if err != nil {
		return nil, err
	}
	return &Ledger{store: s, role: role, clock: c, fold: f}, nil
}

// CheckOn is [Check] of a store.
func CheckOn(s Store, role Role) (Report, error) {
	journal, err := s.Lines(0)
	if err != nil {
		return Report{}, err
	}
	if len(journal) == 0 {
		return Report{}, noState(s, role)
	}
	return report(journal), nil
}

// foldOf gives the fold over a journal of the role, and what follows its last
// line feed.
func foldOf(s fmt.Stringer, what string, role Role, journal []byte) (f *fold, torn []byte, err error) {
	f, torn, err = load(journal)
	if err != nil {
		return nil, nil, fault.New(fault.Refused, "the %s is damaged: %w", what, err).Hint("%s log", role.Program())
	}
	if f.role != role {
		return nil, nil, fault.New(fault.NotForUs, "the %s is that of %s, not of %s", s, f.role.Program(), role.Program())
	}
	return f, torn, nil
}

func report(journal []byte) Report {
	f, torn, damage := load(journal)
	return Report{Role: f.role, Entries: f.entries, Head: f.head, Torn: len(torn), Damage: damage}
}

func firstLine(role Role, c clock.Clock) Entry {
	return Entry{N: 1, Time: c.Now(), Prev: noDigest, Event: eventInit, Data: map[string]string{keyRole: string(role)}}
}

func hasJournal(s fmt.Stringer, role Role) error {
	return fault.New(fault.Usage, "the %s has a journal already: %w", s, fs.ErrExist).Hint("%s status", role.Program())
}

func noState(s fmt.Stringer, role Role) error {
	return fault.New(fault.Locked, "the %s has no journal: it was not made yet", s).Hint("%s init", role.Program())
}
