// Package ledgertest holds every store of a ledger to the same promises, as
// testing/fstest does for file systems. The state folder and the database of the
// relay run the same [Run]; what only a shared store can show, several processes
// at work at once, is left out for one that is not shared.
package ledgertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// Place is where the state of one side lies, or will lie. Each call of Create,
// Open and View is what another process would do.
type Place interface {
	Create(role ledger.Role, c clock.Clock) (*ledger.Ledger, error)
	Open(role ledger.Role, c clock.Clock) (*ledger.Ledger, error)
	View(role ledger.Role, c clock.Clock) (*ledger.Ledger, error)
	Check(role ledger.Role) (ledger.Report, error)
	// Trust returns the store of identity and peers, and whether it is private.
	Trust() (s trust.Store, private bool)
}

// Goroutines is how many work at once on one ledger, as a batch does.
const Goroutines = 16

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// steps is a clock that moves on by a second each time it is asked.
type steps struct{ at time.Time }

func (s *steps) Now() time.Time {
	s.at = s.at.Add(time.Second)
	return s.at
}

// Run holds the store to the promises. place makes a new, empty place; shared
// says that several ledgers may be open for writing in it at once.
func Run(t *testing.T, shared bool, place func(testing.TB) Place) {
	tests := []struct {
		name   string
		shared bool
		test   func(*testing.T, Place)
	}{
		{"there is nothing yet", false, nothingYet},
		{"it is made once", false, madeOnce},
		{"it is the side's own", false, ownSide},
		{"the bytes are the same everywhere", false, sameBytes},
		{"a trip from the first line to the last", false, wholeTrip},
		{"no way back", false, noWayBack},
		{"a number is taken with its line", false, numbered},
		{"a view changes nothing", false, viewOnly},
		{"a bundle is kept once", false, keptOnce},
		{"goroutines on trips of their own", false, goroutines},
		{"goroutines that claim the same", false, claims},
		{"keys are claimed in one order", false, claimOrder},
		{"a claim that is given up waiting", false, claimCancelled},
		{"identity and peers", false, identity},
		{"two that are stale judge anew", true, stale},
		{"several at once", true, severalAtOnce},
		{"made by several at once", true, madeAtOnce},
	}
	for _, tt := range tests {
		if tt.shared && !shared {
			continue
		}
		t.Run(tt.name, func(t *testing.T) { tt.test(t, place(t)) })
	}
}

func create(t testing.TB, p Place) *ledger.Ledger {
	t.Helper()
	return opened(t)(p.Create(ledger.Relay, &steps{noon}))
}

func open(t testing.TB, p Place) *ledger.Ledger {
	t.Helper()
	return opened(t)(p.Open(ledger.Relay, &steps{noon.Add(time.Hour)}))
}

func opened(t testing.TB) func(*ledger.Ledger, error) *ledger.Ledger {
	return func(l *ledger.Ledger, err error) *ledger.Ledger {
		t.Helper()
		must(t, err)
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		return l
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, l *ledger.Ledger, event, trip string, data map[string]string) ledger.Entry {
	t.Helper()
	e, err := l.Append(event, trip, data)
	must(t, err)
	return e
}

func wantKind(t testing.TB, err error, kind fault.Kind, texts ...string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Fatalf("got %v of kind %v, want %v", err, fault.KindOf(err), kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

func wantWhole(t testing.TB, p Place, lines int) {
	t.Helper()
	r, err := p.Check(ledger.Relay)
	must(t, err)
	if r.Damage != nil || len(r.Entries) != lines || r.Torn != 0 {
		t.Fatalf("the journal has %d lines, want %d, and the damage %v", len(r.Entries), lines, r.Damage)
	}
}

func nothingYet(t *testing.T, p Place) {
	_, err := p.Open(ledger.Relay, clock.Fixed(noon))
	wantKind(t, err, fault.Locked, "was not made yet")
	if got := fault.HintOf(err); !strings.HasPrefix(got, "azs-relay init") {
		t.Errorf("hint %q", got)
	}
	_, err = p.View(ledger.Relay, clock.Fixed(noon))
	wantKind(t, err, fault.Locked)
	_, err = p.Check(ledger.Relay)
	wantKind(t, err, fault.Locked)
}

func madeOnce(t *testing.T, p Place) {
	l := create(t, p)
	head := l.Head()
	must(t, l.Close())
	_, err := p.Create(ledger.Relay, clock.Fixed(noon))
	wantKind(t, err, fault.Usage, "has a journal already")
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("errors.Is(%v, fs.ErrExist) is false", err)
	}
	if got := open(t, p).Head(); got != head {
		t.Errorf("head %s, want %s", got, head)
	}
	_, err = p.Create("kiosk", clock.Fixed(noon))
	wantKind(t, err, fault.Unexpected)
}

func ownSide(t *testing.T, p Place) {
	must(t, create(t, p).Close())
	_, err := p.Open(ledger.Agent, clock.Fixed(noon))
	wantKind(t, err, fault.NotForUs, "azs-agent", "azs-relay")
	_, err = p.View(ledger.Agent, clock.Fixed(noon))
	wantKind(t, err, fault.NotForUs)
	open(t, p) // it was given back
}

// sameBytes compares with a digest that was computed once, by hand: a journal can be
// copied from one store into another, line by line.
func sameBytes(t *testing.T, p Place) {
	l := create(t, p)
	add(t, l, "paired", "", map[string]string{"label": "a<b>&\"ü"})
	add(t, l, ledger.Seen, "T1", map[string]string{"digest": strings.Repeat("ab", 32), "pair": "P", "seq-in": "7"})
	_, err := l.AppendNext("put", "T1", "P", nil)
	must(t, err)
	const want = "ad008b0c008ff2051c7b24bf7f3392b1c7a57a2826945a35bfb3b90ab6f81c67"
	if l.Head() != want {
		t.Errorf("head %s, want %s", l.Head(), want)
	}
	wantWhole(t, p, 4)
}

func wholeTrip(t *testing.T, p Place) {
	l := create(t, p)
	digest := strings.Repeat("0f", 32)
	add(t, l, ledger.Seen, "T1", map[string]string{"digest": digest, "pair": "P", "seq-in": "3", "note": "old"})
	add(t, l, ledger.Seen, "T2", nil)
	add(t, l, ledger.Admitted, "T1", map[string]string{"note": "new"})
	add(t, l, ledger.Registered, "T1", nil)
	add(t, l, ledger.Answered, "T1", map[string]string{"pair": "P", "seq-out": "9"})
	last := add(t, l, ledger.Closed, "T1", nil)
	must(t, l.Close())
	_, err := l.Append("put", "", nil)
	wantKind(t, err, fault.Unexpected, "not open for writing")

	l = open(t, p)
	var got []string
	for _, trip := range l.Trips() {
		got = append(got, fmt.Sprintf("%s %s %s %d", trip.ID, trip.State, trip.Data["note"], len(trip.Entries)))
	}
	if diff := cmp.Diff([]string{"T1 closed new 5", "T2 seen  1"}, got); diff != "" {
		t.Errorf("trips differ (-want +got):\n%s", diff)
	}
	if trip, ok := l.FindByDigest(digest); !ok || trip.ID != "T1" {
		t.Errorf("found %v, %v by the digest", trip.ID, ok)
	}
	if in, out := l.LastSeqIn("P"), l.NextSeq("P"); in != 3 || out != 10 {
		t.Errorf("numbers %d and %d, want 3 and 10", in, out)
	}
	if diff := cmp.Diff(last, l.Entries()[6]); diff != "" {
		t.Errorf("the last line differs (-want +got):\n%s", diff)
	}
}

func noWayBack(t *testing.T, p Place) {
	l := create(t, p)
	for _, event := range []string{ledger.Seen, ledger.Admitted, ledger.Registered, ledger.Answered} {
		add(t, l, event, "T", nil)
	}
	head := l.Head()
	for _, event := range []string{ledger.Seen, ledger.Admitted, ledger.Registered} {
		_, err := l.Append(event, "T", nil)
		wantKind(t, err, fault.Replay, "trip T")
	}
	_, err := l.Append("no-such-event", "T", nil)
	wantKind(t, err, fault.Unexpected)
	if l.Head() != head {
		t.Error("a refused event changed the journal")
	}
	wantWhole(t, p, 5)
}

func numbered(t *testing.T, p Place) {
	l := create(t, p)
	for want := range uint64(3) {
		for _, pair := range []string{"P", "Q"} {
			seq, err := l.AppendNext("put", "", pair, map[string]string{"to": "x"})
			must(t, err)
			if seq != want+1 || l.NextSeq(pair) != want+2 {
				t.Errorf("number %d and next %d, want %d", seq, l.NextSeq(pair), want+1)
			}
		}
	}
	if _, err := l.AppendNext(ledger.Answered, "T", "P", nil); fault.KindOf(err) != fault.Replay {
		t.Errorf("a number for a trip that is not there: %v", err)
	}
	if got := l.NextSeq("P"); got != 4 {
		t.Errorf("a refused line used a number: the next is %d", got)
	}
	if e := l.Entries()[1]; e.Data["pair"] != "P" || e.Data["seq-out"] != "1" || e.Data["to"] != "x" {
		t.Errorf("the line is %v", e)
	}
}

func viewOnly(t *testing.T, p Place) {
	l := create(t, p)
	v := opened(t)(p.View(ledger.Relay, clock.Fixed(noon))) // beside the writer
	add(t, l, ledger.Seen, "T", nil)
	if len(v.Entries()) != 1 {
		t.Errorf("%d lines before it was told to read on", len(v.Entries()))
	}
	must(t, v.Refresh())
	if v.Head() != l.Head() {
		t.Errorf("head %s after reading on, want %s", v.Head(), l.Head())
	}
	_, err := v.Append("put", "", nil)
	wantKind(t, err, fault.Unexpected, "not open for writing")
	wantKind(t, v.Keep("a.azc", nil), fault.Unexpected, "not open for writing")
	_, _, err = v.Claim(t.Context(), "T")
	wantKind(t, err, fault.Unexpected, "not open for writing")
	wantWhole(t, p, 2)
}

func keptOnce(t *testing.T, p Place) {
	l := create(t, p)
	for _, name := range []string{"b.azc", "a-1.azc"} {
		for range 2 {
			must(t, l.Keep(name, []byte(name)))
		}
	}
	wantKind(t, l.Keep("b.azc", []byte("other")), fault.Refused, "b.azc", "5 bytes")
	wantKind(t, l.Keep("../b.azc", nil), fault.Unexpected)
	must(t, l.Keep("big.azc", make([]byte, 2<<20)))
	wantKind(t, l.Keep("bigger.azc", make([]byte, 2<<20+1)), fault.Refused)
	names, err := l.KeptNames()
	must(t, err)
	if diff := cmp.Diff([]string{"a-1.azc", "b.azc", "big.azc"}, names); diff != "" {
		t.Errorf("names differ (-want +got):\n%s", diff)
	}
	if got, err := l.Kept("b.azc"); err != nil || string(got) != "b.azc" {
		t.Errorf("kept %q, %v", got, err)
	}
	if _, err := l.Kept("none.azc"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("errors.Is(%v, fs.ErrNotExist) is false", err)
	}
}

// goroutines has many at work on one ledger, each on a trip of its own.
func goroutines(t *testing.T, p Place) {
	l := create(t, p)
	numbers := make(chan uint64, Goroutines)
	together(t, Goroutines, func(i int) error {
		trip := fmt.Sprintf("T%d", i)
		_, release, err := l.Claim(t.Context(), trip)
		if err != nil {
			return err
		}
		defer release()
		for _, event := range []string{ledger.Seen, ledger.Admitted, ledger.Registered} {
			if _, err := l.Append(event, trip, nil); err != nil {
				return err
			}
			l.Trips()
		}
		seq, err := l.AppendNext(ledger.Answered, trip, "P", nil)
		numbers <- seq
		return errors.Join(err, l.Keep(fmt.Sprintf("t%d.azc", i), []byte(trip)))
	})
	close(numbers)
	wantNumbers(t, numbers, Goroutines)
	wantWhole(t, p, 1+4*Goroutines)
}

// together runs f(0) to f(n-1) at once and waits for all.
func together(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// wantNumbers wants each of 1 to n once.
func wantNumbers(t *testing.T, numbers <-chan uint64, n int) {
	t.Helper()
	var got, want []uint64
	for seq := range numbers {
		got = append(got, seq)
		want = append(want, uint64(len(got)))
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(got) != n {
		t.Errorf("%d numbers were given, want %d, each once (-want +got):\n%s", len(got), n, diff)
	}
}

// claims has many do the whole trip, of which one may.
func claims(t *testing.T, p Place) {
	l := create(t, p)
	var inside, did atomic.Int32
	together(t, Goroutines, func(int) error {
		held, release, err := l.Claim(t.Context(), "trip T", "stamp S")
		if err != nil {
			return err
		}
		defer release()
		if n := inside.Add(1); n != 1 {
			return fmt.Errorf("%d hold the claim at once", n)
		}
		defer inside.Add(-1)
		if _, done := l.Trip("T"); !done {
			did.Add(1)
			_, err = l.Append(ledger.Seen, "T", nil)
		}
		return errors.Join(err, held.Err())
	})
	if did.Load() != 1 {
		t.Errorf("%d did the work, want 1", did.Load())
	}
	wantWhole(t, p, 2)
}

func claimOrder(t *testing.T, p Place) {
	l := create(t, p)
	together(t, 8, func(i int) error {
		keys := []string{"a", "b", "a"}
		if i%2 == 1 {
			slices.Reverse(keys)
			keys[1], keys[0] = keys[0], keys[1]
		}
		_, release, err := l.Claim(t.Context(), keys...)
		if err == nil {
			release()
		}
		return err
	})
}

func claimCancelled(t *testing.T, p Place) {
	l := create(t, p)
	held, release, err := l.Claim(t.Context(), "a")
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the operator went home")
	done := make(chan error)
	go func() {
		_, _, err := l.Claim(ctx, "b", "a")
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if held.Err() != nil {
		t.Errorf("the claim ended: %v", context.Cause(held))
	}
	release()
	_, release, err = l.Claim(t.Context(), "a", "b") // what was given up is free
	must(t, err)
	release()
}

func identity(t *testing.T, p Place) {
	create(t, p)
	s, private := p.Trust()
	_, err := s.Card()
	wantKind(t, err, fault.Locked, "holds no identity")
	insecure := trust.Protection{Insecure: true}
	if !private {
		_, err := s.Create(bundle.RoleRelay, "relay-1", insecure, noon, rand.Reader)
		wantKind(t, err, fault.Usage, "under a passphrase only")
	}
	pass := secret.New("correct horse battery staple")
	card, err := s.Create(bundle.RoleRelay, "relay-1", trust.Protection{Passphrase: pass, WorkFactor: 10}, noon, rand.Reader)
	must(t, err)
	_, err = s.Create(bundle.RoleRelay, "relay-2", trust.Protection{Passphrase: pass, WorkFactor: 10}, noon, rand.Reader)
	wantKind(t, err, fault.Usage, "identity already")
	id, err := s.Unlock(func() (secret.Text, error) { return pass, nil })
	must(t, err)
	if id.Card.Digest() != card.Digest() || !s.Protected() {
		t.Errorf("the identity is that of %q, protected %v", id.Card.Label, s.Protected())
	}
	_, err = s.Unlock(func() (secret.Text, error) { return secret.New("wrong"), nil })
	wantKind(t, err, fault.Locked)

	agent := func(label string) *trust.Card {
		c, err := trust.At(t.TempDir()).Create(bundle.RoleAgent, label, insecure, noon, rand.Reader)
		must(t, err)
		return c
	}
	one, other := agent("site-a"), agent("site-a")
	_, _, err = s.Pin(one, "words of the pair", noon, false)
	must(t, err)
	_, _, err = s.Pin(agent("site-b"), "words of the pair", noon, false)
	must(t, err)
	_, _, err = s.Pin(other, "words of the pair", noon, false)
	wantKind(t, err, fault.Usage, "another card is pinned")
	_, old, err := s.Pin(other, "words of the pair", noon, true)
	must(t, err)
	if old == nil || old.Card.Digest() != one.Digest() {
		t.Errorf("the replaced peer is %v", old)
	}
	for range 2 { // the second time over an older record of the same name
		_, err = s.Revoke("site-a")
		must(t, err)
		_, _, err = s.Pin(other, "words of the pair", noon, false)
		must(t, err)
	}
	_, err = s.Revoke("site-b")
	must(t, err)
	peers, err := s.Peers()
	must(t, err)
	if len(peers) != 1 || peers[0].Card.Digest() != other.Digest() || !peers[0].Pinned.Equal(noon) {
		t.Errorf("%d peers are pinned: %v", len(peers), peers)
	}
}

// stale has two ledgers of which each has not read what the other wrote.
func stale(t *testing.T, p Place) {
	a := create(t, p)
	b := open(t, p)
	add(t, a, ledger.Seen, "T", nil)
	_, err := b.Append(ledger.Seen, "T", nil)
	wantKind(t, err, fault.Replay, "trip T was already seen")
	add(t, a, ledger.Admitted, "T", nil)
	add(t, b, ledger.Registered, "T", nil) // allowed by what a wrote
	first, err := a.AppendNext(ledger.Answered, "T", "P", nil)
	must(t, err)
	second, err := b.AppendNext("put", "T", "P", nil)
	must(t, err)
	if first != 1 || second != 2 {
		t.Errorf("numbers %d and %d, want 1 and 2", first, second)
	}
	must(t, a.Keep("t.azc", []byte("t")))
	must(t, b.Keep("t.azc", []byte("t")))
	wantKind(t, b.Keep("t.azc", []byte("u")), fault.Refused)
	must(t, a.Refresh())
	if a.Head() != b.Head() {
		t.Errorf("heads %s and %s", a.Head(), b.Head())
	}
	wantWhole(t, p, 6)
}

// severalAtOnce has four ledgers with four goroutines each race for the same
// trips and numbers.
func severalAtOnce(t *testing.T, p Place) {
	const ledgers, each, trips = 4, 4, 10
	all := []*ledger.Ledger{create(t, p)}
	for len(all) < ledgers {
		all = append(all, open(t, p))
	}
	numbers := make(chan uint64, ledgers*each*trips)
	var mu sync.Mutex
	entered := map[string]int{}
	together(t, ledgers*each, func(i int) error {
		l := all[i%ledgers]
		for n := range trips {
			trip := fmt.Sprintf("T%d", n)
			for _, event := range []string{ledger.Seen, ledger.Admitted, ledger.Registered} {
				_, err := l.Append(event, trip, nil)
				if err != nil && fault.KindOf(err) != fault.Replay {
					return err
				}
				if err == nil {
					mu.Lock()
					entered[trip+event]++
					mu.Unlock()
				}
			}
			seq, err := l.AppendNext("put", trip, "P", nil)
			if err != nil {
				return err
			}
			numbers <- seq
		}
		return nil
	})
	close(numbers)
	wantNumbers(t, numbers, ledgers*each*trips)
	for what, times := range entered {
		if times != 1 {
			t.Errorf("%s was entered %d times", what, times)
		}
	}
	if len(entered) != 3*trips {
		t.Errorf("%d states were entered, want %d", len(entered), 3*trips)
	}
	wantWhole(t, p, 1+3*trips+ledgers*each*trips)
}

func madeAtOnce(t *testing.T, p Place) {
	var made atomic.Int32
	together(t, 4, func(int) error {
		l, err := p.Create(ledger.Relay, clock.Fixed(noon))
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err != nil {
			return err
		}
		made.Add(1)
		return l.Close()
	})
	if made.Load() != 1 {
		t.Errorf("%d made it, want 1", made.Load())
	}
	wantWhole(t, p, 1)
}
