package flow

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/pep"
	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const activation = "New-AzureStackActivation"

// stamp is a simulated stamp and what its clients said and how they waited.
type stamp struct {
	*peptest.Server
	told   []string
	sleeps []time.Duration
}

func newStamp(t *testing.T, opts ...peptest.Option) *stamp {
	t.Helper()
	s := &stamp{Server: peptest.NewServer(append([]peptest.Option{peptest.WithNodes(4)}, opts...)...)}
	t.Cleanup(s.Server.Close)
	return s
}

// endpoint is one run's way to the stamp.
func (s *stamp) endpoint() *Endpoint {
	tell := func(sentence string) { s.told = append(s.told, sentence) }
	return &Endpoint{
		Options: pep.Options{
			Addresses: s.Addresses, Random: rand.Reader,
			Dial:  pep.Dial(sealed.Options{User: s.User, Password: secret.New(s.Password)}, rand.Reader),
			Sleep: func(ctx context.Context, d time.Duration) error { s.sleeps = append(s.sleeps, d); return ctx.Err() },
			Say:   func(format string, args ...any) { tell(fmt.Sprintf(format, args...)) },
		},
		Parameters: pep.TokenParameters{BillingModel: "Capacity", AgreementNumber: "1234567"},
		Tell:       tell,
	}
}

func (s *stamp) said() string { return strings.Join(s.told, "\n") }

// wantNoShells looks that every session was ended.
func (s *stamp) wantNoShells(t *testing.T) {
	t.Helper()
	if n := s.Stamp().Shells; n != 0 {
		t.Errorf("%d shells are left on the endpoint", n)
	}
}

// request makes a request with a token of the stamp.
func (s *stamp) request(t *testing.T, in *inside) *Request {
	t.Helper()
	e := s.endpoint()
	defer e.Close(t.Context())
	r, err := in.Token(t.Context(), e, order())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// answer is the relay's answer to such a request.
func (s *stamp) answer(t *testing.T, in *inside, r *Request) []byte {
	t.Helper()
	return in.relay.answer(t, r, spec(1), func(a *reply) {
		a.answer.Operation = r.Content.Operation
		a.key = tokenKey(t, r)
	})
}

// tokenKey is the activation key for the token of a request.
func tokenKey(t *testing.T, r *Request) string {
	t.Helper()
	claims, err := officialtest.KeyPayload(r.Token.Text.Reveal(), officialtest.Place{SubscriptionID: subscription, ResourceGroup: "azurestack", RegistrationName: r.Content.ExpectRegistration})
	if err != nil {
		t.Fatal(err)
	}
	return officialtest.Key(claims, nil)
}

// activate is one run of activate; change sets what the operator said.
func (s *stamp) activate(ctx context.Context, in *inside, answer []byte, change func(*Endpoint)) (*Activation, error) {
	e := s.endpoint()
	if change != nil {
		change(e)
	}
	defer e.Close(ctx)
	return in.Activate(ctx, answer, e)
}

// killed is a run that loses the endpoint in the middle of the activation and
// leaves its session there, as one does that is killed.
func (s *stamp) killed(t *testing.T, in *inside, answer []byte, faults ...peptest.Fault) {
	t.Helper()
	e := s.endpoint()
	for _, f := range faults {
		s.Fail(f)
	}
	if _, _, err := e.Session(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Fail(peptest.Fault{Kind: peptest.WSManFault, Action: "Receive", Code: 995, Times: 1})
	_, err := in.Activate(t.Context(), answer, e)
	wantKind(t, err, fault.Unreachable, "it is not known whether the stamp was activated")
	if hint := fault.HintOf(err); !strings.Contains(hint, "the same command again") {
		t.Errorf("hint %q", hint)
	}
	if s.Stamp().Shells == 0 {
		t.Fatal("the session is not on the endpoint")
	}
}

// openAttempts counts what the journal says of a trip's activations.
func attempts(in *inside, trip string) (open, ended int) {
	for _, e := range in.Ledger.Entries() {
		if e.Event != "activating" || e.Trip != trip {
			continue
		}
		if e.Data[dataAttempt] == "open" {
			open++
		} else {
			ended++
		}
	}
	return open, ended
}

func TestTokenAndActivationOnTheEndpoint(t *testing.T) {
	in, s := newInside(t), newStamp(t, peptest.WithActivation(20*time.Millisecond))
	r := s.request(t, in)
	c := r.Content
	if !strings.EqualFold(c.CloudID, s.CloudID) || c.StampVersion != peptest.DefaultVersion || c.Nodes != 4 || c.TokenVersion != "6.0" ||
		c.BillingModel != "Capacity" || c.AgreementNumber != "1234567" || c.UsageReporting == nil || *c.UsageReporting {
		t.Errorf("request %+v", c)
	}
	answer := s.answer(t, in, r)
	act, err := s.activate(t.Context(), in, answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := s.Stamp()
	if act.Outcome != bundle.OutcomeApplied || state(t, in.Ledger, r.Trip) != ledger.Confirmed || !st.Activated || st.Activations != 1 || st.KeyPairs != 1 {
		t.Errorf("activation %+v, trip %s, stamp %+v", act, state(t, in.Ledger, r.Trip), st)
	}
	if !strings.Contains(s.said(), "Completed (100 %)") {
		t.Errorf("told %q", s.said())
	}
	s.wantNoShells(t)
	// Again, and after --assume, and with a file.
	for _, assume := range []string{"", "applied", "failed"} {
		_, err := s.activate(t.Context(), in, answer, func(e *Endpoint) { e.Assume = assume })
		wantKind(t, err, fault.Replay, "already used")
	}
	if st := s.Stamp(); st.Activations != 1 {
		t.Errorf("stamp %+v", st)
	}
	wantNoSecret(t, in.dir, tokenKey(t, r), r.Token.Text.Reveal(), s.Password)
	wantWholeJournal(t, in.dir, ledger.Agent)
}

// A contradiction is refused before anything is dialled.
func TestAContradictionOpensNoSession(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	e := s.endpoint()
	e.Parameters.UsageReporting = true
	_, err := in.Token(t.Context(), e, order())
	wantKind(t, err, fault.Usage, "contradicts")
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// Threat: the answer meets another stamp than it was made for. Nothing is sent to
// that one, and the answer is not used up.
func TestAnAnswerAtAnotherStamp(t *testing.T) {
	in, right, wrong := newInside(t), newStamp(t), newStamp(t)
	r := right.request(t, in)
	answer := right.answer(t, in, r)
	_, err := wrong.activate(t.Context(), in, answer, nil)
	wantKind(t, err, fault.NotForUs, r.Content.CloudID, wrong.CloudID)
	if st := wrong.Stamp(); st.Activations != 0 || st.Shells != 0 {
		t.Errorf("the wrong stamp is %+v", st)
	}
	if got := state(t, in.Ledger, r.Trip); got != ledger.Admitted {
		t.Errorf("the trip is %s", got)
	}
	if act, err := right.activate(t.Context(), in, answer, nil); err != nil || act.Again || !right.Stamp().Activated {
		t.Errorf("%+v, %v, stamp %+v", act, err, right.Stamp())
	}
}

// An endpoint that cannot be reached costs nothing.
func TestAnEndpointThatIsDownUsesNothingUp(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	r := s.request(t, in)
	answer := s.answer(t, in, r)
	s.Fail(peptest.Fault{Kind: peptest.Refused})
	_, err := s.activate(t.Context(), in, answer, nil)
	wantKind(t, err, fault.Unreachable, s.Addresses[0])
	if open, ended := attempts(in, r.Trip); open+ended != 0 || state(t, in.Ledger, r.Trip) != ledger.Admitted {
		t.Errorf("%d, %d attempts, trip %s", open, ended, state(t, in.Ledger, r.Trip))
	}
	if err := s.ClearFaults(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.activate(t.Context(), in, answer, nil); err != nil {
		t.Error(err)
	}
}

// Threat: the run that activated the stamp was killed. The next one takes its
// session up; while the first may run, no second activation is sent, and where its
// end stays unknown, the operator says what became of it.
func TestAKilledActivation(t *testing.T) {
	hold := peptest.Fault{Kind: peptest.Hold, Cmdlet: activation, Times: 1}
	setup := func(t *testing.T, faults ...peptest.Fault) (*inside, *stamp, *Request, []byte) {
		in, s := newInside(t), newStamp(t)
		r := s.request(t, in)
		answer := s.answer(t, in, r)
		s.killed(t, in, answer, faults...)
		if open, ended := attempts(in, r.Trip); open != 1 || ended != 0 || state(t, in.Ledger, r.Trip) != ledger.Opened {
			t.Fatalf("%d open and %d ended attempts, trip %s", open, ended, state(t, in.Ledger, r.Trip))
		}
		return in, s, r, answer
	}
	t.Run("ends while it is followed", func(t *testing.T) {
		in, s, _, answer := setup(t, hold)
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := s.Wait(ctx, "Reconnect", 1)
			s.Release()
			done <- err
		}()
		_, err := s.activate(t.Context(), in, answer, nil)
		wantKind(t, err, fault.Unreachable, "by the earlier run")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if hint := fault.HintOf(err); !strings.Contains(hint, "--assume applied") || !strings.Contains(s.said(), "has come to its end") {
			t.Errorf("hint %q, told %q", hint, s.said())
		}
		if st := s.Stamp(); st.Activations != 1 || !st.Activated {
			t.Errorf("stamp %+v", st)
		}
		act, err := s.activate(t.Context(), in, answer, func(e *Endpoint) { e.Assume = "applied" })
		if err != nil || act.Outcome != bundle.OutcomeApplied || !act.Again || s.Stamp().Activations != 1 {
			t.Errorf("%+v, %v, stamp %+v", act, err, s.Stamp())
		}
		s.wantNoShells(t)
	})
	t.Run("failed", func(t *testing.T) {
		in, s, r, answer := setup(t, peptest.Fault{Kind: peptest.Terminating, Cmdlet: activation, Text: "the rack is upside down", Times: 1})
		act, err := s.activate(t.Context(), in, answer, nil)
		if err != nil || !act.Again {
			t.Fatalf("%+v, %v", act, err)
		}
		if open, ended := attempts(in, r.Trip); open != 2 || ended != 1 || !strings.Contains(s.said(), "that activation failed") || !strings.Contains(s.said(), "upside down") {
			t.Errorf("%d open and %d ended attempts; told %q", open, ended, s.said())
		}
		if st := s.Stamp(); st.Activations != 1 || !st.Activated {
			t.Errorf("stamp %+v", st)
		}
		s.wantNoShells(t)
	})
	t.Run("refused as busy", func(t *testing.T) {
		// The pipeline that was lost had only been told that the stamp is busy.
		in, s, _, answer := setup(t, peptest.Fault{Kind: peptest.Busy, Cmdlet: activation, Times: 1})
		if _, err := s.activate(t.Context(), in, answer, nil); err != nil || s.Stamp().Activations != 1 {
			t.Errorf("%v, stamp %+v", err, s.Stamp())
		}
	})
	t.Run("its session is gone", func(t *testing.T) {
		in, s, r, answer := setup(t, hold)
		s.Fail(peptest.Fault{Kind: peptest.Vanish, Action: "Reconnect", Times: 1})
		for range 2 {
			_, err := s.activate(t.Context(), in, answer, nil)
			wantKind(t, err, fault.Unreachable, "by the earlier run", "InvalidSelectors")
		}
		if open, ended := attempts(in, r.Trip); open != 1 || ended != 0 || s.Stamp().Activations != 1 {
			t.Errorf("%d open and %d ended attempts, stamp %+v", open, ended, s.Stamp())
		}
		// The operator is wrong: it has not failed, it is running.
		_, err := s.activate(t.Context(), in, answer, func(e *Endpoint) { e.Assume = "failed" })
		wantKind(t, err, fault.NothingYet, "busy with another action")
		if st := s.Stamp(); st.Activations != 1 {
			t.Errorf("stamp %+v", st)
		}
		s.Release()
	})
	t.Run("assumed to have failed", func(t *testing.T) {
		in, s, _, answer := setup(t, peptest.Fault{Kind: peptest.Terminating, Cmdlet: activation, Text: "no", Times: 1})
		act, err := s.activate(t.Context(), in, answer, func(e *Endpoint) { e.Assume = "failed" })
		if err != nil || act.Outcome != bundle.OutcomeApplied || s.Stamp().Activations != 1 || !s.Stamp().Activated {
			t.Errorf("%+v, %v, stamp %+v", act, err, s.Stamp())
		}
	})
	t.Run("unreachable now", func(t *testing.T) {
		in, s, r, answer := setup(t, hold)
		s.Fail(peptest.Fault{Kind: peptest.HTML})
		_, err := s.activate(t.Context(), in, answer, nil)
		wantKind(t, err, fault.Unreachable, "HTTP status 503")
		if open, ended := attempts(in, r.Trip); open != 1 || ended != 0 {
			t.Errorf("%d open and %d ended attempts", open, ended)
		}
	})
	t.Run("the next run is stopped too", func(t *testing.T) {
		in, s, r, answer := setup(t, hold)
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := s.activate(ctx, in, answer, func(e *Endpoint) {
			tell := e.Tell
			e.Tell = func(sentence string) {
				tell(sentence)
				if strings.Contains(sentence, "In progress") {
					cancel(fault.New(fault.Cancelled, "the operator stopped it"))
				}
			}
		})
		wantKind(t, err, fault.Cancelled, "the operator stopped it")
		if open, ended := attempts(in, r.Trip); open != 1 || ended != 0 {
			t.Errorf("%d open and %d ended attempts", open, ended)
		}
		_, err = s.activate(t.Context(), in, answer, nil)
		wantKind(t, err, fault.Unreachable, "by the earlier run")
		if st := s.Stamp(); st.Activations != 1 || st.Shells != 0 {
			t.Errorf("stamp %+v", st)
		}
		s.Release()
	})
}

// Ctrl-C leaves the outcome unknown: the stamp's action goes on.
func TestAnActivationThatTheOperatorStops(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	r := s.request(t, in)
	s.Fail(peptest.Fault{Kind: peptest.Hold, Cmdlet: activation, Times: 1})
	ctx, cancel := context.WithCancelCause(t.Context())
	answer := s.answer(t, in, r)
	_, err := s.activate(ctx, in, answer, func(e *Endpoint) {
		e.Tell = func(sentence string) {
			if strings.Contains(sentence, "In progress") {
				cancel(fault.New(fault.Cancelled, "the operator stopped it"))
			}
		}
	})
	wantKind(t, err, fault.Unreachable, "it is not known whether the stamp was activated", "the operator stopped it")
	if open, ended := attempts(in, r.Trip); open != 1 || ended != 0 {
		t.Errorf("%d open and %d ended attempts", open, ended)
	}
	s.wantNoShells(t)
	_, err = s.activate(t.Context(), in, answer, nil)
	wantKind(t, err, fault.Unreachable, "by the earlier run")
	s.Release()
}

// A stamp that refuses is asked again by the same answer, and its refusal closes
// the attempt.
func TestAnActivationThatFails(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	r := s.request(t, in)
	answer := s.answer(t, in, r)
	s.Fail(peptest.Fault{Kind: peptest.Terminating, Cmdlet: activation, Text: "the rack is upside down", Times: 1})
	_, err := s.activate(t.Context(), in, answer, nil)
	wantKind(t, err, fault.Permanent, "upside down")
	if open, ended := attempts(in, r.Trip); open != 1 || ended != 1 {
		t.Errorf("%d open and %d ended attempts", open, ended)
	}
	if act, err := s.activate(t.Context(), in, answer, nil); err != nil || !act.Again || s.Stamp().Activations != 1 {
		t.Errorf("%+v, %v, stamp %+v", act, err, s.Stamp())
	}
}

func TestABusyStamp(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	r := s.request(t, in)
	answer := s.answer(t, in, r)
	busy := func(cmdlet string, times int) peptest.Fault {
		return peptest.Fault{Kind: peptest.Busy, Cmdlet: cmdlet, Times: times}
	}
	s.Fail(busy(activation, 1))
	_, err := s.activate(t.Context(), in, answer, nil)
	wantKind(t, err, fault.NothingYet, "busy")
	if len(s.sleeps) != 0 {
		t.Errorf("waited %v without --wait", s.sleeps)
	}
	// Patience that ends too early, then enough of it.
	s.Fail(busy(activation, 3))
	_, err = s.activate(t.Context(), in, answer, func(e *Endpoint) { e.Wait = 2 * busyPause })
	wantKind(t, err, fault.NothingYet, "busy")
	if diff := cmp.Diff([]time.Duration{busyPause, busyPause}, s.sleeps); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	s.Fail(busy(activation, 2))
	if _, err := s.activate(t.Context(), in, answer, func(e *Endpoint) { e.Wait = time.Hour }); err != nil {
		t.Error(err)
	}
	if st := s.Stamp(); st.Activations != 1 || !st.Activated {
		t.Errorf("stamp %+v", st)
	}
	// No more than the operator allows.
	s.sleeps = nil
	s.Fail(busy("New-RegistrationToken", 0))
	short := s.endpoint()
	short.Wait = busyPause + busyPause/2
	_, _, err = short.Token(t.Context())
	short.Close(t.Context())
	wantKind(t, err, fault.NothingYet, "busy")
	if diff := cmp.Diff([]time.Duration{busyPause, busyPause / 2}, s.sleeps); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	if err := s.ClearFaults(); err != nil {
		t.Fatal(err)
	}
	// The token and the key pair wait as well; every failed attempt was closed.
	s.Fail(busy("New-RegistrationToken", 1))
	s.Fail(busy("Set-RegistrationKeyPair", 1))
	e := s.endpoint()
	e.Wait = time.Hour
	defer e.Close(t.Context())
	if _, _, err := e.Token(t.Context()); err != nil {
		t.Error(err)
	}
	if open, ended := attempts(in, r.Trip); open != ended+1 {
		t.Errorf("%d open and %d ended attempts", open, ended)
	}
	// A wait that is stopped.
	s.Fail(busy("New-RegistrationToken", 0))
	ctx, cancel := context.WithCancel(t.Context())
	e.Options.Sleep = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	_, _, err = e.Token(ctx)
	wantKind(t, err, fault.Cancelled)
}

// registered makes a whole registration.
func (s *stamp) registered(t *testing.T, in *inside) *Request {
	t.Helper()
	r := s.request(t, in)
	if _, err := s.activate(t.Context(), in, s.answer(t, in, r), nil); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDeactivate(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	first := s.registered(t, in)
	in.clock.at = noon.Add(time.Hour)
	e := s.endpoint()
	r, err := in.Deactivate(t.Context(), e, TokenOrder{Valid: fortnight, Note: "the rack moves"})
	e.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &bundle.Request{
		Label: "site-a", Operation: bundle.Unregister, CloudID: s.CloudID, StampVersion: peptest.DefaultVersion, Nodes: 4, BillingModel: "Capacity",
		ExpectSubscription: subscription, ExpectResourceGroup: "azurestack", ExpectRegistration: first.Content.ExpectRegistration, Note: "the rack moves",
	}
	if diff := cmp.Diff(want, r.Content); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if st := s.Stamp(); st.Activated || st.Deactivations != 1 || st.Shells != 0 {
		t.Errorf("stamp %+v", st)
	}
	// The request may be made again, the removal is not repeated.
	e = s.endpoint()
	again, err := in.Deactivate(t.Context(), e, TokenOrder{Valid: fortnight, ResourceGroup: "other", ExpectSubscription: strings.ToUpper(subscription), Registration: "mine"})
	e.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := again.Content; c.ExpectResourceGroup != "other" || c.ExpectSubscription != subscription || c.ExpectRegistration != "mine" {
		t.Errorf("request %+v", c)
	}
	if diff := cmp.Diff([]string{r.Trip}, again.Superseded); diff != "" || s.Stamp().Deactivations != 1 {
		t.Errorf("stamp %+v, superseded (-want +got):\n%s", s.Stamp(), diff)
	}
	// Registered anew, it can be removed anew.
	s.registered(t, in)
	e = s.endpoint()
	defer e.Close(t.Context())
	if _, err := in.Deactivate(t.Context(), e, TokenOrder{Valid: fortnight}); err != nil || s.Stamp().Deactivations != 2 {
		t.Errorf("%v, stamp %+v", err, s.Stamp())
	}
	wantWholeJournal(t, in.dir, ledger.Agent)
}

// A removal that the stamp refuses makes no request.
func TestARemovalThatFails(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	s.registered(t, in)
	s.Fail(peptest.Fault{Kind: peptest.Terminating, Cmdlet: "Remove-AzureStackActivation", Text: "not today", Times: 1})
	e := s.endpoint()
	defer e.Close(t.Context())
	_, err := in.Deactivate(t.Context(), e, TokenOrder{Valid: fortnight})
	wantKind(t, err, fault.Permanent, "not today")
	if n := len(Pending(in.Ledger)); n != 0 || deactivated(in.Ledger, s.CloudID) {
		t.Errorf("%d requests are pending", n)
	}
}

func TestRenew(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	// A stamp that nobody remembers.
	e := s.endpoint()
	e.Parameters = pep.TokenParameters{}
	_, err := in.Renew(t.Context(), e, order())
	wantKind(t, err, fault.Usage, "no earlier registration")
	if len(s.Requests()) != 0 {
		t.Errorf("%d requests were sent", len(s.Requests()))
	}
	first := s.registered(t, in)
	renew := func(p pep.TokenParameters, o TokenOrder) (*Request, error) {
		e := s.endpoint()
		e.Parameters = p
		defer e.Close(t.Context())
		o.Valid = fortnight
		return in.Renew(t.Context(), e, o)
	}
	// The token is refused after the removal: the next run does not remove again.
	s.Fail(peptest.Fault{Kind: peptest.Terminating, Cmdlet: "New-RegistrationToken", Text: "not today", Times: 1})
	_, err = renew(pep.TokenParameters{}, TokenOrder{})
	wantKind(t, err, fault.Permanent, "not today")
	r, err := renew(pep.TokenParameters{}, TokenOrder{})
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Stamp(); st.Deactivations != 1 || st.Activated || st.Tokens != 2 {
		t.Errorf("stamp %+v", st)
	}
	want := *first.Content
	want.Operation, want.TokenSHA256 = bundle.Renew, r.Content.TokenSHA256
	if diff := cmp.Diff(&want, r.Content); diff != "" || r.Content.TokenSHA256 == first.Content.TokenSHA256 {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if _, err := s.activate(t.Context(), in, s.answer(t, in, r), nil); err != nil {
		t.Fatal(err)
	}
	// With other values.
	r, err = renew(pep.TokenParameters{BillingModel: "Custom", MsAssetTag: "tag"}, TokenOrder{CloudID: s.CloudID, ResourceGroup: "other", MsAssetTag: "tag", BillingModel: "Custom"})
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Content; c.BillingModel != "Custom" || c.MsAssetTag != "tag" || c.ExpectResourceGroup != "other" || c.ExpectSubscription != subscription {
		t.Errorf("request %+v", c)
	}
	wantWholeJournal(t, in.dir, ledger.Agent)
}

// Usage reporting is remembered too, as long as the billing model stays.
func TestRenewRemembersUsageReporting(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	e := s.endpoint()
	e.Parameters = pep.TokenParameters{BillingModel: "Development", UsageReporting: true}
	r, err := in.Token(t.Context(), e, order())
	e.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.activate(t.Context(), in, s.answer(t, in, r), nil); err != nil {
		t.Fatal(err)
	}
	no := false
	for _, tt := range []struct {
		name  string
		p     pep.TokenParameters
		usage *bool
		want  bool
	}{
		{"same model", pep.TokenParameters{}, nil, true},
		{"said otherwise", pep.TokenParameters{}, &no, false},
		{"another model", pep.TokenParameters{BillingModel: "Capacity", AgreementNumber: "1"}, nil, false},
	} {
		e := s.endpoint()
		e.Parameters = tt.p
		r, err := in.Renew(t.Context(), e, TokenOrder{Valid: fortnight, UsageReporting: tt.usage})
		e.Close(t.Context())
		if err != nil || r.Content.UsageReporting == nil || *r.Content.UsageReporting != tt.want {
			t.Errorf("%s: %+v, %v, want %v", tt.name, r, err, tt.want)
		}
	}
}

// A plain key of the official scripts goes the same way.
func TestActivateKey(t *testing.T) {
	in, s, other := newInside(t), newStamp(t), newStamp(t)
	key := tokenKey(t, s.request(t, in))
	run := func(s *stamp, assume string) error {
		e := s.endpoint()
		e.Assume = assume
		defer e.Close(t.Context())
		_, err := in.ActivateKey(t.Context(), []byte("\ufeff"+key+"\r\n"), e)
		return err
	}
	wantKind(t, run(other, ""), fault.NotForUs, "cloud id")
	if st := other.Stamp(); st.Activations != 0 {
		t.Errorf("the other stamp is %+v", st)
	}
	// A run that is lost, then one that cannot learn its end.
	s.Fail(peptest.Fault{Kind: peptest.Garbage, Action: "Command", After: 1, Times: 1})
	wantKind(t, run(s, ""), fault.Unreachable, "not known")
	wantKind(t, run(s, ""), fault.Unreachable, "by the earlier run")
	if st := s.Stamp(); st.Activations != 1 {
		t.Errorf("stamp %+v", st)
	}
	if err := run(s, "applied"); err != nil {
		t.Error(err)
	}
	if err := run(s, ""); err != nil { // the journal knows that it was applied
		t.Error(err)
	}
	if st := s.Stamp(); st.Activations != 1 || st.Shells != 0 {
		t.Errorf("stamp %+v", st)
	}
	wantNoSecret(t, in.dir, key)
}

// The journal remembers what the stamp told and says when it must renew.
func TestGrown(t *testing.T) {
	in, s := newInside(t), newStamp(t)
	r := s.registered(t, in)
	trip := func() ledger.Trip { got, _ := in.Ledger.Trip(r.Trip); return got }
	if got := Grown(in.Ledger, trip()); got != "" {
		t.Errorf("grown without a word of the stamp: %q", got)
	}
	note := func(cloudID string, nodes int) {
		if err := NoteStamp(in.Ledger, pep.Stamp{CloudID: cloudID, Version: pep.Version{1, 2311, 1, 22}, Nodes: nodes}); err != nil {
			t.Fatal(err)
		}
	}
	note(s.CloudID, 4)
	note(officialtest.CloudID(99), 8) // another stamp
	if got := Grown(in.Ledger, trip()); got != "" {
		t.Errorf("grown with the same nodes: %q", got)
	}
	note(strings.ToUpper(s.CloudID), 6)
	if got := Grown(in.Ledger, trip()); !strings.Contains(got, "registered with 4 nodes and has 6 now") || !strings.Contains(got, "azs-agent renew") {
		t.Errorf("grown: %q", got)
	}
	note(s.CloudID, 0) // a stamp that does not tell
	if got := Grown(in.Ledger, trip()); got != "" {
		t.Errorf("grown: %q", got)
	}
	wantWholeJournal(t, in.dir, ledger.Agent)
}

// Threat: the connection breaks anywhere. It is cut once at every exchange, before
// the endpoint acts, after that, and in the middle of its reply. Every run succeeds
// or says that the outcome is unknown; the stamp is never activated twice, and no
// session is left.
func TestAnActivationThatIsCutAnywhere(t *testing.T) {
	in := newInside(t)
	for _, kind := range []peptest.Kind{peptest.DropBefore, peptest.DropAfter, peptest.DropIdle, peptest.Cut} {
		outcomes := map[string]int{}
		for at := 0; ; at++ {
			s := newStamp(t)
			claims, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{CloudID: s.CloudID}), officialtest.Place{SubscriptionID: subscription, ResourceGroup: "azurestack", RegistrationName: "AzureStack-" + s.CloudID})
			if err != nil {
				t.Fatal(err)
			}
			key := []byte(officialtest.Key(claims, nil))
			run := func(assume string) error {
				e := s.endpoint()
				e.Assume = assume
				defer e.Close(t.Context())
				_, err := in.ActivateKey(t.Context(), key, e)
				return err
			}
			s.Fail(peptest.Fault{Kind: kind, After: at, Times: 1})
			outcome := "done"
			if err := run(""); err != nil {
				wantKind(t, err, fault.Unreachable)
				outcome = "done by the second run"
				if err := run(""); err != nil {
					wantKind(t, err, fault.Unreachable, "by the earlier run")
					outcome = "failed, as the operator saw"
					assume := "failed"
					if s.Stamp().Activated {
						assume, outcome = "applied", "applied, as the operator saw"
					}
					if err := run(assume); err != nil {
						t.Errorf("%s at %d: with --assume %s: %v", kind, at, assume, err)
					}
				}
			}
			outcomes[outcome]++
			if st := s.Stamp(); st.Activations != 1 || !st.Activated || st.Shells != 0 {
				t.Errorf("%s at %d: %s, and the stamp is %+v", kind, at, outcome, st)
			}
			struck := false
			for _, r := range s.Requests() {
				struck = struck || r.Fault == kind
			}
			if !struck { // the run has no more exchanges than that
				if at < 12 {
					t.Errorf("%s: only %d exchanges were cut", kind, at)
				}
				break
			}
		}
		t.Logf("%s: %v", kind, outcomes)
	}
}

// The same while a later run takes up an activation whose reply was lost.
func TestATakingUpThatIsCutAnywhere(t *testing.T) {
	in := newInside(t)
	for _, kind := range []peptest.Kind{peptest.DropBefore, peptest.DropAfter, peptest.DropIdle, peptest.Cut} {
		outcomes := map[string]int{}
		for at := 0; ; at++ {
			s := newStamp(t)
			claims, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{CloudID: s.CloudID}), officialtest.Place{SubscriptionID: subscription, ResourceGroup: "azurestack", RegistrationName: "AzureStack-" + s.CloudID})
			if err != nil {
				t.Fatal(err)
			}
			key := []byte(officialtest.Key(claims, nil))
			run := func(assume string) error {
				e := s.endpoint()
				e.Assume = assume
				defer e.Close(t.Context())
				_, err := in.ActivateKey(t.Context(), key, e)
				return err
			}
			s.Fail(peptest.Fault{Kind: peptest.DropAfter, Action: "Command", After: 1, Times: 1}) // the first asks who the stamp is
			wantKind(t, run(""), fault.Unreachable, "it is not known whether the stamp was activated")
			if st := s.Stamp(); st.Shells != 1 {
				t.Fatalf("%d shells wait for the next run, want 1", st.Shells)
			}
			first := len(s.Requests())
			s.Fail(peptest.Fault{Kind: kind, After: at, Times: 1})
			err = run("")
			if err := s.ClearFaults(); err != nil {
				t.Fatal(err)
			}
			exchanges := s.Requests()[first:]
			wantKind(t, err, fault.Unreachable)
			outcome := "seen to its end"
			if !strings.Contains(err.Error(), "nothing more to read") {
				outcome = "cut"
			}
			outcomes[outcome]++
			assume := "failed"
			if s.Stamp().Activated {
				assume = "applied"
			}
			if err := run(assume); err != nil {
				t.Errorf("%s at %d: with --assume %s: %v", kind, at, assume, err)
			}
			if st := s.Stamp(); st.Activations != 1 || !st.Activated || st.Shells != 0 {
				t.Errorf("%s at %d: %s, and the stamp is %+v", kind, at, outcome, st)
			}
			if !slices.ContainsFunc(exchanges, func(r peptest.Request) bool { return r.Fault == kind }) {
				if at < 8 {
					t.Errorf("%s: only %d exchanges were cut", kind, at)
				}
				break
			}
		}
		t.Logf("%s: %v", kind, outcomes)
	}
}

func TestATokenThatIsCutAnywhere(t *testing.T) {
	for _, kind := range []peptest.Kind{peptest.DropBefore, peptest.DropAfter, peptest.DropIdle, peptest.Cut} {
		for at := 0; ; at++ {
			s := newStamp(t)
			s.Fail(peptest.Fault{Kind: kind, After: at, Times: 1})
			e := s.endpoint()
			_, _, err := e.Token(t.Context())
			e.Close(t.Context())
			if err != nil {
				wantKind(t, err, fault.Unreachable)
				again := s.endpoint()
				if _, _, err := again.Token(t.Context()); err != nil {
					t.Errorf("%s at %d: the second run: %v", kind, at, err)
				}
				again.Close(t.Context())
			}
			if st := s.Stamp(); st.Shells != 0 || err == nil && st.Tokens != 1 {
				t.Errorf("%s at %d: %v, and the stamp is %+v", kind, at, err, st)
			}
			struck := false
			for _, r := range s.Requests() {
				struck = struck || r.Fault == kind
			}
			if !struck {
				if err != nil || at < 12 {
					t.Errorf("%s: %d exchanges were cut, then %v", kind, at, err)
				}
				break
			}
		}
	}
}
