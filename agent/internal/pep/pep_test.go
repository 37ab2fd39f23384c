package pep

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// site is a simulated endpoint and what a client tried and said.
type site struct {
	*peptest.Server
	Options
	sleeps []time.Duration
	said   []string
}

// newSite starts an endpoint. When the test ends no shell may be left on it.
func newSite(t testing.TB, opts ...peptest.Option) *site {
	t.Helper()
	s := &site{Server: peptest.NewServer(opts...)}
	t.Cleanup(func() {
		if n := s.Server.Stamp().Shells; n != 0 {
			t.Errorf("%d shells are left on the endpoint", n)
		}
		s.Server.Close()
	})
	s.Options = Options{
		Addresses: s.Server.Addresses,
		Dial:      Dial(sealed.Options{User: s.User, Password: secret.New(s.Password)}, rand.Reader),
		Random:    rand.Reader,
		Sleep:     func(ctx context.Context, d time.Duration) error { s.sleeps = append(s.sleeps, d); return ctx.Err() },
		Say:       func(format string, args ...any) { s.said = append(s.said, fmt.Sprintf(format, args...)) },
	}
	return s
}

// open opens a session, which the test's end closes.
func (s *site) open(t *testing.T) (*Session, Stamp) {
	t.Helper()
	session, err := Open(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	st, err := session.Stamp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return session, st
}

// count counts the exchanges of an action in the endpoint's log.
func (s *site) count(action string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Action == action {
			n++
		}
	}
	return n
}

// key is an activation key for the stamp.
func (s *site) key(t testing.TB) secret.Text {
	t.Helper()
	claims, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{CloudID: s.CloudID}), officialtest.Place{SubscriptionID: "8f3a2c41-5b6d-4e7f-9a0b-1c2d3e4f5a6b", ResourceGroup: "azurestack", RegistrationName: "AzureStack-" + s.CloudID})
	if err != nil {
		t.Fatal(err)
	}
	return secret.New(officialtest.Key(claims, nil))
}

func wantKind(t *testing.T, err error, kind fault.Kind, texts ...string) {
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

// The version comes as an object of type Version or as text; both are read.
func TestStamp(t *testing.T) {
	for _, asString := range []bool{false, true} {
		s := newSite(t, peptest.WithStampVersion("1.2309.0.5", asString), peptest.WithNodes(4))
		_, got := s.open(t)
		want := Stamp{CloudID: s.CloudID, Version: Version{1, 2309, 0, 5}, DeploymentID: strings.ToLower(s.Server.Stamp().DeploymentID), Nodes: 4, Region: "local", Domain: got.Domain}
		if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(got.Domain, "local.") {
			t.Errorf("as string %v: (-want +got)\n%s", asString, diff)
		}
	}
}

func TestOpenTakesTheNextAddress(t *testing.T) {
	s := newSite(t, peptest.WithAddresses(3))
	s.Fail(peptest.Fault{Kind: peptest.Refused, Address: 1})
	session, _ := s.open(t)
	if session.address != s.Server.Addresses[1] || len(s.sleeps) != 0 {
		t.Errorf("session on %s after %v, want %s at once", session.address, s.sleeps, s.Server.Addresses[1])
	}
	said := strings.Join(s.said, "\n")
	if !strings.Contains(said, s.Server.Addresses[0]+" gives no session: the endpoint cannot be reached") {
		t.Errorf("said %q", said)
	}
	// The third was left alone.
	for _, r := range s.Requests() {
		if r.Address == 3 {
			t.Errorf("address 3 got %+v", r)
		}
	}
}

func TestOpenTriesThreeTimesTenSecondsApart(t *testing.T) {
	for name, f := range map[string]peptest.Fault{
		"refused": {Kind: peptest.Refused},
		"503":     {Kind: peptest.HTML},
		"dropped": {Kind: peptest.DropBefore, Action: "Create"},
		"full":    {Kind: peptest.WSManFault, Action: "Create", Code: 2150859173},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, peptest.WithAddresses(3))
			s.Fail(f)
			_, err := Open(t.Context(), s.Options)
			wantKind(t, err, fault.Unreachable, append(s.Server.Addresses, "attempts: 3")...)
			if diff := cmp.Diff([]time.Duration{Pause, Pause}, s.sleeps); diff != "" {
				t.Errorf("pauses (-want +got):\n%s", diff)
			}
			if n := len(s.said); n != 9 {
				t.Errorf("%d reasons were shown, want 9: %q", n, s.said)
			}
		})
	}
	t.Run("up in the second round", func(t *testing.T) {
		s := newSite(t)
		s.Fail(peptest.Fault{Kind: peptest.HTML, Times: 1})
		s.open(t)
		if len(s.sleeps) != 1 {
			t.Errorf("pauses %v, want one", s.sleeps)
		}
	})
	t.Run("stopped in the pause", func(t *testing.T) {
		s := newSite(t)
		s.Fail(peptest.Fault{Kind: peptest.HTML})
		ctx, cancel := context.WithCancel(t.Context())
		s.Options.Sleep = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
		_, err := Open(ctx, s.Options)
		wantKind(t, err, fault.Cancelled)
	})
}

// What an endpoint refuses by its form will be refused again; the other addresses
// are tried, and nobody waits.
func TestOpenDoesNotWaitForWhatStaysWrong(t *testing.T) {
	for name, kind := range map[string]peptest.Kind{"no sealing": peptest.NoSeal, "basic only": peptest.BasicOnly, "redirect": peptest.Redirect} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, peptest.WithAddresses(2))
			s.Fail(peptest.Fault{Kind: kind})
			_, err := Open(t.Context(), s.Options)
			wantKind(t, err, fault.Refused, append(s.Server.Addresses, "attempts: 1")...)
			if len(s.sleeps) != 0 {
				t.Errorf("pauses %v", s.sleeps)
			}
			if n := s.count("Create"); n != 0 {
				t.Errorf("%d Creates were sent", n)
			}
		})
	}
}

// The same for what cannot be read.
func TestOpenDoesNotWaitForNonsense(t *testing.T) {
	for _, kind := range []peptest.Kind{peptest.HugeFrag, peptest.DeepNest, peptest.Reordered, peptest.Duplicate} {
		s := newSite(t)
		s.Fail(peptest.Fault{Kind: kind})
		_, err := Open(t.Context(), s.Options)
		wantKind(t, err, fault.Refused, "speaks no PowerShell remoting", "attempts: 1")
		if len(s.sleeps) != 0 {
			t.Errorf("%s: pauses %v", kind, s.sleeps)
		}
	}
}

// Threat: repeated wrong passwords lock the account, on all three machines.
func TestAWrongPasswordIsTriedOnce(t *testing.T) {
	s := newSite(t, peptest.WithAddresses(3))
	s.Options.Dial = Dial(sealed.Options{User: s.User, Password: secret.New("not the password")}, rand.Reader)
	_, err := Open(t.Context(), s.Options)
	wantKind(t, err, fault.Permanent, s.Server.Addresses[0], "refuses user")
	if n := s.count("Authenticate"); n != 1 || len(s.sleeps) != 0 {
		t.Errorf("%d logins and the pauses %v, want one login", n, s.sleeps)
	}
	if hint := fault.HintOf(err); !strings.Contains(hint, "lock the account") {
		t.Errorf("hint %q", hint)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "not the password") {
		t.Error("the error shows the password")
	}
}

func TestOpenWithoutAnAddress(t *testing.T) {
	_, err := Open(t.Context(), Options{})
	wantKind(t, err, fault.Usage, "no address")
	s := newSite(t)
	s.Options.Addresses = []string{"a b"}
	_, err = Open(t.Context(), s.Options)
	wantKind(t, err, fault.Usage, `"a b" is not an address`)
}

// A session that fails in the middle of its opening leaves no shell; newSite looks.
func TestAHalfOpenSessionIsDeleted(t *testing.T) {
	for _, kind := range []peptest.Kind{peptest.WrongRelatesTo, peptest.Garbage, peptest.BadSeal, peptest.Clear} {
		s := newSite(t)
		s.Fail(peptest.Fault{Kind: kind, Action: "Receive", Times: 1})
		_, err := Open(t.Context(), s.Options)
		if kind == peptest.Clear {
			wantKind(t, err, fault.Refused, "not sealed")
		} else {
			wantKind(t, err, fault.Refused)
		}
		if s.count("Delete") != 1 {
			t.Errorf("%s: no Delete was sent", kind)
		}
	}
}

// errors.Is and As see through the kinds.
func TestBusyAndRemote(t *testing.T) {
	s := newSite(t)
	session, st := s.open(t)
	s.Fail(peptest.Fault{Kind: peptest.Busy, Cmdlet: "New-RegistrationToken", Times: 1})
	_, _, err := session.NewToken(t.Context(), st, capacity())
	wantKind(t, err, fault.NothingYet, "the stamp is busy with another action", "another action is in progress: ")
	if !Busy(err) || !IsRemote(err) || OutcomeUnknown(err) {
		t.Errorf("busy %v, remote %v, unknown %v", Busy(err), IsRemote(err), OutcomeUnknown(err))
	}
	if other := errors.New("another action is in progress"); Busy(other) || IsRemote(other) {
		t.Error("a text of our own is taken for the stamp's")
	}
	if hint := fault.HintOf(err); !strings.Contains(hint, "--wait") {
		t.Errorf("hint %q", hint)
	}
}
