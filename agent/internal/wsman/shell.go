// Package wsman speaks WS-Management shells ([MS-WSMV]) to the privileged
// endpoint, as far as PowerShell remoting needs them: it is the [psrp.Shell] over
// a sealed transport.
//
// The properties: every reply answers the request that was sent (RelatesTo) and
// is bounded in size and depth; a fault is judged by its body, never by the HTTP
// status; an operation timeout of the endpoint is no error but the sign to ask
// again; and after a broken connection only a Receive is sent again, with the
// same MessageID, because the endpoint keeps its answer, while nothing that
// starts something is ever sent twice.
//
// The limit: that Windows answers a repeated Receive with the same data is read
// from other clients' sources and was not seen.
package wsman

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// Sizes and times of a session.
const (
	firstEnvelope = 153600 // what every version takes
	fullEnvelope  = 512000 // since protocol version 2.2, Windows Server 2012

	// OperationTimeout is how long the endpoint may keep a Receive open.
	OperationTimeout = 60 * time.Second
	// Slack is how much longer an answer is waited for.
	Slack = 30 * time.Second
	// IdleTimeout is how long the endpoint keeps a shell that nobody talks to.
	IdleTimeout = time.Hour

	resends       = 5 // of one Receive, after 0, 1, 2, 4 and 8 s
	resendsDelete = 2
)

// Poster sends one envelope and returns the reply with its HTTP status;
// [sealed.Transport] is one.
type Poster interface {
	PostContext(ctx context.Context, envelope []byte) (reply []byte, status int, err error)
	URL() string
	Close()
}

// Shell is one shell on an endpoint. Signal may run beside a waiting Receive and
// has a connection of its own for that.
type Shell struct {
	dial   func() (Poster, error)
	random io.Reader

	sessionID string // GUID, upper case
	shellID   string
	timeout   time.Duration // of an operation, at the endpoint
	slack     time.Duration
	size      int

	main line
	side line // for a Signal while a Receive waits on main

	pause func(context.Context, time.Duration) error // between resends
}

// line is a connection, for one request at a time.
type line struct {
	mu     sync.Mutex
	poster Poster // nil before the first request
}

var _ psrp.Shell = (*Shell)(nil)

// New makes a shell that does not exist yet on the endpoint. sessionID is "" for
// a new session, or that of an earlier one whose shell will be resumed.
func New(dial func() (Poster, error), random io.Reader, sessionID string) (*Shell, error) {
	if sessionID == "" {
		id, err := psrp.NewGUID(random)
		if err != nil {
			return nil, err
		}
		sessionID = id.String()
	}
	return &Shell{dial: dial, random: random, sessionID: sessionID, timeout: OperationTimeout, slack: Slack, size: firstEnvelope, pause: pause}, nil
}

// SessionID names the WSMan session.
func (s *Shell) SessionID() string { return s.sessionID }

// ShellID names the shell as the endpoint does, which need not be the id that was
// asked for. It is "" where there is none.
func (s *Shell) ShellID() string { return s.shellID }

// Timing is how long the parts of an exchange last; a zero is the default.
type Timing struct {
	Operation time.Duration                              // how long the endpoint may keep a Receive open; [OperationTimeout]
	Slack     time.Duration                              // how much longer an answer is waited for; [Slack]
	Sleep     func(context.Context, time.Duration) error // between resends
}

// SetTiming changes the timing, before the first request.
func (s *Shell) SetTiming(t Timing) {
	if t.Operation > 0 {
		s.timeout = t.Operation
	}
	if t.Slack > 0 {
		s.slack = t.Slack
	}
	if t.Sleep != nil {
		s.pause = t.Sleep
	}
}

// Create makes the shell. If it is not certain that there is none after a
// failure, Delete will try the id that was asked for.
func (s *Shell) Create(ctx context.Context, shellID string, creation []byte) error {
	r, err := s.do(ctx, request{
		action:  actionCreate,
		options: []option{{"protocolversion", psrp.ProtocolVersion, true}},
		body: fmt.Sprintf(`<rsp:Shell ShellId="%s"><rsp:IdleTimeOut>%s</rsp:IdleTimeOut><rsp:InputStreams>stdin pr</rsp:InputStreams><rsp:OutputStreams>stdout</rsp:OutputStreams>`+
			`<creationXml xmlns="%s">%s</creationXml></rsp:Shell>`, escape(shellID), duration(IdleTimeout), nsPowerShell, base64.StdEncoding.EncodeToString(creation)),
	})
	var d interface{ Definite() bool }
	if !errors.As(err, &d) || !d.Definite() {
		s.shellID = shellID
	}
	if err != nil {
		return err
	}
	id := ""
	if r.Body.Created != nil {
		for _, sel := range r.Body.Created.Selectors {
			if sel.Name == "ShellId" {
				id = strings.TrimSpace(sel.Value)
			}
		}
	}
	if id == "" && r.Body.Shell != nil {
		id = strings.TrimSpace(r.Body.Shell.ShellID)
	}
	if id == "" {
		return fault.New(fault.Refused, "the endpoint names no shell that it created")
	}
	// The endpoint took protocol version 2.3, so it is one that takes large envelopes.
	s.shellID, s.size = id, fullEnvelope
	return nil
}

// Resume takes up a shell of an earlier session with the same session id.
func (s *Shell) Resume(ctx context.Context, shellID string) error {
	s.shellID, s.size = shellID, fullEnvelope
	_, err := s.do(ctx, request{action: actionReconnect})
	var f *Fault
	if errors.As(err, &f) && !f.Gone() {
		// A shell whose client vanished is still connected: what it has can be received.
		return nil
	}
	return err
}

// Command starts a command with the first fragment of its pipeline.
func (s *Shell) Command(ctx context.Context, commandID string, first []byte) error {
	r, err := s.do(ctx, request{
		action:  actionCommand,
		options: []option{{"WINRS_SKIP_CMD_SHELL", "FALSE", false}},
		body: fmt.Sprintf(`<rsp:CommandLine CommandId="%s"><rsp:Command></rsp:Command><rsp:Arguments>%s</rsp:Arguments></rsp:CommandLine>`,
			escape(commandID), base64.StdEncoding.EncodeToString(first)),
	})
	if err != nil {
		return err
	}
	if r.Body.CommandResponse == nil || !strings.EqualFold(strings.TrimSpace(r.Body.CommandResponse.CommandID), commandID) {
		return fault.New(fault.Refused, "the endpoint confirms another command than %s", commandID)
	}
	return nil
}

// Send delivers one fragment.
func (s *Shell) Send(ctx context.Context, commandID, stream string, fragment []byte) error {
	r, err := s.do(ctx, request{action: actionSend, body: fmt.Sprintf(`<rsp:Send><rsp:Stream Name="%s"%s>%s</rsp:Stream></rsp:Send>`,
		escape(stream), commandAttr(commandID), base64.StdEncoding.EncodeToString(fragment))})
	if err == nil && r.Body.Sent == nil {
		err = fault.New(fault.Refused, "the endpoint does not confirm what was sent")
	}
	return err
}

func commandAttr(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf(` CommandId="%s"`, escape(id))
}

// Receive waits for output. It asks again when the endpoint had none in time, and
// repeats a request whose answer was lost.
func (s *Shell) Receive(ctx context.Context, commandID string) (streams [][]byte, done bool, err error) {
	req := request{
		action:  actionReceive,
		options: []option{{"WSMAN_CMDSHELL_OPTION_KEEPALIVE", "TRUE", false}},
		body:    fmt.Sprintf(`<rsp:Receive><rsp:DesiredStream%s>stdout</rsp:DesiredStream></rsp:Receive>`, commandAttr(commandID)),
	}
	for {
		r, err := s.persist(ctx, req, resends)
		var f *Fault
		switch {
		case errors.As(err, &f) && f.TimedOut():
			if ctx.Err() != nil {
				return nil, false, context.Cause(ctx)
			}
			continue
		case err != nil:
			return nil, false, err
		}
		return r.received(commandID)
	}
}

// persist sends a Receive or a Delete until its answer came: the same envelope
// with the same MessageID, each time on a new connection.
func (s *Shell) persist(ctx context.Context, req request, resends int) (*reply, error) {
	var err error
	if req.messageID, err = s.newMessage(); err != nil {
		return nil, err
	}
	s.main.mu.Lock()
	defer s.main.mu.Unlock()
	for try := 0; ; try++ {
		r, err := s.post(ctx, &s.main, req)
		var f *Fault
		if err == nil || errors.As(err, &f) || fault.KindOf(err) != fault.Unreachable || ctx.Err() != nil || try == resends {
			return r, err
		}
		if try > 0 { // the first time at once, as one broken connection says little
			if s.pause(ctx, time.Second<<(try-1)) != nil {
				return nil, err
			}
		}
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *reply) received(commandID string) (streams [][]byte, done bool, err error) {
	rec := r.Body.Received
	if rec == nil {
		return nil, false, fault.New(fault.Refused, "the endpoint answers a Receive with something else")
	}
	for _, st := range rec.Streams {
		if !fits(st.CommandID, commandID) {
			return nil, false, fault.New(fault.Refused, "the endpoint sends output of command %q, asked was for %q", st.CommandID, commandID)
		}
		if st.Name != "stdout" {
			continue
		}
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(st.Data))
		if err != nil {
			return nil, false, fault.New(fault.Refused, "a stream of the endpoint is not base64: %w", err)
		}
		if len(data) > 0 {
			streams = append(streams, data)
		}
	}
	if rec.State != nil {
		if !fits(rec.State.CommandID, commandID) {
			return nil, false, fault.New(fault.Refused, "the endpoint tells the state of command %q, asked was for %q", rec.State.CommandID, commandID)
		}
		done = strings.HasSuffix(rec.State.State, "/CommandState/Done")
	}
	return streams, done, nil
}

// fits says whether a reply is about the command that was asked for. Naming none
// is allowed, as RelatesTo already binds the reply to its request.
func fits(named, asked string) bool { return named == "" || strings.EqualFold(named, asked) }

// Signal sends a code to a command, on a connection of its own while a Receive
// waits on the other.
func (s *Shell) Signal(ctx context.Context, commandID, code string) error {
	l := &s.main
	if !l.mu.TryLock() {
		l = &s.side
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	req := request{action: actionSignal, body: fmt.Sprintf(`<rsp:Signal CommandId="%s"><rsp:Code>%s</rsp:Code></rsp:Signal>`, escape(commandID), escape(code))}
	var err error
	if req.messageID, err = s.newMessage(); err != nil {
		return err
	}
	r, err := s.post(ctx, l, req)
	if err == nil && r.Body.Signalled == nil {
		err = fault.New(fault.Refused, "the endpoint does not confirm the signal")
	}
	return err
}

// Delete ends the shell and the connections. A shell that is gone is deleted, so
// the request may be repeated when its answer was lost.
func (s *Shell) Delete(ctx context.Context) error {
	var err error
	if s.shellID != "" {
		if _, err = s.persist(ctx, request{action: actionDelete}, resendsDelete); IsGone(err) {
			err = nil
		}
		s.shellID = ""
	}
	s.Abandon()
	return err
}

// Abandon ends the connections and leaves the shell on the endpoint, where it can
// be resumed until it has been idle for [IdleTimeout].
func (s *Shell) Abandon() {
	for _, l := range []*line{&s.main, &s.side} {
		l.mu.Lock()
		if l.poster != nil {
			l.poster.Close()
		}
		l.mu.Unlock()
	}
}

func (s *Shell) newMessage() (string, error) {
	id, err := psrp.NewGUID(s.random)
	return "uuid:" + id.String(), err
}

// do sends a request once.
func (s *Shell) do(ctx context.Context, req request) (*reply, error) {
	var err error
	if req.messageID, err = s.newMessage(); err != nil {
		return nil, err
	}
	s.main.mu.Lock()
	defer s.main.mu.Unlock()
	return s.post(ctx, &s.main, req)
}

// post sends a request on a line that the caller has locked.
func (s *Shell) post(ctx context.Context, l *line, req request) (*reply, error) {
	if l.poster == nil {
		p, err := s.dial()
		if err != nil {
			return nil, err
		}
		l.poster = p
	}
	if req.action != actionCreate {
		if s.shellID == "" {
			return nil, fault.New(fault.Unexpected, "there is no shell")
		}
		req.shellID = s.shellID
	}
	deadline, cancel := context.WithTimeoutCause(ctx, s.timeout+s.slack,
		fault.New(fault.Unreachable, "the endpoint did not answer within %s", s.timeout+s.slack))
	defer cancel()
	e := envelope{to: l.poster.URL(), sessionID: "uuid:" + s.sessionID, maxEnvelope: s.size, timeout: duration(s.timeout)}
	data, status, err := l.poster.PostContext(deadline, e.marshal(req))
	if err != nil {
		return nil, err
	}
	r, err := parse(data)
	if err != nil {
		return nil, fault.New(fault.Refused, "HTTP status %d: %w", status, err)
	}
	// A fault about an envelope that could not be read relates to none.
	if got := strings.TrimSpace(r.Header.RelatesTo); !strings.EqualFold(got, req.messageID) && (got != "" || r.Body.Fault == nil) {
		return nil, fault.New(fault.Refused, "a reply relates to message %q, sent was %q", got, req.messageID)
	}
	if r.Body.Fault != nil {
		return nil, r.Body.Fault.read().wrap()
	}
	if status != 200 {
		return nil, fault.New(fault.Refused, "the endpoint answers HTTP status %d without a fault", status)
	}
	return r, nil
}

// duration spells seconds as xs:duration, such as PT60S.
func duration(d time.Duration) string {
	return "PT" + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "S"
}
