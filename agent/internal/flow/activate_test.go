package flow

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// officialKey is the activation key that an honest answer carries.
func officialKey(t testing.TB, r *Request, s officialtest.Spec) string {
	t.Helper()
	claims, err := officialtest.KeyPayload(officialtest.Token(s), officialtest.Place{SubscriptionID: subscription, ResourceGroup: "azurestack", RegistrationName: r.Content.ExpectRegistration})
	if err != nil {
		t.Fatal(err)
	}
	return officialtest.Key(claims, nil)
}

func TestAnAnswerIsUsedOnce(t *testing.T) {
	in := newInside(t)
	r := in.request(t, spec(1), order())
	answer := in.relay.answer(t, r, spec(1), nil)
	in.clock.at = noon.Add(time.Hour)
	file := keyFile(t)
	act := mustActivate(t, in, answer, file)

	key := officialKey(t, r, spec(1))
	got, err := os.ReadFile(string(file))
	if err != nil || strings.TrimSpace(string(got)) != key {
		t.Errorf("the key file has %d bytes, %v; the key has %d", len(got), err, len(key))
	}
	if info, err := os.Stat(string(file)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	if act.Again || act.Outcome != bundle.OutcomeWritten || act.Trip != r.Trip || state(t, in.Ledger, r.Trip) != ledger.Applied {
		t.Errorf("activation %+v", act)
	}
	// The relay's clock stands four years ahead; the crossing took an hour at most.
	if want := relayTime.Sub(noon.Add(time.Hour)); act.SkewFrom != want {
		t.Errorf("skew from %v, want %v", act.SkewFrom, want)
	}
	if want := relayTime.Add(-time.Minute).Sub(noon); act.SkewTo != want {
		t.Errorf("skew to %v, want %v", act.SkewTo, want)
	}

	// The receipt, as the relay opens it.
	_, v, err := trust.Verify(in.relay.Card, []trust.Peer{in.relay.agent}, act.Receipt, bundle.KindReceipt)
	if err != nil {
		t.Fatal(err)
	}
	body, err := in.relay.Open(v)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := bundle.Split(answer)
	if err != nil {
		t.Fatal(err)
	}
	rec := body.Content.(*bundle.Receipt)
	want := &bundle.Receipt{Label: "site-a", Outcome: bundle.OutcomeWritten, CloudID: r.Content.CloudID, Applied: noon.Add(time.Hour), KeySHA256: bundle.Sum([]byte(key)), Journal: rec.Journal}
	if diff := cmp.Diff(want, rec); diff != "" || v.Manifest.Re != sealed.Digest() || v.Manifest.Seq != 2 {
		t.Errorf("receipt of %+v differs (-want +got):\n%s", v.Manifest, diff)
	}
	// The journal's head when the answer was used stands in the receipt.
	entries := in.Ledger.Entries()
	if last := entries[len(entries)-1]; last.Event != "receipt" || last.Prev != rec.Journal.String() {
		t.Errorf("last event %s after %s, the receipt says %s", last.Event, last.Prev, rec.Journal)
	}

	// Again, in any spelling, to the same file or another one.
	in.clock.at = noon.Add(48 * time.Hour)
	for name, raw := range map[string][]byte{"same": answer, "wire": sealed.Wire()} {
		for _, to := range []KeyFile{file, keyFile(t)} {
			_, err := in.Activate(context.Background(), raw, to)
			wantKind(t, err, fault.Replay, "was already used on 2026-11-23T13:00:00Z")
			if _, err := os.Stat(string(to)); to != file && err == nil {
				t.Errorf("%s: a second key file was written", name)
			}
		}
	}
	// A second answer to the same request.
	_, err = in.Activate(context.Background(), in.relay.answer(t, r, spec(1), nil), keyFile(t))
	wantKind(t, err, fault.Replay, "was answered already by "+sealedID(t, answer))

	wantNoSecret(t, in.dir, officialtest.Token(spec(1)), key)
	wantWholeJournal(t, in.dir, ledger.Agent)
}

func sealedID(t testing.TB, raw []byte) string {
	t.Helper()
	b, err := bundle.Split(raw)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Peek()
	if err != nil {
		t.Fatal(err)
	}
	return m.Bundle.String()
}

// Threat: a relay that was taken over, or a confused one, answers with what was
// not asked for. Nothing is written, and the right answer is still welcome.
func TestAnAnswerThatIsNotTheExpectedOneIsRefused(t *testing.T) {
	otherName := "AzureStack-" + officialtest.CloudID(2)
	for _, tt := range []struct {
		name   string
		change func(*reply)
		kind   fault.Kind
		text   string
	}{
		// The outside.
		{"for another request", func(a *reply) { a.draft.Re = bundle.Sum([]byte("another")) }, fault.NotForUs, "a request that this agent does not have"},
		{"other expiry outside", func(a *reply) { a.draft.Expires = a.draft.Expires.Add(time.Hour) }, fault.NotForUs, "says its request expires"},
		// The inside.
		{"operation", func(a *reply) { a.answer.Operation = bundle.Renew }, fault.NotForUs, `operation "renew", want "register"`},
		{"cloud id", func(a *reply) { a.answer.CloudID = officialtest.CloudID(2) }, fault.NotForUs, "cloud id"},
		{"subscription", func(a *reply) { a.answer.Subscription = officialtest.CloudID(3) }, fault.NotForUs, `subscription "` + officialtest.CloudID(3) + `", want "` + subscription},
		{"group", func(a *reply) { a.answer.ResourceGroup = "other" }, fault.NotForUs, `resource group "other", want "azurestack"`},
		{"registration", func(a *reply) { a.answer.Registration = otherName }, fault.NotForUs, "registration"},
		{"created", func(a *reply) { a.answer.RequestCreated = a.answer.RequestCreated.Add(time.Second) }, fault.NotForUs, "request created"},
		{"expires", func(a *reply) { a.answer.RequestExpires = a.answer.RequestExpires.Add(time.Second) }, fault.NotForUs, "request expires"},
		// The key.
		{"another digest", func(a *reply) { a.answer.KeySHA256 = bundle.Sum([]byte("another")) }, fault.NotForUs, "the answer says"},
		{"key of another stamp", func(a *reply) { a.spec = spec(2) }, fault.NotForUs, "cloud id is"},
		{"key of another subscription", func(a *reply) { a.place.SubscriptionID = officialtest.CloudID(3) }, fault.NotForUs, "subscription is"},
		{"key of another group", func(a *reply) { a.place.ResourceGroup = "other" }, fault.NotForUs, "resource group is"},
		{"key of another registration", func(a *reply) { a.place.RegistrationName = otherName }, fault.NotForUs, "registration is"},
		{"key of another billing model", func(a *reply) { a.spec.BillingModel = "Development" }, fault.NotForUs, "billing model is"},
		{"key reports usage", func(a *reply) { a.spec.UsageReporting = true }, fault.NotForUs, "usage reporting is true, expected false"},
		{"key syndicates", func(a *reply) { a.spec.MarketplaceSyndication = true }, fault.NotForUs, "marketplace syndication is true, expected false"},
		{"key expired", func(a *reply) { a.place.Expires = "2026-11-22T00:00:00.0000000Z" }, fault.Expired, "the activation key expired"},
		{"key cut", func(a *reply) { a.key = "eyJraWQiOiJ4IiwgImFsZyI6IlJTMjU2In0.eyJ" }, fault.Refused, ""},
		{"no key", func(a *reply) { a.key = " " }, fault.Refused, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newInside(t)
			r := in.request(t, spec(1), order())
			file := keyFile(t)
			bad := in.relay.answer(t, r, spec(1), tt.change)
			for range 2 {
				_, err := in.Activate(context.Background(), bad, file)
				wantKind(t, err, tt.kind, tt.text)
			}
			if _, err := os.Lstat(string(file)); err == nil {
				t.Error("a key file was written")
			}
			if got, _ := in.Ledger.Trip(r.Trip); !IsPending(got) {
				t.Errorf("the request is %s", got.State)
			}
			mustActivate(t, in, in.relay.answer(t, r, spec(1), nil), file)
		})
	}
}

// Threat: whole bundles are swapped on the stick.
func TestSwappedAnswers(t *testing.T) {
	in := newInside(t)
	a, b := in.request(t, spec(1), order()), in.request(t, spec(2), order())
	toA := in.relay.answer(t, a, spec(1), nil)
	// An answer whose outside names A and whose inside is B's.
	crossed := in.relay.answer(t, b, spec(2), func(x *reply) { x.draft.Re = a.Bundle.Digest() })
	_, err := in.Activate(context.Background(), crossed, keyFile(t))
	wantKind(t, err, fault.NotForUs, "cloud id")
	// Another pair: a second relay answers what the first was asked.
	second := in.pairAnother(t, "relay-2")
	_, err = in.Activate(context.Background(), second.answer(t, a, spec(1), nil), keyFile(t))
	wantKind(t, err, fault.NotForUs, `request `+a.Trip+` went to relay "relay-1"`)
	// Not a peer at all, not an answer at all, not for this agent.
	stranger := newInside(t)
	_, err = in.Activate(context.Background(), stranger.relay.answer(t, a, spec(1), func(x *reply) { x.to = in.relay.agent }), keyFile(t))
	wantKind(t, err, fault.NotForUs, "no pinned peer has that key")
	_, err = in.Activate(context.Background(), in.relay.answer(t, a, spec(1), func(x *reply) { x.to = stranger.relay.agent }), keyFile(t))
	wantKind(t, err, fault.NotForUs)
	_, err = in.Activate(context.Background(), a.Bundle.Text(), keyFile(t))
	wantKind(t, err, fault.NotForUs, "was made here")
	// One flipped byte.
	for _, at := range []int{40, len(toA) / 4, len(toA) / 2, len(toA) - 60} {
		bad := bytes.Clone(toA)
		bad[at] ^= 1
		if _, err := in.Activate(context.Background(), bad, keyFile(t)); fault.KindOf(err) != fault.Refused && fault.KindOf(err) != fault.NotForUs {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	// The relay is revoked.
	peers := in.Peers
	in.Peers = peers[1:]
	_, err = in.Activate(context.Background(), toA, keyFile(t))
	wantKind(t, err, fault.NotForUs, "no pinned peer has that key")
	in.Peers = peers

	mustActivate(t, in, toA, keyFile(t))
}

// Threat: an answer of an earlier registration of the same stamp comes late, or a
// relay went back to an old backup.
func TestASequenceNumberThatWentBack(t *testing.T) {
	in := newInside(t)
	first := in.request(t, spec(1), order())
	mustActivate(t, in, in.relay.answer(t, first, spec(1), func(a *reply) { a.draft.Seq = 5 }), keyFile(t))
	second, other := in.request(t, spec(1), order()), in.request(t, spec(2), order())
	for _, seq := range []uint64{1, 5} {
		_, err := in.Activate(context.Background(), in.relay.answer(t, second, spec(1), func(a *reply) { a.draft.Seq = seq }), keyFile(t))
		wantKind(t, err, fault.Replay, "with the number 5 was used for the same stamp")
	}
	// Answers for different stamps may overtake each other on the way.
	mustActivate(t, in, in.relay.answer(t, other, spec(2), func(a *reply) { a.draft.Seq = 2 }), keyFile(t))
	mustActivate(t, in, in.relay.answer(t, second, spec(1), func(a *reply) { a.draft.Seq = 6 }), keyFile(t))
}

// Expiry is judged by the clock that wrote it: the agent's own.
func TestExpiryByTheOwnClock(t *testing.T) {
	in := newInside(t)
	r := in.request(t, spec(1), order())
	answer := in.relay.answer(t, r, spec(1), nil)
	in.clock.at = noon.Add(fortnight + time.Second)
	_, err := in.Activate(context.Background(), answer, keyFile(t))
	wantKind(t, err, fault.Expired, "expired on 2026-12-07T12:00:00Z by this agent's clock, which says 2026-12-07T12:00:01Z")
	in.clock.at = noon.Add(fortnight)
	mustActivate(t, in, answer, keyFile(t))
}

// The key's expiry is Azure's time, which the relay knows better than a stamp
// whose clock is years ahead.
func TestAKeyExpiryByTheRelaysClock(t *testing.T) {
	in := newInside(t)
	in.clock.at = relayTime.AddDate(2, 0, 0)
	r := in.request(t, spec(1), order())
	expires := func(at string) func(*reply) { return func(a *reply) { a.place.Expires = at } }
	_, err := in.Activate(context.Background(), in.relay.answer(t, r, spec(1), expires("2031-02-03T04:05:06.0000000Z")), keyFile(t))
	wantKind(t, err, fault.Expired, "the activation key expired at 2031-02-03T04:05:06Z")
	act := mustActivate(t, in, in.relay.answer(t, r, spec(1), expires("2031-02-03T04:05:07.0000000Z")), keyFile(t))
	if len(act.Warnings) == 0 || !strings.Contains(strings.Join(act.Warnings, "\n"), "expired at 2031-02-03T04:05:07Z by this clock, which says 2033-02-03T04:05:06Z") {
		t.Errorf("warnings %q", act.Warnings)
	}
}

// A file that stands in the way is found before the answer is used up.
func TestAKeyFileInTheWay(t *testing.T) {
	in := newInside(t)
	r := in.request(t, spec(1), order())
	answer := in.relay.answer(t, r, spec(1), nil)
	file := keyFile(t)
	if err := os.WriteFile(string(file), []byte("the key of another stamp"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := in.Activate(context.Background(), answer, file)
	wantKind(t, err, fault.Usage, "is not replaced")
	if got := state(t, in.Ledger, r.Trip); got != ledger.Admitted {
		t.Errorf("the answer is used up: the trip is %s", got)
	}
	if got, _ := os.ReadFile(string(file)); string(got) != "the key of another stamp" {
		t.Errorf("the file holds %q", got)
	}
	// A folder that is missing is found later; the same answer finishes elsewhere.
	_, err = in.Activate(context.Background(), answer, KeyFile(filepath.Join(t.TempDir(), "none", "key.txt")))
	wantKind(t, err, fault.Medium)
	act := mustActivate(t, in, answer, keyFile(t))
	if !act.Again {
		t.Error("the run did not finish the one before")
	}
}

// An answer whose trip was interrupted is finished after the expiry, too, and no
// other answer takes its place.
func TestAnInterruptedTripIsFinishedByTheSameAnswerOnly(t *testing.T) {
	in := newInside(t)
	r := in.request(t, spec(1), order())
	answer, other := in.relay.answer(t, r, spec(1), nil), in.relay.answer(t, r, spec(1), nil)
	if _, err := in.Activate(context.Background(), answer, KeyFile(filepath.Join(t.TempDir(), "none", "key.txt"))); err == nil {
		t.Fatal("a key was written into a folder that is not there")
	}
	in.clock.at = noon.Add(2 * fortnight)
	_, err := in.Activate(context.Background(), other, keyFile(t))
	wantKind(t, err, fault.Replay, "was answered already by "+sealedID(t, answer))
	mustActivate(t, in, answer, keyFile(t))
	_, err = in.Activate(context.Background(), answer, keyFile(t))
	wantKind(t, err, fault.Replay, "already used on 2026-11-23T12:00:00Z")
}

func TestUsable(t *testing.T) {
	in := newInside(t)
	r := in.request(t, spec(1), order())
	answer := in.relay.answer(t, r, spec(1), nil)
	usable := func() error {
		b, err := bundle.Split(answer)
		if err != nil {
			t.Fatal(err)
		}
		_, v, err := trust.Verify(in.Identity.Card, in.Peers, b, bundle.KindAnswer)
		if err != nil {
			t.Fatal(err)
		}
		return Usable(in.Ledger, v, b.Digest())
	}
	if err := usable(); err != nil {
		t.Error(err)
	}
	mustActivate(t, in, answer, keyFile(t))
	wantKind(t, usable(), fault.Replay, "was already used")
}
