package pep

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const activation = "New-AzureStackActivation"

func TestActivation(t *testing.T) {
	s := newSite(t, peptest.WithActivation(50*time.Millisecond))
	session, _ := s.open(t)
	var began []Attempt
	var told []string
	key := s.key(t)
	err := session.NewActivation(t.Context(), key, Watch{
		Begin: func(a Attempt) error {
			if n := s.count("Command"); n != 1 {
				t.Errorf("%d Commands were sent before the attempt was stored", n)
			}
			began = append(began, a)
			return nil
		},
		Progress: func(sentence string) { told = append(told, sentence) },
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(key.Reveal()))
	if st := s.Server.Stamp(); !st.Activated || st.Activations != 1 || st.KeySHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("stamp %+v", st)
	}
	if len(began) != 1 || began[0].Address != s.Server.Addresses[0] || began[0].Session == "" || began[0].Shell == "" || began[0].Pipeline == "" {
		t.Errorf("attempts %+v", began)
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"In progress (0 %)", "Completed (100 %)", "action plan "} { // PROGRESS and VERBOSE
		if !strings.Contains(all, want) {
			t.Errorf("progress lacks %q: %q", want, told)
		}
	}
	if err := session.RemoveActivation(t.Context(), Watch{}); err != nil || s.Server.Stamp().Activated {
		t.Errorf("removal: %v, %+v", err, s.Server.Stamp())
	}
}

// A journal that cannot be written keeps the activation from being sent.
func TestAnAttemptThatCannotBeStoredIsNotMade(t *testing.T) {
	s := newSite(t)
	session, _ := s.open(t)
	full := fault.New(fault.Medium, "the disk is full")
	err := session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(Attempt) error { return full }})
	if !errors.Is(err, full) || fault.KindOf(err) != fault.Medium || OutcomeUnknown(err) {
		t.Errorf("%v, unknown %v", err, OutcomeUnknown(err))
	}
	if st := s.Server.Stamp(); st.Activations != 0 || s.count("Command") != 1 {
		t.Errorf("stamp %+v, %d Commands", st, s.count("Command"))
	}
}

func TestAnActivationThatTheStampRefuses(t *testing.T) {
	s := newSite(t)
	session, _ := s.open(t)
	for text, key := range map[string]secret.Text{
		"cannot be read":             secret.New("a.b"),
		"this stamp is":              newSite(t).key(t),
		"received no activation key": secret.New(""),
	} {
		err := session.NewActivation(t.Context(), key, Watch{})
		kind := fault.Permanent
		if key.Empty() {
			kind = fault.Unexpected
		}
		wantKind(t, err, kind, text)
		if OutcomeUnknown(err) || !IsRemote(err) {
			t.Errorf("%v: unknown %v, remote %v", err, OutcomeUnknown(err), IsRemote(err))
		}
	}
}

// lost begins an activation and loses its connection to it, as a run does that is
// killed: the session stays on the endpoint. The faults come once it was begun.
func lost(t *testing.T, s *site, faults ...peptest.Fault) Attempt {
	t.Helper()
	session, err := Open(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	var a Attempt
	err = session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(at Attempt) error {
		a = at
		for _, f := range append(faults, peptest.Fault{Kind: peptest.WSManFault, Action: "Receive", Code: 995, Times: 1}) {
			s.Fail(f)
		}
		return nil
	}})
	wantKind(t, err, fault.Unreachable, "the end was not seen on "+s.Server.Addresses[0], a.Pipeline)
	if !OutcomeUnknown(err) || IsRemote(err) || Busy(err) {
		t.Errorf("unknown %v, remote %v, busy %v: %v", OutcomeUnknown(err), IsRemote(err), Busy(err), err)
	}
	return a
}

// A reply that is lost is asked for again, and the activation goes on as if
// nothing had been.
func TestAConnectionThatBreaksOnceIsTakenUp(t *testing.T) {
	for _, kind := range []peptest.Kind{peptest.DropBefore, peptest.DropAfter, peptest.Cut} {
		s := newSite(t, peptest.WithActivation(50*time.Millisecond))
		session, _ := s.open(t)
		err := session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(Attempt) error {
			s.Fail(peptest.Fault{Kind: kind, Action: "Receive", Times: 1})
			return nil
		}})
		if st := s.Server.Stamp(); err != nil || !st.Activated || st.Activations != 1 {
			t.Errorf("%s: %v, stamp %+v", kind, err, st)
		}
	}
}

// Threat: the reply to the Command is lost. The activation may run; it is never
// sent a second time.
func TestALostReplyToTheCommandIsUnknown(t *testing.T) {
	for kind, began := range map[peptest.Kind]int{peptest.DropBefore: 0, peptest.DropAfter: 1, peptest.Cut: 1, peptest.Garbage: 1, peptest.BadSeal: 1, peptest.WrongRelatesTo: 1} {
		t.Run(string(kind), func(t *testing.T) {
			s := newSite(t)
			session, _ := s.open(t)
			err := session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(Attempt) error {
				s.Fail(peptest.Fault{Kind: kind, Action: "Command", Times: 1})
				return nil
			}})
			wantKind(t, err, fault.Unreachable)
			if !OutcomeUnknown(err) {
				t.Errorf("the outcome is known: %v", err)
			}
			if n := s.count("Command"); n > 2 {
				t.Errorf("the Command was sent %d times", n-1)
			}
			// The session is left to the run that takes the command up.
			_ = session.Close(t.Context())
			if s.Server.Stamp().Shells != 1 {
				t.Errorf("the shell of an unknown command is gone: %+v", s.Server.Stamp())
			}
			Discard(t.Context(), session.options, session.attempt(session.pool.ID()))
			if got := s.Server.Stamp().Activations; got > began {
				t.Errorf("%d activations were begun, want %d at most", got, began)
			}
		})
	}
}

// A quota fault says that nothing was begun, so nothing is unknown.
func TestACommandThatWasNotBegunIsNotUnknown(t *testing.T) {
	s := newSite(t)
	session, _ := s.open(t)
	err := session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(Attempt) error {
		s.Fail(peptest.Fault{Kind: peptest.WSManFault, Action: "Command", Code: 2150859174, Times: 1})
		return nil
	}})
	wantKind(t, err, fault.Unreachable, "no room")
	if OutcomeUnknown(err) || s.Server.Stamp().Activations != 0 {
		t.Errorf("unknown %v, stamp %+v", OutcomeUnknown(err), s.Server.Stamp())
	}
}

func TestFollowSeesTheEnd(t *testing.T) {
	s := newSite(t)
	a := lost(t, s, peptest.Fault{Kind: peptest.Hold, Cmdlet: activation, Times: 1})
	done := make(chan error, 1)
	go func() { // once the session was taken up the action comes to its end
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := s.Wait(ctx, "Reconnect", 1)
		s.Release()
		done <- err
	}()
	err := Follow(t.Context(), s.Options, a, activation, Watch{})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := s.Server.Stamp(); err != nil || !st.Activated || st.Activations != 1 || st.Shells != 0 {
		t.Errorf("%v, stamp %+v", err, st)
	}
	// Now the session is gone.
	wantGone(t, Follow(t.Context(), s.Options, a, activation, Watch{}))
}

func wantGone(t *testing.T, err error) {
	t.Helper()
	if err == nil || IsRemote(err) || !strings.Contains(err.Error(), "InvalidSelectors") {
		t.Errorf("%v (remote %v), want InvalidSelectors", err, IsRemote(err))
	}
}

func TestFollowSeesAFailure(t *testing.T) {
	s := newSite(t)
	a := lost(t, s, peptest.Fault{Kind: peptest.Terminating, Cmdlet: activation, Text: "It is the wrong kind of rack", Times: 1})
	err := Follow(t.Context(), s.Options, a, activation, Watch{})
	wantKind(t, err, fault.Permanent, "It is the wrong kind of rack")
	if !IsRemote(err) || OutcomeUnknown(err) {
		t.Errorf("remote %v, unknown %v", IsRemote(err), OutcomeUnknown(err))
	}
}

func TestFollowFindsTheSessionGone(t *testing.T) {
	s := newSite(t)
	a := lost(t, s)
	s.Fail(peptest.Fault{Kind: peptest.Vanish, Times: 1})
	wantGone(t, Follow(t.Context(), s.Options, a, activation, Watch{}))
	wantGone(t, Follow(t.Context(), s.Options, a, activation, Watch{}))
	// A journal that was edited.
	for _, bad := range []Attempt{{a.Address, a.Session, "no guid", "", a.Pipeline}, {a.Address, a.Session, a.Shell, "no guid", a.Pipeline}, {a.Address, a.Session, a.Shell, a.Pool, "no guid"}, {}} {
		if err := Follow(t.Context(), s.Options, bad, activation, Watch{}); err == nil || IsRemote(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// Ctrl-C stops the pipeline in order: ctrl_c, then its end is awaited, then
// Terminate, and the session is deleted. The action of the stamp goes on, so the
// outcome is unknown.
func TestCtrlCStopsInOrder(t *testing.T) {
	for name, follow := range map[string]bool{"new": false, "followed": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := fault.New(fault.Cancelled, "the operator stopped it")
			var err error
			var before int
			if follow {
				a := lost(t, s, peptest.Fault{Kind: peptest.Hold, Cmdlet: activation, Times: 1})
				before = s.count("Signal")
				err = Follow(ctx, s.Options, a, activation, Watch{Progress: func(string) { cancel(stop) }})
			} else {
				s.Fail(peptest.Fault{Kind: peptest.Hold, Cmdlet: activation, Times: 1})
				session, _ := s.open(t)
				before = s.count("Signal")
				err = session.NewActivation(ctx, s.key(t), Watch{Progress: func(string) { cancel(stop) }})
				if err := session.Close(ctx); err != nil { // with a context that has ended
					t.Error(err)
				}
			}
			wantKind(t, err, fault.Cancelled, "was stopped: the operator stopped it")
			if !OutcomeUnknown(err) {
				t.Error("the outcome is known")
			}
			if got := s.count("Signal") - before; got != 2 {
				t.Errorf("%d Signals, want ctrl_c and Terminate", got)
			}
			var order []string
			for _, r := range s.Requests()[len(s.Requests())-2:] {
				order = append(order, fmt.Sprintf("%s %d", r.Action, r.Status))
			}
			if diff := cmp.Diff([]string{"Signal 200", "Delete 200"}, order); diff != "" {
				t.Errorf("the last exchanges (-want +got):\n%s", diff)
			}
			if st := s.Server.Stamp(); st.Action == "" || st.Shells != 0 {
				t.Errorf("stamp %+v", st)
			}
		})
	}
}

// A pipeline that somebody else stopped has no known end: what it had begun goes
// on. Only the first session is told that it was stopped.
func TestAPipelineThatWasStoppedIsUnknown(t *testing.T) {
	s := newSite(t)
	s.Fail(peptest.Fault{Kind: peptest.Hold, Cmdlet: activation, Times: 1})
	session, _ := s.open(t)
	var attempt Attempt
	once := false
	err := session.NewActivation(t.Context(), s.key(t), Watch{
		Begin: func(a Attempt) error { attempt = a; return nil },
		Progress: func(string) {
			if once {
				return
			}
			once = true
			other, err := s.Options.Dial(t.Context(), attempt.Address, attempt.Session)
			if err == nil {
				if err = other.Resume(t.Context(), attempt.Shell); err == nil {
					err = other.Signal(t.Context(), attempt.Pipeline, "powershell/signal/ctrl_c")
				}
			}
			if err != nil {
				t.Error(err)
			}
		},
	})
	if err == nil || !OutcomeUnknown(err) {
		t.Errorf("unknown %v: %v", OutcomeUnknown(err), err)
	}
}

// What is wrong with the options of the transport is said before anything is
// dialled.
func TestDialRefusesContradictions(t *testing.T) {
	for name, o := range map[string]sealed.Options{
		"basic":    {User: "u", Password: secret.New("p"), Basic: true},
		"pin":      {User: "u", Password: secret.New("p"), Pin: make([]byte, 32)},
		"password": {User: "u"},
	} {
		_, err := Dial(o, rand.Reader)(t.Context(), "127.0.0.1:1", "")
		if k := fault.KindOf(err); k != fault.Usage && k != fault.Locked {
			t.Errorf("%s: %v", name, err)
		}
	}
}
