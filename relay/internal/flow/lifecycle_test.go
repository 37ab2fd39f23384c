package flow

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// removal seals what azs-agent deactivate asks for.
func (far *farAgent) removal(t testing.TB, seed uint64, change func(*ask)) []byte {
	return far.request(t, spec(seed), func(a *ask) {
		a.request.Operation, a.request.TokenSHA256, a.draft.Payload = bundle.Unregister, bundle.Digest{}, nil
		if change != nil {
			change(a)
		}
	})
}

// renewal seals what azs-agent renew asks for.
func (far *farAgent) renewal(t testing.TB, seed uint64, change func(*ask)) []byte {
	return far.request(t, spec(seed), func(a *ask) {
		a.request.Operation = bundle.Renew
		if change != nil {
			change(a)
		}
	})
}

func (out *outside) handle(raw []byte, o Order) (*Outcome, error) {
	j, err := out.Read(raw)
	if err != nil {
		return nil, err
	}
	return out.Handle(context.Background(), j, o, nil)
}

func (out *outside) mustHandle(t testing.TB, raw []byte, o Order) *Outcome {
	t.Helper()
	got, err := out.handle(raw, o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// names are the registrations that Azure holds, by name.
func (out *outside) names() string {
	var all []string
	for _, r := range out.azure.State().Registrations {
		all = append(all, r.ID[strings.LastIndex(r.ID, "/")+1:])
	}
	return strings.Join(all, " ")
}

// Fault 18 of the official flow: UnRegister compares with a variable that does
// not exist, so that it matches, and deletes, the first registration that has no
// cloud id. Three registrations, one of them without: only the one of the stamp
// goes, and for another stamp none.
func TestARegistrationWithoutCloudIDIsNobodys(t *testing.T) {
	standing := func(name string, seed uint64) azuretest.Option {
		r := azuretest.Registration{Group: "azurestack", Name: name}
		if seed != 0 {
			r.CloudID = officialtest.CloudID(seed)
		}
		return azuretest.WithRegistration(r)
	}
	options := []azuretest.Option{standing("a-without", 0), standing("b-of-one", 1), standing("c-of-two", 2)}
	token := func(seed uint64) []byte { return []byte(officialtest.Token(spec(seed))) }
	for _, tt := range []struct {
		name string
		do   func(*testing.T, *outside) error
		kind fault.Kind
		left string
	}{
		{"a request, by its cloud id", func(t *testing.T, out *outside) error {
			_, err := out.handle(out.agent.removal(t, 1, nil), Order{})
			return err
		}, 0, "a-without c-of-two"},
		{"a request whose name is that of none", func(t *testing.T, out *outside) error {
			_, err := out.handle(out.agent.removal(t, 1, func(a *ask) { a.request.ExpectRegistration = "a-without" }), Order{})
			return err
		}, fault.Permanent, "a-without b-of-one c-of-two"},
		{"a request whose name is another stamp's", func(t *testing.T, out *outside) error {
			_, err := out.handle(out.agent.removal(t, 1, func(a *ask) { a.request.ExpectRegistration = "c-of-two" }), Order{})
			return err
		}, fault.NotForUs, "a-without b-of-one c-of-two"},
		{"a request of a stamp that is not there", func(t *testing.T, out *outside) error {
			o, err := out.handle(out.agent.removal(t, 3, nil), Order{})
			if err == nil && (o.Removed != "" || o.Content.Note == "" || len(o.Warnings) == 0) {
				t.Errorf("outcome %+v", o)
			}
			return err
		}, 0, "a-without b-of-one c-of-two"},
		{"a cloud id", func(t *testing.T, out *outside) error {
			return out.force(Selection{CloudID: strings.ToUpper(officialtest.CloudID(2))})
		}, 0, "a-without b-of-one"},
		{"a cloud id that is not there", func(t *testing.T, out *outside) error {
			return out.force(Selection{CloudID: officialtest.CloudID(3)})
		}, fault.Permanent, "a-without b-of-one c-of-two"},
		{"no cloud id", func(t *testing.T, out *outside) error { return out.force(Selection{}) }, fault.Usage, "a-without b-of-one c-of-two"},
		{"a plain token", func(t *testing.T, out *outside) error {
			s, err := SelectToken(token(1))
			if err != nil {
				t.Fatal(err)
			}
			return out.force(s)
		}, 0, "a-without c-of-two"},
		{"a plain token of another stamp", func(t *testing.T, out *outside) error {
			s, err := SelectToken(token(3))
			if err != nil {
				t.Fatal(err)
			}
			return out.force(s)
		}, fault.Permanent, "a-without b-of-one c-of-two"},
		{"the name of the one without", func(t *testing.T, out *outside) error { return out.force(Selection{Name: "a-without"}) }, 0, "b-of-one c-of-two"},
		{"a renewal", func(t *testing.T, out *outside) error {
			_, err := out.handle(out.agent.renewal(t, 3, nil), Order{})
			return err
		}, 0, "a-without AzureStack-" + officialtest.CloudID(3) + " b-of-one c-of-two"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := newOutside(t, options...)
			err := tt.do(t, out)
			if fault.KindOf(err) != tt.kind {
				t.Errorf("kind %v, want %v: %v", fault.KindOf(err), tt.kind, err)
			}
			if got := out.names(); got != tt.left {
				t.Errorf("left %q, want %q", got, tt.left)
			}
		})
	}
}

// force removes what a selection names, without the agent's word.
func (out *outside) force(s Selection) error {
	j, err := out.Select(s, Order{Subscription: out.azure.Subscription}, true)
	if err != nil {
		return err
	}
	_, err = out.Handle(context.Background(), j, Order{Subscription: out.azure.Subscription}, nil)
	return err
}

// A removal that was begun is finished, whatever it was that failed, and only
// once; fault 26 of the official flow reports a deletion that was not done.
func TestARemovalAndTheNextRun(t *testing.T) {
	for _, f := range []azuretest.Fault{
		{Method: "GET", Path: "*/registrations/*", Status: 503, Times: 1000},
		{Method: "DELETE", Path: locks, Code: "AuthorizationFailed"},
		{Method: "DELETE", Path: registrations, Code: "AuthorizationFailed"},
		{Method: "DELETE", Path: registrations, Status: 503},
		{Method: "DELETE", Path: registrations, Status: 500, Acted: true},
	} {
		t.Run(fmt.Sprint(f.Method, f.Path, f.Status, f.Code), func(t *testing.T) {
			out := newOutside(t)
			out.mustRegister(t, out.agent.request(t, spec(1), nil))
			raw := out.agent.removal(t, 1, nil)
			out.azure.Fail(f)
			o, err := out.handle(raw, Order{})
			if err == nil && !f.Acted {
				t.Fatal("no error")
			}
			if f.Method == "DELETE" && f.Code != "" {
				if st := out.azure.State(); len(st.Registrations) != 1 || len(st.Locks) != 1 {
					t.Errorf("what could not be removed is not as it was: %+v", st)
				}
			}
			out.azure.ClearFaults()
			if o == nil {
				o = out.mustHandle(t, raw, Order{})
			}
			if out.names() != "" || o.Answer == nil || state(t, out.Ledger, o.Trip) != ledger.Answered {
				t.Errorf("left %q, outcome %+v", out.names(), o)
			}
			calls := len(out.azure.Requests())
			if again := out.mustHandle(t, raw, Order{}); !again.Again || !bytes.Equal(again.Answer.Text(), o.Answer.Text()) || len(out.azure.Requests()) != calls {
				t.Error("the second answer is another one, or Azure was asked")
			}
			m, ans, key := out.agent.open(t, o.Answer)
			if ans.Operation != bundle.Unregister || key != "" || ans.CloudID != officialtest.CloudID(1) || m.Expires != agentTime.Add(fortnight) {
				t.Errorf("answer %+v", ans)
			}
			rec := &bundle.Receipt{Label: "site-a", Outcome: bundle.OutcomeApplied, CloudID: ans.CloudID, Applied: agentTime, Journal: bundle.Sum(nil)}
			if trip, _, err := out.Close(out.agent.receipt(t, o.Answer, rec)); err != nil || trip.State != ledger.Closed {
				t.Errorf("%s, %v", trip.State, err)
			}
			wantWholeJournal(t, out.dir, ledger.Relay)
		})
	}
}

// A renewal that fails at any of its calls is finished by the next run: one
// registration, with its lock, and one answer.
func TestARenewalAndTheNextRun(t *testing.T) {
	for _, f := range []azuretest.Fault{
		{Method: "DELETE", Path: locks, Status: 503},
		{Method: "DELETE", Path: registrations, Status: 503},
		{Method: "DELETE", Path: registrations, Code: "AuthorizationFailed"},
		{Method: "PUT", Path: "*/registrations/AzureStack-*", Status: 503},
		{Method: "PUT", Path: "*/registrations/AzureStack-*", Code: "AuthorizationFailed"},
		{Method: "PUT", Path: "*/registrations/AzureStack-*", Status: 500, Acted: true, Times: 20},
		{Method: "POST", Path: keys, Status: 503},
	} {
		t.Run(fmt.Sprint(f.Method, f.Path, f.Status, f.Code), func(t *testing.T) {
			out := newOutside(t)
			first := out.mustRegister(t, out.agent.request(t, spec(1), nil))
			raw := out.agent.renewal(t, 1, nil)
			out.azure.Fail(f)
			if _, err := out.handle(raw, Order{}); err == nil {
				t.Fatal("no error")
			}
			out.azure.ClearFaults()
			o := out.mustHandle(t, raw, Order{})
			st := out.azure.State()
			if len(st.Registrations) != 1 || len(st.Locks) != 1 || out.names() != first.ID.Name() {
				t.Errorf("state %+v", st)
			}
			if n := out.azure.Count("DELETE", "*/registrations/"+first.ID.Name()); n < 1 {
				t.Errorf("%d deletions", n)
			}
			if again := out.mustHandle(t, raw, Order{}); !bytes.Equal(again.Answer.Text(), o.Answer.Text()) {
				t.Error("the second answer is another one")
			}
			wantWholeJournal(t, out.dir, ledger.Relay)
		})
	}
}

// From the state removed on, what Azure holds of the stamp is the new
// registration: a second run must not take it for the old one.
func TestANewRegistrationIsNotRemovedAsTheOldOne(t *testing.T) {
	out := newOutside(t)
	out.mustRegister(t, out.agent.request(t, spec(1), nil))
	raw := out.agent.renewal(t, 1, nil)
	j := out.mustRead(t, raw)
	p, err := out.Plan(t.Context(), j, Order{})
	if err != nil {
		t.Fatal(err)
	}
	// As after a kill between the PUT and its line in the journal.
	stop := fmt.Errorf("killed")
	for i := range p.Steps {
		if p.Steps[i].Request != nil && p.Steps[i].Request.Method == "PUT" && p.Steps[i].run != nil {
			put := p.ID
			p.Steps[i].run = func(ctx context.Context, _ *Outcome) error {
				if _, err := out.Azure.PutRegistration(ctx, put, j.Token.Text); err != nil {
					t.Error(err)
				}
				return stop
			}
			break
		}
	}
	if _, err := out.Run(t.Context(), p); err != stop {
		t.Fatal(err)
	}
	if left, err := out.Plan(t.Context(), out.mustRead(t, raw), Order{}); err != nil || left.Old != nil || len(left.Notes) != 0 {
		t.Errorf("the new registration is planned away: %v, %q, %v", left.Old, left.Notes, err)
	}
	deleted := out.azure.Count("DELETE", registrations)
	o := out.mustHandle(t, raw, Order{})
	if n := out.azure.Count("DELETE", registrations); n != deleted {
		t.Errorf("%d more deletions", n-deleted)
	}
	if out.names() != o.ID.Name() {
		t.Errorf("left %q", out.names())
	}
}

// What a plan of each verb lists is what is sent, in its order.
func TestEveryPlanIsWhatIsSent(t *testing.T) {
	for name, raw := range map[string]func(*testing.T, *outside) []byte{
		"unregister": func(t *testing.T, out *outside) []byte { return out.agent.removal(t, 1, nil) },
		"renew":      func(t *testing.T, out *outside) []byte { return out.agent.renewal(t, 1, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			out := newOutside(t)
			out.mustRegister(t, out.agent.request(t, spec(1), nil))
			j := out.mustRead(t, raw(t, out))
			before := len(out.azure.Requests())
			p, err := out.Plan(t.Context(), j, Order{})
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			for _, s := range p.Steps {
				if s.Request != nil {
					path, _, _ := strings.Cut(strings.TrimPrefix(s.Request.URL, out.azure.URL), "?")
					want = append(want, s.Request.Method+" "+strings.ToLower(path))
				}
			}
			planned := len(out.azure.Requests())
			for _, r := range out.azure.Requests()[before:planned] {
				if r.Method != "GET" {
					t.Errorf("the plan sent %s %s", r.Method, r.Path)
				}
			}
			if _, err := out.Run(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			for _, r := range out.azure.Requests()[planned:] {
				got = append(got, r.Method+" "+strings.ToLower(r.Path))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("planned and sent differ (-planned +sent):\n%s", diff)
			}
		})
	}
}

// In place means the same name, group and cloud id.
func TestInPlace(t *testing.T) {
	out := newOutside(t)
	raw := out.agent.renewal(t, 1, nil)
	_, err := out.handle(raw, Order{InPlace: true})
	wantKind(t, err, fault.Permanent, "none can be updated in place")
	out.mustRegister(t, out.agent.request(t, spec(2), func(a *ask) { a.request.ExpectRegistration = "other" }))
	_, err = out.handle(out.agent.renewal(t, 2, nil), Order{InPlace: true})
	wantKind(t, err, fault.NotForUs, "only the same name and group")
	_, err = out.handle(out.agent.renewal(t, 2, nil), Order{InPlace: true, NameSuffix: "2"})
	wantKind(t, err, fault.Usage, "--in-place keeps")
	out.mustHandle(t, out.agent.renewal(t, 2, func(a *ask) { a.request.ExpectRegistration = "other" }), Order{InPlace: true})
	if n := out.azure.Count("DELETE", "*"); n != 0 {
		t.Errorf("%d deletions", n)
	}
}

// Many jobs at once through one relay: every stamp has its answer, and every
// answer its own number. Run with -race.
func TestManyAtOnce(t *testing.T) {
	out := newOutside(t)
	var said sync.Mutex
	out.Say = func(string, ...any) { said.Lock(); defer said.Unlock() }
	const stamps = 12
	var raws [][]byte
	for seed := uint64(1); seed <= stamps; seed++ {
		raws = append(raws, out.agent.request(t, spec(seed), nil))
	}
	run := func(raws [][]byte) []*Outcome {
		results := make([]*Outcome, len(raws))
		var wg sync.WaitGroup
		for i, raw := range raws {
			wg.Go(func() {
				var err error
				if results[i], err = out.handle(raw, Order{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return results
	}
	run(raws[:1]) // makes the group, which is one for all
	seqs := map[uint64]bool{}
	count := func(all []*Outcome) {
		for _, o := range all {
			if o == nil || o.Answer == nil {
				t.Fatal("an answer is missing")
			}
			m, err := o.Answer.Peek()
			if err != nil {
				t.Fatal(err)
			}
			seqs[m.Seq] = true
		}
	}
	count(run(raws))
	if len(seqs) != stamps || len(out.azure.State().Registrations) != stamps {
		t.Errorf("%d numbers, %d registrations", len(seqs), len(out.azure.State().Registrations))
	}
	// The same request twice at once: one registration, one answer.
	both := run([][]byte{raws[0], raws[0], raws[0]})
	if !bytes.Equal(both[0].Answer.Text(), both[1].Answer.Text()) || !bytes.Equal(both[0].Answer.Text(), both[2].Answer.Text()) {
		t.Error("two answers to one request")
	}
	var gone [][]byte
	for seed := uint64(1); seed <= stamps; seed++ {
		gone = append(gone, out.agent.removal(t, seed, nil))
	}
	count(run(gone))
	if out.names() != "" || len(seqs) != 2*stamps {
		t.Errorf("left %q, %d numbers", out.names(), len(seqs))
	}
	wantWholeJournal(t, out.dir, ledger.Relay)
}

// callsOf counts the calls of Resource Manager behind a mark of the log.
func callsOf(out *outside, from int) (reads, writes int) {
	for _, r := range out.azure.Requests()[from:] {
		switch {
		case !strings.HasPrefix(strings.ToLower(r.Path), "/subscriptions"):
		case r.Method == "GET":
			reads++
		default:
			writes++
		}
	}
	return reads, writes
}

// The table in docs/AZURE.md: as few calls as the work needs. A call more, or one
// fewer, has to be written there.
func TestCallsPerVerb(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "AZURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	other := azuretest.WithGroup(azuretest.Group{Name: "stamps"})
	for _, tt := range []struct {
		verb          string
		do            func(*testing.T, *outside)
		reads, writes int
	}{
		{"`register`", func(t *testing.T, out *outside) { out.mustHandle(t, out.agent.request(t, spec(1), nil), Order{}) }, 6, 3},
		{"`unregister BUNDLE`, found where it is expected", func(t *testing.T, out *outside) { out.mustHandle(t, out.agent.removal(t, 9, nil), Order{}) }, 5, 2},
		{"`unregister --cloud-id` or `--token-file`", func(t *testing.T, out *outside) {
			if err := out.force(Selection{CloudID: officialtest.CloudID(9)}); err != nil {
				t.Fatal(err)
			}
		}, 5, 2},
		{"`register` of a renewal", func(t *testing.T, out *outside) { out.mustHandle(t, out.agent.renewal(t, 9, nil), Order{}) }, 8, 5},
		{"`register --in-place` of a renewal", func(t *testing.T, out *outside) {
			out.mustHandle(t, out.agent.renewal(t, 9, nil), Order{InPlace: true})
		}, 6, 3},
		{"`move`", func(t *testing.T, out *outside) {
			o := Order{Subscription: out.azure.Subscription, Name: "AzureStack-" + officialtest.CloudID(9)}
			j, err := out.Move(o, Target{Group: "stamps"})
			if err == nil {
				_, err = out.Handle(t.Context(), j, o, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 8, 5}, // Azure's answers to the two long calls are asked for once each, at the least
		{"`key`", func(t *testing.T, out *outside) {
			id, err := azure.ParseRegistrationID(out.azure.State().Registrations[0].ID)
			if err == nil {
				_, err = out.PlainKey(t.Context(), id)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 0, 1},
	} {
		t.Run(tt.verb, func(t *testing.T) {
			out := newOutside(t, other)
			out.mustHandle(t, out.agent.request(t, spec(9), nil), Order{}) // group and an old registration are there
			if row := fmt.Sprintf("| %s | %d | %d |", tt.verb, tt.reads, tt.writes); !strings.Contains(string(doc), row) {
				t.Errorf("docs/AZURE.md has no row %s", row)
			}
			from := len(out.azure.Requests())
			tt.do(t, out)
			if reads, writes := callsOf(out, from); reads != tt.reads || writes != tt.writes {
				var log []string
				for _, r := range out.azure.Requests()[from:] {
					log = append(log, r.Method+" "+r.Path)
				}
				t.Errorf("%d reads and %d writes, want %d and %d:\n%s", reads, writes, tt.reads, tt.writes, strings.Join(log, "\n"))
			}
		})
	}
}

// What the identity may not do is refused before the first change, not half way:
// fault 11 of the official flow registers and then cannot lock.
func TestMissingRightsChangeNothing(t *testing.T) {
	out := newOutside(t, azuretest.WithClient(azuretest.Client{Secret: "s", Actions: []string{"*"}, NotActions: []string{"Microsoft.Authorization/locks/write"}}),
		azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	raw := out.agent.request(t, spec(1), nil)
	_, err := out.handle(raw, Order{})
	if fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), "lacks the action Microsoft.Authorization/locks/write") {
		t.Errorf("%v", err)
	}
	if _, writes := callsOf(out, 0); writes != 0 || out.names() != "" {
		t.Errorf("%d writes were sent, registered %q", writes, out.names())
	}
	out.mustHandle(t, raw, Order{NoLock: true}) // the same request is taken by who does not need the right
}

// The lock comes back in every outcome of a move: fault 20 of the official flow
// leaves the registration without it.
func TestAMoveLocksInEveryOutcome(t *testing.T) {
	for _, tt := range []struct {
		fault azuretest.Fault
		kind  fault.Kind
	}{
		{azuretest.Fault{Method: "POST", Path: "*/validateMoveResources", Code: "RequestDisallowedByPolicy"}, fault.Permanent},
		{azuretest.Fault{Method: "POST", Path: "*/validateMoveResources", Status: 503}, fault.Unreachable},
		{azuretest.Fault{Method: "DELETE", Path: locks, Code: "AuthorizationFailed"}, fault.Permanent},
		{azuretest.Fault{Method: "DELETE", Path: locks, Status: 500, Acted: true, Times: 1}, 0},
		{azuretest.Fault{Method: "POST", Path: "*/moveResources", Code: "RequestDisallowedByPolicy"}, fault.Permanent},
		{azuretest.Fault{Method: "POST", Path: "*/moveResources", Status: 503}, fault.Unreachable},
	} {
		t.Run(fmt.Sprint(tt.fault.Method, tt.fault.Path, tt.fault.Status, tt.fault.Code), func(t *testing.T) {
			out := newOutside(t, azuretest.WithGroup(azuretest.Group{Name: "stamps"}))
			reg := out.mustHandle(t, out.agent.request(t, spec(1), nil), Order{})
			out.azure.Fail(tt.fault)
			o := Order{Subscription: out.azure.Subscription, Name: reg.ID.Name()}
			move := func() error {
				j, err := out.Move(o, Target{Group: "stamps"})
				if err == nil {
					_, err = out.Handle(t.Context(), j, o, nil)
				}
				return err
			}
			if err := move(); fault.KindOf(err) != tt.kind {
				t.Errorf("kind %v, want %v: %v", fault.KindOf(err), tt.kind, err)
			}
			if n := len(out.azure.State().Locks); n != 1 {
				t.Errorf("%d locks after the failure", n)
			}
			out.azure.ClearFaults()
			if tt.kind != 0 {
				if err := move(); err != nil {
					t.Fatal(err)
				}
			}
			st := out.azure.State()
			if len(st.Locks) != 1 || len(st.Registrations) != 1 || !strings.Contains(st.Registrations[0].ID, "/stamps/") || !strings.Contains(strings.ToLower(st.Locks[0].ID), "/stamps/") {
				t.Errorf("state %+v", st)
			}
			for _, trip := range out.Ledger.Trips() {
				if trip.State == ledger.Moving {
					t.Errorf("trip %s is still moving", trip.ID)
				}
			}
			if s := Stamps(out.Ledger); len(s) != 1 || !s[0].NeedsKey || !strings.Contains(s[0].RegistrationID, "/stamps/") {
				t.Errorf("stamps %+v", s)
			}
		})
	}
}
