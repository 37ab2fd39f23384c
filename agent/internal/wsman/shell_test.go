package wsman

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed/sealedtest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const (
	shellID   = "3C44D114-8061-412A-9519-D25BA6D8977B"
	commandID = "309F7D49-62AD-4ED4-AB02-174DC96A46EC"
)

// sent is what the endpoint understood of a request.
type sent struct {
	Header struct {
		Action      string   `xml:"Action"`
		To          string   `xml:"To"`
		MessageID   string   `xml:"MessageID"`
		ResourceURI string   `xml:"ResourceURI"`
		MaxEnvelope int      `xml:"MaxEnvelopeSize"`
		Timeout     string   `xml:"OperationTimeout"`
		SessionID   string   `xml:"SessionId"`
		Selectors   []string `xml:"SelectorSet>Selector"`
		Options     []struct {
			Name       string `xml:"Name,attr"`
			MustComply string `xml:"MustComply,attr"`
			Value      string `xml:",chardata"`
		} `xml:"OptionSet>Option"`
	} `xml:"Header"`
	Body struct {
		Inner string `xml:",innerxml"`
	} `xml:"Body"`
}

func (s sent) action() string { return s.Header.Action[strings.LastIndex(s.Header.Action, "/")+1:] }

// answered wraps the body of a reply to a message.
func answered(relatesTo, body string) []byte {
	return fmt.Appendf(nil, `<s:Envelope xml:lang="en-US" xmlns:s="%s" xmlns:a="%s" xmlns:w="%s" xmlns:rsp="%s" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer"><s:Header><a:MessageID>uuid:60F7A1D0-60AF-419A-B809-67FB83A0B88A</a:MessageID><a:RelatesTo>%s</a:RelatesTo></s:Header><s:Body>%s</s:Body></s:Envelope>`,
		nsSOAP, nsAddressing, nsWSMan, nsShell, relatesTo, body)
}

func faulty(code uint64, sub, text string) string {
	return fmt.Sprintf(`<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:%s</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="en-US">%s</s:Text></s:Reason><s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="%d" Machine="127.0.0.1"><f:Message>%[2]s</f:Message></f:WSManFault></s:Detail></s:Fault>`, sub, text, code)
}

// honest answers as an endpoint that has one shell and whose commands say "out".
func honest(s sent) string {
	switch s.action() {
	case "Create":
		return `<x:ResourceCreated><a:ReferenceParameters><w:SelectorSet><w:Selector Name="ShellId">` + shellID + `</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>`
	case "Command":
		return `<rsp:CommandResponse><rsp:CommandId>` + commandID + `</rsp:CommandId></rsp:CommandResponse>`
	case "Receive":
		return `<rsp:ReceiveResponse><rsp:Stream Name="stdout" CommandId="` + commandID + `">` + base64.StdEncoding.EncodeToString([]byte("out")) + `</rsp:Stream>` +
			`<rsp:CommandState CommandId="` + commandID + `" State="` + nsShell + `/CommandState/Done"/></rsp:ReceiveResponse>`
	case "Send":
		return `<rsp:SendResponse/>`
	case "Signal":
		return `<rsp:SignalResponse/>`
	}
	return ""
}

// endpoint is a sealed endpoint that answers by a function, and the shell on it.
type endpoint struct {
	*sealedtest.Endpoint
	shell  *Shell
	pauses []time.Duration

	mu  sync.Mutex
	got []sent
}

// requests are the actions that came, in order.
func (e *endpoint) requests() (actions []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.got {
		actions = append(actions, s.action())
	}
	return actions
}

// start makes an endpoint; answer is for the n-th envelope, and "" with the status
// 0 is what honest would answer.
func start(t *testing.T, raw func(n int, body []byte) ([]byte, bool), answer func(n int, s sent) (int, []byte)) *endpoint {
	t.Helper()
	e := &endpoint{Endpoint: &sealedtest.Endpoint{Raw: raw}}
	e.Envelope = func(plain []byte) (int, []byte) {
		var s sent
		if err := xml.Unmarshal(plain, &s); err != nil {
			t.Errorf("request is no XML: %v", err)
		}
		e.mu.Lock()
		e.got = append(e.got, s)
		n := len(e.got)
		e.mu.Unlock()
		if answer != nil {
			if status, body := answer(n, s); status != 0 {
				return status, body
			}
		}
		return 200, answered(s.Header.MessageID, honest(s))
	}
	e.Start(t)
	var err error
	e.shell, err = New(func() (Poster, error) {
		return sealed.New(sealed.Options{Address: e.Addr, User: `STAMP\` + sealedtest.User, Password: secret.New(sealedtest.Password)})
	}, rand.NewChaCha8([32]byte{}), "")
	if err != nil {
		t.Fatal(err)
	}
	e.shell.pause = func(_ context.Context, d time.Duration) error { e.pauses = append(e.pauses, d); return nil }
	t.Cleanup(func() { e.shell.shellID = ""; _ = e.shell.Delete(context.Background()) })
	return e
}

func (e *endpoint) create(t *testing.T) {
	t.Helper()
	if err := e.shell.Create(within(t), shellID, []byte("creation")); err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// The whole course of one command, and what each request said.
func TestCourse(t *testing.T) {
	e := start(t, nil, nil)
	ctx := within(t)
	e.create(t)
	if err := e.shell.Command(ctx, commandID, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := e.shell.Send(ctx, commandID, psrp.StreamInput, []byte("second")); err != nil {
		t.Fatal(err)
	}
	out, done, err := e.shell.Receive(ctx, commandID)
	if err != nil || !done || len(out) != 1 || string(out[0]) != "out" {
		t.Fatalf("received %q %t %v", out, done, err)
	}
	if err := e.shell.Signal(ctx, commandID, psrp.SignalTerminate); err != nil {
		t.Fatal(err)
	}
	if err := e.shell.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if got, want := e.Requests(), 2+6; got != want {
		t.Errorf("%d HTTP requests, want %d", got, want)
	}
	b64 := base64.StdEncoding.EncodeToString
	want := []struct{ action, body string }{
		{actionCreate, `<rsp:Shell ShellId="` + shellID + `"><rsp:IdleTimeOut>PT3600S</rsp:IdleTimeOut><rsp:InputStreams>stdin pr</rsp:InputStreams><rsp:OutputStreams>stdout</rsp:OutputStreams><creationXml xmlns="http://schemas.microsoft.com/powershell">` + b64([]byte("creation")) + `</creationXml></rsp:Shell>`},
		{actionCommand, `<rsp:CommandLine CommandId="` + commandID + `"><rsp:Command></rsp:Command><rsp:Arguments>` + b64([]byte("first")) + `</rsp:Arguments></rsp:CommandLine>`},
		{actionSend, `<rsp:Send><rsp:Stream Name="stdin" CommandId="` + commandID + `">` + b64([]byte("second")) + `</rsp:Stream></rsp:Send>`},
		{actionReceive, `<rsp:Receive><rsp:DesiredStream CommandId="` + commandID + `">stdout</rsp:DesiredStream></rsp:Receive>`},
		{actionSignal, `<rsp:Signal CommandId="` + commandID + `"><rsp:Code>` + psrp.SignalTerminate + `</rsp:Code></rsp:Signal>`},
		{actionDelete, ``},
	}
	ids := map[string]bool{}
	for i, s := range e.got {
		h := s.Header
		if h.Action != want[i].action {
			t.Errorf("request %d is %s, want %s", i, h.Action, want[i].action)
		}
		if diff := cmp.Diff(want[i].body, s.Body.Inner); diff != "" {
			t.Errorf("body of %s (-want +got):\n%s", s.action(), diff)
		}
		size, selectors := 512000, []string{shellID}
		if i == 0 {
			size, selectors = 153600, nil
		}
		if h.MaxEnvelope != size || !cmp.Equal(h.Selectors, selectors) || h.Timeout != "PT60S" || h.ResourceURI != ResourceURI || h.To != "http://"+e.Addr+"/wsman" || h.SessionID != "uuid:"+e.shell.SessionID() {
			t.Errorf("header of %s: %+v", s.action(), h)
		}
		if ids[h.MessageID] || !strings.HasPrefix(h.MessageID, "uuid:") {
			t.Errorf("message id %q again", h.MessageID)
		}
		ids[h.MessageID] = true
	}
	if o := e.got[0].Header.Options; len(o) != 1 || o[0].Name != "protocolversion" || o[0].Value != "2.3" || o[0].MustComply != "true" {
		t.Errorf("options of Create: %+v", o)
	}
	for _, word := range []string{"Envelope>", "creation", sealedtest.Password} {
		if bytes.Contains(e.Received(), []byte(word)) {
			t.Errorf("%q left in clear", word)
		}
	}
}

// Text that is markup stays text.
func TestEscaping(t *testing.T) {
	odd := `a<b&"c'>]]>` + "\x00"
	b := envelope{to: "http://x/?a&b", sessionID: odd, timeout: "PT1S"}.marshal(request{action: odd, messageID: odd, shellID: odd, options: []option{{odd, odd, true}}})
	var s sent
	if err := xml.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(odd, "\x00", "\uFFFD", 1) // which XML cannot say
	for _, got := range []string{s.Header.Action, s.Header.MessageID, s.Header.SessionID, s.Header.Selectors[0], s.Header.Options[0].Name, s.Header.Options[0].Value} {
		if got != want {
			t.Errorf("%q came as %q", want, got)
		}
	}
	if err := wellFormed(b); err != nil {
		t.Error(err)
	}
}

func wellFormed(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// A timeout of the operation is no error on Receive, whatever the HTTP status:
// a recording has it with 200 as well.
func TestReceivePollsOnTimeout(t *testing.T) {
	const polls = 5
	e := start(t, nil, func(n int, s sent) (int, []byte) {
		if s.action() == "Receive" && n < 2+polls {
			return []int{200, 500}[n%2], answered(s.Header.MessageID, faulty(CodeTimedOut, "TimedOut", "later"))
		}
		return 0, nil
	})
	e.create(t)
	out, done, err := e.shell.Receive(within(t), commandID)
	if err != nil || !done || len(out) != 1 {
		t.Fatalf("%q %t %v", out, done, err)
	}
	ids := map[string]bool{}
	for _, s := range e.got {
		ids[s.Header.MessageID] = true
	}
	if len(e.got) != 2+polls || len(ids) != 2+polls {
		t.Errorf("%d requests with %d ids, want %d of each: a poll is a new message", len(e.got), len(ids), 2+polls)
	}
}

func TestReceiveEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := start(t, nil, func(n int, s sent) (int, []byte) {
		if s.action() != "Receive" {
			return 0, nil
		}
		if n == 5 {
			cancel()
		}
		return 500, answered(s.Header.MessageID, faulty(CodeTimedOut, "TimedOut", "later"))
	})
	e.create(t)
	if _, _, err := e.shell.Receive(ctx, commandID); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's end", err)
	}
}

// cutAt cuts the connection at the n-th envelope, that is behind the logins too.
type cutAt struct {
	mu   sync.Mutex
	n    int
	from int // first envelope to cut
	to   int // last
}

func (c *cutAt) raw(_ int, body []byte) ([]byte, bool) {
	if len(body) == 0 {
		return nil, false // a login
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return nil, c.n >= c.from && c.n <= c.to
}

// A Receive whose answer is lost is sent again as it was, on a new connection, and
// so is a Delete; what starts something never is (threat: a stamp is activated
// twice).
func TestBrokenConnection(t *testing.T) {
	type op struct {
		name string
		do   func(context.Context, *Shell) error
	}
	ops := []op{
		{"Create", func(ctx context.Context, s *Shell) error { return s.Create(ctx, shellID, []byte("c")) }},
		{"Command", func(ctx context.Context, s *Shell) error { return s.Command(ctx, commandID, []byte("f")) }},
		{"Send", func(ctx context.Context, s *Shell) error { return s.Send(ctx, commandID, "stdin", []byte("f")) }},
		{"Receive", func(ctx context.Context, s *Shell) error { _, _, err := s.Receive(ctx, commandID); return err }},
		{"Signal", func(ctx context.Context, s *Shell) error { return s.Signal(ctx, commandID, psrp.SignalTerminate) }},
		{"Delete", func(ctx context.Context, s *Shell) error { return s.Delete(ctx) }},
	}
	for i, broken := range ops {
		t.Run(broken.name, func(t *testing.T) {
			cut := &cutAt{from: i + 1, to: i + 1}
			e := start(t, cut.raw, nil)
			for _, o := range ops[:i] {
				if err := o.do(within(t), e.shell); err != nil {
					t.Fatalf("%s: %v", o.name, err)
				}
			}
			err := broken.do(within(t), e.shell)
			again := broken.name == "Receive" || broken.name == "Delete"
			if again != (err == nil) {
				t.Fatalf("%v, want it repeated %t", err, again)
			}
			if got := strings.Count(strings.Join(e.requests(), " "), broken.name); (got == 1) != again || got > 1 {
				t.Errorf("it was answered %d times", got)
			}
			var d interface{ Definite() bool }
			if !again && (fault.KindOf(err) != fault.Unreachable || errors.As(err, &d) && d.Definite()) {
				t.Errorf("error %v of kind %s: the outcome is open", err, fault.KindOf(err))
			}
			if cut.n != i+1 && !again || again && cut.n != i+2 {
				t.Errorf("%d envelopes sent, cut was %d", cut.n, i+1)
			}
		})
	}
}

func TestReceiveIsRepeatedWithTheSameMessageID(t *testing.T) {
	// The endpoint reads each and dies instead of answering.
	var ids []string
	e := start(t, nil, nil)
	e.create(t)
	e.Sealed = func(s *sealedtest.Session, status int, plain []byte) []byte {
		e.mu.Lock()
		defer e.mu.Unlock()
		ids = append(ids, e.got[len(e.got)-1].Header.MessageID)
		if len(ids) <= resends {
			return nil
		}
		return sealedtest.Response(status, sealedtest.ContentType, sealedtest.Body(s, plain))
	}
	if _, _, err := e.shell.Receive(within(t), commandID); err != nil {
		t.Fatal(err)
	}
	if len(ids) != resends+1 {
		t.Fatalf("sent %d times, want %d", len(ids), resends+1)
	}
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("message ids %q, want one", ids)
			break
		}
	}
	if want := []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}; !cmp.Equal(e.pauses, want) {
		t.Errorf("pauses %v, want %v", e.pauses, want)
	}
}

func TestReceiveGivesUp(t *testing.T) {
	cut := &cutAt{from: 2, to: 1000}
	e := start(t, cut.raw, nil)
	e.create(t)
	if _, _, err := e.shell.Receive(within(t), commandID); fault.KindOf(err) != fault.Unreachable {
		t.Errorf("%v", err)
	}
	if got := cut.n - 1; got != resends+1 {
		t.Errorf("sent %d times, want %d", got, resends+1)
	}
}

// A quota is the endpoint's word and no broken connection.
func TestFaultsAreNotRepeated(t *testing.T) {
	e := start(t, nil, func(_ int, s sent) (int, []byte) {
		if s.action() == "Receive" {
			return 500, answered(s.Header.MessageID, faulty(CodeMaxOperations, "QuotaLimit", "too many"))
		}
		return 0, nil
	})
	e.create(t)
	_, _, err := e.shell.Receive(within(t), commandID)
	var f *Fault
	if !errors.As(err, &f) || f.Code != CodeMaxOperations || len(e.got) != 2 {
		t.Errorf("%v after %d requests, want the fault after 2", err, len(e.got))
	}
}

// If it is open whether the shell was made, Delete tries to delete it; if it
// certainly was not, nothing is sent.
func TestDeleteAfterFailedCreate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		raw    func(int, []byte) ([]byte, bool)
		answer func(int, sent) (int, []byte)
		want   []string
	}{
		{"answer lost", (&cutAt{from: 1, to: 1}).raw, nil, []string{"Delete"}},
		{"answer to another message", nil, func(n int, s sent) (int, []byte) {
			if n == 1 {
				return 200, answered("uuid:"+shellID, honest(s))
			}
			return 0, nil
		}, []string{"Create", "Delete"}},
		{"refused", nil, func(n int, s sent) (int, []byte) {
			return 500, answered(s.Header.MessageID, faulty(CodeMaxShells, "QuotaLimit", "too many"))
		}, []string{"Create"}},
		{"no login", func(int, []byte) ([]byte, bool) { return nil, true }, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, tt.raw, tt.answer)
			if err := e.shell.Create(within(t), shellID, nil); err == nil {
				t.Fatal("created")
			}
			if err := e.shell.Delete(within(t)); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, e.requests()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeleteOfAShellThatIsGone(t *testing.T) {
	e := start(t, nil, func(_ int, s sent) (int, []byte) {
		if s.action() == "Delete" {
			return 500, answered(s.Header.MessageID, faulty(CodeInvalidSelectors, "InvalidSelectors", "gone"))
		}
		return 0, nil
	})
	e.create(t)
	if err := e.shell.Delete(within(t)); err != nil {
		t.Error(err)
	}
	if err := e.shell.Delete(within(t)); err != nil || len(e.got) != 2 {
		t.Errorf("second Delete: %v after %d requests", err, len(e.got))
	}
}

// Ctrl-C reaches the endpoint while a Receive waits, on another connection.
func TestSignalBesideAWaitingReceive(t *testing.T) {
	waiting, signalled := make(chan struct{}), make(chan struct{})
	e := start(t, nil, func(_ int, s sent) (int, []byte) {
		switch s.action() {
		case "Receive":
			close(waiting)
			<-signalled
		case "Signal":
			close(signalled)
		}
		return 0, nil
	})
	e.create(t)
	ctx := within(t)
	received := make(chan error)
	go func() { _, _, err := e.shell.Receive(ctx, commandID); received <- err }()
	<-waiting
	if err := e.shell.Signal(ctx, commandID, psrp.SignalCtrlC); err != nil {
		t.Error(err)
	}
	if err := <-received; err != nil {
		t.Error(err)
	}
	if got := len(e.Logins()); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
}

func TestResume(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		gone   bool
	}{
		{"disconnected", 200, `<rsp:ReconnectResponse/>`, false},
		{"still connected", 500, faulty(2150859250, "InternalError", "the shell is connected"), false},
		{"gone", 500, faulty(CodeInvalidSelectors, "InvalidSelectors", "gone"), true},
	} {
		e := start(t, nil, func(_ int, s sent) (int, []byte) {
			if s.action() == "Reconnect" {
				return tt.status, answered(s.Header.MessageID, tt.body)
			}
			return 0, nil
		})
		e.shell.sessionID = commandID
		err := e.shell.Resume(within(t), shellID)
		if tt.gone != IsGone(err) || tt.gone != (err != nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if h := e.got[0].Header; h.SessionID != "uuid:"+commandID || !cmp.Equal(h.Selectors, []string{shellID}) {
			t.Errorf("%s: header %+v", tt.name, h)
		}
	}
}

// Replies that are sealed, but not answers (threat: what the endpoint says about
// one thing is taken for another).
func TestRepliesThatAreNoAnswers(t *testing.T) {
	stream := func(id, data string) string {
		return `<rsp:ReceiveResponse><rsp:Stream Name="stdout" CommandId="` + id + `">` + data + `</rsp:Stream></rsp:ReceiveResponse>`
	}
	of := func(body string) func(sent) []byte {
		return func(s sent) []byte { return answered(s.Header.MessageID, body) }
	}
	var receive sent
	receive.Header.Action = actionReceive
	good := honest(receive)
	for _, tt := range []struct {
		name  string
		reply func(sent) []byte
		want  string
	}{
		{"wrong RelatesTo", func(sent) []byte { return answered("uuid:"+shellID, good) }, "relates to message"},
		{"no RelatesTo", func(sent) []byte { return answered("", good) }, "relates to message"},
		{"fault for another message", func(sent) []byte { return answered("uuid:"+shellID, faulty(CodeTimedOut, "TimedOut", "x")) }, "relates to message"},
		{"RelatesTo of another name space", func(s sent) []byte {
			return bytes.Replace(answered(s.Header.MessageID, good), []byte(nsAddressing), []byte("urn:other"), 1)
		}, "relates to message"},
		{"not XML", func(sent) []byte { return []byte("<") }, "no XML"},
		{"another document", func(sent) []byte { return []byte("<html/>") }, "no SOAP envelope"},
		{"empty", func(sent) []byte { return nil }, "no SOAP envelope"},
		{"two envelopes", func(s sent) []byte {
			return append(answered(s.Header.MessageID, good), answered(s.Header.MessageID, good)...)
		}, "follows"},
		{"document type", func(s sent) []byte {
			return append([]byte(`<!DOCTYPE x [<!ENTITY a "aaaa">]>`), answered(s.Header.MessageID, good)...)
		}, "document type"},
		{"deep", of(strings.Repeat("<a>", 1<<17) + strings.Repeat("</a>", 1<<17)), "nests deeper"},
		{"no answer", of(""), "something else"},
		{"answer to another operation", of(`<rsp:SendResponse/>`), "something else"},
		{"output of another command", of(stream(shellID, "")), "output of command"},
		{"state of another command", of(`<rsp:ReceiveResponse><rsp:CommandState CommandId="` + shellID + `" State="x"/></rsp:ReceiveResponse>`), "state of command"},
		{"no base64", of(stream(commandID, "!")), "base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, nil, func(_ int, s sent) (int, []byte) {
				if s.action() == "Receive" {
					return 200, tt.reply(s)
				}
				return 0, nil
			})
			e.create(t)
			_, _, err := e.shell.Receive(within(t), commandID)
			if fault.KindOf(err) != fault.Refused || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v of kind %s, want %q refused", err, fault.KindOf(err), tt.want)
			}
			if len(e.got) != 2 {
				t.Errorf("%d requests, want 2: a refused reply is not asked for again", len(e.got))
			}
		})
	}
}

// A status of 500 without a fault is no success.
func TestStatusWithoutFault(t *testing.T) {
	e := start(t, nil, func(_ int, s sent) (int, []byte) {
		return 500, answered(s.Header.MessageID, honest(s))
	})
	if err := e.shell.Create(within(t), shellID, nil); fault.KindOf(err) != fault.Refused {
		t.Errorf("%v", err)
	}
}

// An operation counts only if the endpoint confirms this one.
func TestUnconfirmedOperations(t *testing.T) {
	for _, tt := range []struct {
		name, action, body string
		do                 func(context.Context, *Shell) error
	}{
		{"another command", "Command", `<rsp:CommandResponse><rsp:CommandId>` + shellID + `</rsp:CommandId></rsp:CommandResponse>`,
			func(ctx context.Context, s *Shell) error { return s.Command(ctx, commandID, nil) }},
		{"no command", "Command", ``, func(ctx context.Context, s *Shell) error { return s.Command(ctx, commandID, nil) }},
		{"nothing sent", "Send", ``, func(ctx context.Context, s *Shell) error { return s.Send(ctx, "", "pr", nil) }},
		{"nothing signalled", "Signal", ``, func(ctx context.Context, s *Shell) error { return s.Signal(ctx, commandID, "x") }},
	} {
		e := start(t, nil, func(_ int, s sent) (int, []byte) {
			if s.action() == tt.action {
				return 200, answered(s.Header.MessageID, tt.body)
			}
			return 0, nil
		})
		e.create(t)
		err := tt.do(within(t), e.shell)
		var d interface{ Definite() bool }
		if fault.KindOf(err) != fault.Refused || errors.As(err, &d) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	e := start(t, nil, func(_ int, s sent) (int, []byte) { return 200, answered(s.Header.MessageID, "") })
	if err := e.shell.Create(within(t), shellID, nil); fault.KindOf(err) != fault.Refused {
		t.Errorf("no shell named: %v", err)
	}
}

func TestReceivedStreamsAndStates(t *testing.T) {
	state := func(s string) string {
		return `<rsp:CommandState CommandId="` + strings.ToLower(commandID) + `" State="` + nsShell + `/CommandState/` + s + `"/>`
	}
	for _, tt := range []struct {
		name, body string
		out        []string
		done       bool
	}{
		{"nothing", ``, nil, false},
		{"pending", state("Pending"), nil, false},
		{"running", state("Running"), nil, false},
		{"done", state("Done"), nil, true},
		{"two streams", `<rsp:Stream Name="stdout" CommandId="` + commandID + `">YQ==</rsp:Stream><rsp:Stream Name="stdout">Yg==</rsp:Stream>` + state("Done"), []string{"a", "b"}, true},
		{"another stream, an empty one, lines", `<rsp:Stream Name="stderr">YQ==</rsp:Stream><rsp:Stream Name="stdout" End="true"/><rsp:Stream Name="stdout">` + "\r\n YW\nI= </rsp:Stream>", []string{"ab"}, false},
	} {
		e := start(t, nil, func(_ int, s sent) (int, []byte) {
			if s.action() == "Receive" {
				return 200, answered(s.Header.MessageID, `<rsp:ReceiveResponse>`+tt.body+`</rsp:ReceiveResponse>`)
			}
			return 0, nil
		})
		e.create(t)
		out, done, err := e.shell.Receive(within(t), commandID)
		var got []string
		for _, b := range out {
			got = append(got, string(b))
		}
		if err != nil || done != tt.done || !cmp.Equal(got, tt.out) {
			t.Errorf("%s: %q %t %v, want %q %t", tt.name, got, done, err, tt.out, tt.done)
		}
	}
}
