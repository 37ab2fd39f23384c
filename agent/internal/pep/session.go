// Package pep runs the six cmdlets of a disconnected registration on the
// privileged endpoint of an Azure Stack Hub stamp, as the official module
// RegisterWithAzure.psm1 (branch az) does, only safer.
//
// The properties: a call succeeds only if the endpoint reported no error record
// at all, as under $ErrorActionPreference='Stop'; parameters follow the official
// version gates and are never silently changed; a session is always closed, as
// the endpoint allows few; and where the end of an activation was not seen, the
// outcome is reported as unknown and never as failure or success.
//
// The limit: nothing here has met a real stamp. What is known comes from the
// module's source, public recordings and documentation; docs/STAMP.md says which.
package pep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/agent/internal/wsman"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// The official module tries three times to open a session, ten seconds apart.
const (
	Attempts = 3
	Pause    = 10 * time.Second

	// Opening is how long a session may take to open, as Windows' own client has it.
	Opening = 3 * time.Minute
)

// Limits are how long the parts of a session may last; a zero is the default. An
// endpoint that answers for ever and never comes to an end is left when the limit
// is over.
type Limits struct {
	Operation  time.Duration // the endpoint may keep a Receive open; 60 s
	Slack      time.Duration // an answer may come this much later; 30 s
	Opening    time.Duration // of a session on one address; [Opening]
	Command    time.Duration // 15 min
	Activation time.Duration // and its removal; the 30 min that it is given and 5 more
	Grace      time.Duration // to end a command in order when its limit is over; 30 s
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// within limits ctx; its cause then says what took too long.
func within(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fault.New(fault.Unreachable, "%s did not come to its end within %s", what, d))
}

// Conn is a connection to one address: a shell that does not exist yet.
type Conn interface {
	psrp.Shell
	// SessionID is the WSMan session, which a later connection must give to take
	// a shell up again.
	SessionID() string
	// ShellID is the shell's name on the endpoint.
	ShellID() string
	// SetTiming is called before the first request.
	SetTiming(wsman.Timing)
	// Abandon ends the connection and leaves the shell on the endpoint.
	Abandon()
	// Resume takes up a shell that an earlier session made and lost.
	Resume(ctx context.Context, shellID string) error
}

// Dialer connects to one address; sessionID is "" for a new session.
type Dialer func(ctx context.Context, address, sessionID string) (Conn, error)

// Options say how to reach the endpoint.
type Options struct {
	Addresses []string // HOST or HOST:PORT, tried in turn
	Dial      Dialer
	Random    io.Reader
	Sleep     func(context.Context, time.Duration) error // between attempts and between resends
	Say       func(format string, args ...any)           // one line for each thing tried; may be nil
	Limits    Limits
}

// dial connects to an address under the limits.
func (o Options) dial(ctx context.Context, address, sessionID string) (Conn, error) {
	conn, err := o.Dial(ctx, address, sessionID)
	if err != nil {
		return nil, err
	}
	conn.SetTiming(wsman.Timing{Operation: o.Limits.Operation, Slack: o.Limits.Slack, Sleep: o.Sleep})
	return conn, nil
}

// Session is an open runspace on one of the addresses. It is for one goroutine.
type Session struct {
	address string
	conn    Conn
	pool    *psrp.Pool
	options Options
	kept    bool // the shell is left on the endpoint, for a later run to take up
}

// Attempt names a running command, so that a later run can take it up.
type Attempt struct {
	Address  string
	Session  string // WSMan session
	Shell    string // as the endpoint named it
	Pool     string // runspace pool; "" is that of the shell's name
	Pipeline string
}

func (s *Session) attempt(id psrp.GUID) Attempt {
	return Attempt{s.address, s.conn.SessionID(), s.conn.ShellID(), s.pool.ID().String(), id.String()}
}

func (s *Session) say(format string, args ...any) {
	if s.options.Say != nil {
		s.options.Say(format, args...)
	}
}

// Open opens a session on the first address that gives one. Each address is tried
// in turn, and all of them three times, unless none of them was merely out of
// reach: what is refused for its form stays so. A refusal of the account ends the
// attempts at once, so that no account is locked.
func Open(ctx context.Context, o Options) (*Session, error) {
	if len(o.Addresses) == 0 {
		return nil, fault.New(fault.Usage, "the privileged endpoint has no address").Hint("azs-agent info --pep 192.0.2.1,192.0.2.2,192.0.2.3")
	}
	var reasons []string
	for attempt := 1; ; attempt++ {
		reasons = reasons[:0]
		var last error
		again := false // somebody may answer differently in a while
		for _, address := range o.Addresses {
			s, err := open(ctx, o, address)
			if err == nil {
				s.say("session on the privileged endpoint %s", address)
				return s, nil
			}
			if ctx.Err() != nil || fault.KindOf(err) == fault.Permanent || fault.KindOf(err) == fault.Usage {
				return nil, fmt.Errorf("privileged endpoint %s: %w", address, err)
			}
			last = err
			again = again || fault.KindOf(err) != fault.Refused
			reasons = append(reasons, fmt.Sprintf("%s: %v", address, err))
			if o.Say != nil {
				o.Say("%s gives no session: %v", address, err)
			}
		}
		if attempt == Attempts || !again {
			kind := fault.KindOf(last)
			if kind == fault.Unexpected {
				kind = fault.Unreachable
			}
			hint := fault.HintOf(last)
			if hint == "" {
				hint = "azs-agent info --pep A,B,C   (the other two addresses of the endpoint too)"
			}
			return nil, fault.New(kind, "no address of the privileged endpoint gives a session, attempts: %d: %s", attempt, strings.Join(reasons, "; ")).Hint("%s", hint)
		}
		if err := o.Sleep(ctx, Pause); err != nil {
			return nil, err
		}
	}
}

func open(ctx context.Context, o Options, address string) (*Session, error) {
	ctx, cancel := within(ctx, or(o.Limits.Opening, Opening), "the opening of a session")
	defer cancel()
	conn, err := o.dial(ctx, address, "")
	if err != nil {
		return nil, err
	}
	pool, err := psrp.NewPool(conn, o.Random)
	if err != nil {
		return nil, err
	}
	pool.Grace = o.Limits.Grace
	if err := pool.Open(ctx); err != nil {
		if fault.KindOf(err) == fault.Unexpected && !IsRemote(err) {
			// Neither the connection nor the host's own error: the form of what it said.
			err = fault.New(fault.Refused, "the endpoint speaks no PowerShell remoting: %w", err)
		}
		return nil, err
	}
	return &Session{address: address, conn: conn, pool: pool, options: o}, nil
}

// Close ends the session on the endpoint, also after the context has ended. After
// a command that was noted and whose end was not seen, the session is left to the
// run that takes the command up; the endpoint drops it when it has been idle for an
// hour.
func (s *Session) Close(ctx context.Context) error {
	if s.kept {
		s.conn.Abandon()
		return nil
	}
	return s.pool.Close(ctx)
}

// run runs one command, no longer than the limit; 0 is that of short ones.
func (s *Session) run(ctx context.Context, c psrp.Command, w Watch, limit time.Duration) ([]clixml.Value, error) {
	ctx, cancel := within(ctx, or(limit, or(s.options.Limits.Command, 15*time.Minute)), c.Name)
	defer cancel()
	out, err := s.pool.Run(ctx, c, w.handlers(s))
	var unknown *psrp.UnknownOutcome
	s.kept = s.kept || (w.Begin != nil && errors.As(err, &unknown))
	return out, s.told(err)
}

// told gives the error of a command its kind.
func (s *Session) told(err error) error {
	var unknown *psrp.UnknownOutcome
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return fault.New(fault.Unreachable, "the end was not seen on %s: %w", s.address, err)
	case fault.KindOf(err) != fault.Unexpected: // also that of a caller who stopped it
		return err
	}
	return explain(err)
}

// Follow takes up a command that an earlier run started and lost, and waits for
// its end. It can tell that the command failed, never that it succeeded: what the
// earlier run had received is gone. A nil error therefore means that the command
// came to its end and that no error was seen by this run.
func Follow(ctx context.Context, o Options, a Attempt, command string, w Watch) error {
	ctx, cancel := within(ctx, or(o.Limits.Activation, activationLimit), command)
	defer cancel()
	conn, err := o.dial(ctx, a.Address, a.Session)
	if err != nil {
		return err
	}
	if err := conn.Resume(ctx, a.Shell); err != nil {
		return err
	}
	if a.Pool == "" {
		a.Pool = a.Shell
	}
	id, err := psrp.ParseGUID(a.Pool)
	if err != nil {
		return fault.New(fault.Refused, "stored session: %w", err)
	}
	pipeline, err := psrp.ParseGUID(a.Pipeline)
	if err != nil {
		return fault.New(fault.Refused, "stored session: %w", err)
	}
	s := &Session{address: a.Address, conn: conn, pool: psrp.Attach(conn, id), options: o}
	s.pool.Grace = o.Limits.Grace
	defer s.Close(ctx)
	_, err = s.pool.Follow(ctx, pipeline, command, w.handlers(s))
	if errors.Is(err, psrp.ErrUnseen) {
		return nil
	}
	var unknown *psrp.UnknownOutcome
	s.kept = errors.As(err, &unknown)
	return s.told(err)
}

// Discard ends the session of a command that nobody will take up any more. A
// session that is gone already is no error, and one that cannot be reached ends by
// itself within the hour.
func Discard(ctx context.Context, o Options, a Attempt) {
	ctx, cancel := within(ctx, or(o.Limits.Opening, Opening), "the end of a session")
	defer cancel()
	conn, err := o.dial(ctx, a.Address, a.Session)
	if err != nil {
		return
	}
	_ = conn.Resume(ctx, a.Shell)
	_ = conn.Delete(ctx)
}
