package pep

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// everything runs the six cmdlets.
func (s *site) everything(t *testing.T) {
	t.Helper()
	session, st := s.open(t)
	if err := session.SetKeyPair(t.Context(), st); err != nil {
		t.Error(err)
	}
	if _, _, err := session.NewToken(t.Context(), st, capacity()); err != nil {
		t.Error(err)
	}
	if err := session.NewActivation(t.Context(), s.key(t), Watch{}); err != nil {
		t.Error(err)
	}
	if err := session.RemoveActivation(t.Context(), Watch{}); err != nil {
		t.Error(err)
	}
	if err := session.SaveHCILicense(t.Context(), st, secret.New(strings.Repeat("é", 100_000))); err != nil { // of several fragments
		t.Error(err)
	}
	if got := s.Server.Stamp(); got.Tokens != 1 || got.KeyPairs != 1 || got.Activations != 1 || got.Deactivations != 1 || got.Licenses != 1 {
		t.Errorf("stamp %+v", got)
	}
}

// What hosts do differently and are allowed to.
func TestVariantsOfTheEndpoint(t *testing.T) {
	for name, opts := range map[string][]peptest.Option{
		"time-outs with HTTP status 200":     {peptest.WithTimedOut200(), peptest.WithActivation(300 * time.Millisecond)},
		"time-outs with HTTP status 500":     {peptest.WithActivation(300 * time.Millisecond)},
		"a boundary with a space":            {peptest.WithSpacedBoundary()},
		"all fragments in one Stream":        {peptest.WithStreams(peptest.AllFragments)},
		"fragments that go on in the next":   {peptest.WithStreams(peptest.SplitFragments)},
		"another id than was asked for":      {peptest.WithOwnShellIDs()},
		"a MIC is demanded":                  {peptest.WithMIC()},
		"opening in two replies":             {peptest.WithOpeningReceives(2)},
		"one command at a time, one session": {peptest.WithQuota(1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, opts...)
			s.Options.Limits.Operation = 10 * time.Millisecond
			s.everything(t)
			timedOut := false
			for _, r := range s.Requests() {
				timedOut = timedOut || r.WSManFault == 2150858793
				if r.WSManFault == 2150858793 && (r.Status == 200) != strings.HasSuffix(name, " 200") {
					t.Errorf("a time-out with HTTP status %d", r.Status)
				}
			}
			if strings.HasPrefix(name, "time-outs") && !timedOut {
				t.Error("there was no time-out")
			}
		})
	}
}

func TestDeploymentIDIsShownAsItIsSpelled(t *testing.T) {
	for _, id := range []string{"ABCDEF01-2345-4789-8BCD-EF0123456789", "abcdef01-2345-4789-8bcd-ef0123456789"} {
		s := newSite(t, peptest.WithDeploymentID(id))
		if _, st := s.open(t); st.DeploymentID != id {
			t.Errorf("deployment %s, want %s", st.DeploymentID, id)
		}
	}
}

func TestAnEndpointOnIPv6(t *testing.T) {
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on the loopback: %v", err)
	}
	probe.Close()
	srv, err := peptest.Start("[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	s := &site{Server: srv, Options: newSite(t).Options}
	s.Options.Addresses = srv.Addresses
	s.Options.Dial = Dial(sealed.Options{User: srv.User, Password: secret.New(srv.Password)}, rand.Reader)
	if !strings.HasPrefix(srv.Addresses[0], "[::1]:") {
		t.Errorf("address %s", srv.Addresses[0])
	}
	s.everything(t)
}

// The endpoint's host calls are answered with an error, or with nothing where
// nothing is awaited; the cmdlet goes on.
func TestHostCallsHoldNothingUp(t *testing.T) {
	for kind, sends := range map[peptest.Kind]int{peptest.HostCall: 1, peptest.VoidCall: 0} {
		s := newSite(t)
		s.Options.Limits.Command = 20 * time.Second // a call that is never answered must not hold the test up
		session, st := s.open(t)
		s.Fail(peptest.Fault{Kind: kind, Cmdlet: "New-RegistrationToken", Times: 1})
		if _, _, err := session.NewToken(t.Context(), st, capacity()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if n := s.count("Send"); n != sends {
			t.Errorf("%s: %d Sends, want %d", kind, n, sends)
		}
	}
}

// A command that wrote an error record failed, although what it does is done.
func TestAnErrorBehindTheActionIsAnError(t *testing.T) {
	s := newSite(t)
	session, _ := s.open(t)
	s.Fail(peptest.Fault{Kind: peptest.ErrorAfter, Cmdlet: activation, Text: "the certificate could not be rotated", Times: 1})
	err := session.NewActivation(t.Context(), s.key(t), Watch{})
	wantKind(t, err, fault.Permanent, "the certificate could not be rotated")
	if strings.Count(err.Error(), "the certificate could not be rotated") != 1 {
		t.Errorf("the text is shown more than once: %v", err)
	}
	if st := s.Server.Stamp(); !st.Activated {
		t.Errorf("stamp %+v", st)
	}
}

// A session that the endpoint named itself is taken up by that name.
func TestFollowUsesTheNameThatTheEndpointGave(t *testing.T) {
	s := newSite(t, peptest.WithOwnShellIDs())
	a := lost(t, s)
	if a.Shell == a.Pool {
		t.Fatalf("attempt %+v has one name for shell and pool", a)
	}
	if err := Follow(t.Context(), s.Options, a, activation, Watch{}); err != nil {
		t.Error(err)
	}
	if st := s.Server.Stamp(); !st.Activated || st.Activations != 1 {
		t.Errorf("stamp %+v", st)
	}
}

// An attempt of a journal that knew one name for both.
func TestFollowOfAnAttemptWithoutAPool(t *testing.T) {
	s := newSite(t)
	a := lost(t, s)
	a.Pool = ""
	if err := Follow(t.Context(), s.Options, a, activation, Watch{}); err != nil {
		t.Error(err)
	}
}

// Each address is a machine of its own: a session of one is not known on another.
func TestASessionBelongsToItsAddress(t *testing.T) {
	s := newSite(t, peptest.WithAddresses(2))
	a := lost(t, s)
	other := a
	other.Address = s.Server.Addresses[1]
	wantGone(t, Follow(t.Context(), s.Options, other, activation, Watch{}))
	if err := Follow(t.Context(), s.Options, a, activation, Watch{}); err != nil {
		t.Error(err)
	}
}

// Threat: the machine dies for good in the middle of the activation. Its outcome is
// unknown, and no other address is asked to activate.
func TestAnAddressThatDiesInAnActivation(t *testing.T) {
	s := newSite(t, peptest.WithAddresses(2))
	session, _ := s.open(t)
	err := session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(Attempt) error {
		s.Fail(peptest.Fault{Kind: peptest.Dies, Address: 1, Action: "Receive"})
		return nil
	}})
	wantKind(t, err, fault.Unreachable, "the end was not seen on "+s.Server.Addresses[0])
	if !OutcomeUnknown(err) || s.Server.Stamp().Activations != 1 {
		t.Errorf("unknown %v, stamp %+v", OutcomeUnknown(err), s.Server.Stamp())
	}
	if conn, err := net.Dial("tcp", s.Server.Addresses[0]); err == nil {
		conn.Close()
		t.Error("the dead address takes a connection")
	}
	next, err := Open(t.Context(), s.Options) // on the other one
	if err != nil || next.address != s.Server.Addresses[1] {
		t.Fatalf("%v", err)
	}
	if err := next.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Server.ClearFaults(); err != nil { // it comes back, so that the shell can go
		t.Fatal(err)
	}
	Discard(t.Context(), s.Options, session.attempt(session.pool.ID()))
}

// The endpoint drops the connection after each reply. What may be sent again is; a
// command is not, and its outcome is unknown.
func TestAConnectionForEachRequest(t *testing.T) {
	s := newSite(t)
	session, st := s.open(t)
	s.Fail(peptest.Fault{Kind: peptest.DropIdle, Action: "Receive"})
	s.Fail(peptest.Fault{Kind: peptest.DropIdle, Action: "Command"})
	_, _, err := session.NewToken(t.Context(), st, capacity())
	if err != nil || s.Server.Stamp().Tokens != 1 {
		t.Errorf("%v, %d tokens", err, s.Server.Stamp().Tokens)
	}
	if n := s.count("Negotiate"); n < 2 {
		t.Errorf("%d logins", n)
	}
}

// The pauses between resends are those of the options, so that a test does not wait.
func TestResendsPauseByTheOptions(t *testing.T) {
	s := newSite(t)
	session, _ := s.open(t)
	err := session.NewActivation(t.Context(), s.key(t), Watch{Begin: func(Attempt) error {
		s.Fail(peptest.Fault{Kind: peptest.DropBefore, Action: "Receive", Times: 4})
		return nil
	}})
	if err != nil || len(s.sleeps) != 3 || s.sleeps[2] != 4*time.Second {
		t.Errorf("%v, pauses %v", err, s.sleeps)
	}
}

// The limits end what the endpoint does not, in order where it lets itself be
// stopped.
func TestACommandThatTakesTooLong(t *testing.T) {
	s := newSite(t)
	session, st := s.open(t)
	session.options.Limits = Limits{Command: 50 * time.Millisecond}
	s.Fail(peptest.Fault{Kind: peptest.Hold, Cmdlet: "New-RegistrationToken", Times: 1})
	_, _, err := session.NewToken(t.Context(), st, capacity())
	wantKind(t, err, fault.Unreachable, "New-RegistrationToken", "was stopped", "did not come to its end within 50ms")
	if err := context.Cause(t.Context()); err != nil {
		t.Error(err)
	}
}
