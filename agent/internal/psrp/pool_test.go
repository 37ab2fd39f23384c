package psrp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/google/go-cmp/cmp"
)

// endpoint is a small PSRP server in memory: the server's half of this package
// behind a [Shell]. What it does with a command is given by its fields.
type endpoint struct {
	// opening returns the replies to the first Receives; nil opens in two.
	opening func(pool GUID) [][]Message
	// run returns the replies of a command: each is one Receive's messages. With
	// the last one the command is done.
	run func(pool, pipeline GUID, c Command) [][]Message
	// endless serves the last reply again and again.
	endless bool
	// hang makes a command wait once its replies are used up, until ctrl_c; it
	// then says what onStop returns.
	hang   bool
	onStop func(pool, pipeline GUID) []Message
	// fail returns the error of an operation, by its name and how many there
	// have been.
	fail func(op string, n int) error
	// split is the size of the fragments that are sent; 0 means MaxFragment.
	split int

	mu      sync.Mutex
	log     []string
	counts  map[string]int
	out     Fragmenter
	in      Defragmenter
	pool    GUID
	queue   [][]Message
	stopped chan struct{}
	sent    []Message // received after CREATE_PIPELINE
}

func (e *endpoint) step(ctx context.Context, op string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts == nil {
		e.counts = map[string]int{}
	}
	e.counts[op]++
	e.log = append(e.log, op)
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.fail != nil {
		return e.fail(op, e.counts[op])
	}
	return nil
}

// take puts a client's fragment together and serves the messages in it.
func (e *endpoint) take(fragment []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	messages, err := e.in.Write(fragment)
	if err != nil {
		return err
	}
	for _, data := range messages {
		m, err := DecodeMessage(data)
		if err != nil {
			return err
		}
		switch m.Type {
		case SessionCapability:
			e.pool = m.Pool
			e.queue = [][]Message{
				{NewSessionCapability(ToClient, GUID{}), NewApplicationPrivateData(m.Pool, "5.1.17763.1")},
				{NewPoolState(m.Pool, PoolOpened, nil)},
			}
			if e.opening != nil {
				e.queue = e.opening(m.Pool)
			}
		case InitRunspacePool:
		case CreatePipeline:
			v, err := m.Value()
			if err != nil {
				return err
			}
			request, err := ParseCreatePipeline(v)
			if err != nil {
				return err
			}
			e.stopped = make(chan struct{})
			e.queue = e.run(m.Pool, m.Pipeline, request.Statements[0][0].Command)
		default:
			e.sent = append(e.sent, m)
		}
	}
	return nil
}

func (e *endpoint) Create(ctx context.Context, shellID string, creation []byte) error {
	if err := e.step(ctx, "Create"); err != nil {
		return err
	}
	return e.take(creation)
}

func (e *endpoint) Command(ctx context.Context, commandID string, first []byte) error {
	if err := e.step(ctx, "Command"); err != nil {
		return err
	}
	return e.take(first)
}

func (e *endpoint) Send(ctx context.Context, commandID, stream string, fragment []byte) error {
	if err := e.step(ctx, "Send "+stream); err != nil {
		return err
	}
	return e.take(fragment)
}

func (e *endpoint) Receive(ctx context.Context, commandID string) (streams [][]byte, done bool, err error) {
	if err := e.step(ctx, "Receive"); err != nil {
		return nil, false, err
	}
	e.mu.Lock()
	waits := len(e.queue) == 0 && e.hang && commandID != ""
	e.mu.Unlock()
	if waits {
		select {
		case <-e.stopped:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return nil, true, nil
	}
	reply := e.queue[0]
	if !e.endless || len(e.queue) > 1 {
		e.queue = e.queue[1:]
	}
	e.out.Size = e.split
	for _, m := range reply {
		streams = append(streams, e.out.Split(m.Encode())...)
	}
	done = commandID != "" && len(e.queue) == 0 && !e.endless && (!e.hang || e.ended())
	return streams, done, nil
}

func (e *endpoint) ended() bool {
	select {
	case <-e.stopped:
		return true
	default:
		return false
	}
}

func (e *endpoint) Signal(ctx context.Context, commandID, code string) error {
	name := "Terminate"
	if code == SignalCtrlC {
		name = "ctrl_c"
	}
	if err := e.step(ctx, name); err != nil {
		return err
	}
	if code == SignalCtrlC && e.onStop != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		id, err := ParseGUID(commandID)
		if err != nil {
			return err
		}
		e.queue = append(e.queue, e.onStop(e.pool, id))
		close(e.stopped)
	}
	return nil
}

func (e *endpoint) Delete(ctx context.Context) error { return e.step(ctx, "Delete") }

func (e *endpoint) steps() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.log, " ")
}

func open(t *testing.T, e *endpoint) *Pool {
	t.Helper()
	p, err := NewPool(e, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// completes returns a run function for these values and a completed state.
func completes(values ...clixml.Value) func(pool, pipeline GUID, c Command) [][]Message {
	return func(pool, pipeline GUID, c Command) [][]Message {
		var reply []Message
		for _, v := range values {
			reply = append(reply, NewOutput(pool, pipeline, v))
		}
		return [][]Message{append(reply, NewPipelineState(pool, pipeline, PipelineCompleted, nil))}
	}
}

// refusal is an error of a transport that knows that nothing was begun.
type refusal struct{ error }

func (refusal) Definite() bool { return true }

func TestOpenRunClose(t *testing.T) {
	var got Command
	e := &endpoint{run: func(pool, pipeline GUID, c Command) [][]Message {
		got = c
		return completes(clixml.String("token"), clixml.Int32(7))(pool, pipeline, c)
	}}
	p := open(t, e)
	want := Command{"New-RegistrationToken", []Parameter{Param("BillingModel", "Capacity"), Switch("UsageReportingEnabled", false)}}
	var begun GUID
	for range 2 {
		output, err := p.Run(t.Context(), want, Handlers{Begin: func(id GUID) error { begun = id; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]clixml.Value{clixml.String("token"), clixml.Int32(7)}, output); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if begun.IsZero() || p.ID() != e.pool {
		t.Errorf("pipeline %s, pool %s, the endpoint's %s", begun, p.ID(), e.pool)
	}
	const steps = "Create Receive Receive Command Receive Terminate Command Receive Terminate Delete"
	if e.steps() != steps {
		t.Errorf("the steps are\n%s, want\n%s", e.steps(), steps)
	}
}

// TestLargeCommand holds that a command over one fragment goes out as Command
// and Sends, and that replies in many fragments come together.
func TestLargeCommand(t *testing.T) {
	key := strings.Repeat("k", 100_000)
	e := &endpoint{split: 1000, run: func(pool, pipeline GUID, c Command) [][]Message {
		return completes(c.Parameters[0].Value)(pool, pipeline, c)
	}}
	output, err := open(t, e).Run(t.Context(), Command{"New-AzureStackActivation", []Parameter{Param("ActivationKey", key)}}, Handlers{})
	if err != nil || len(output) != 1 || clixml.Text(output[0]) != key {
		t.Errorf("%d values, %v", len(output), err)
	}
	if got := e.steps(); got != "Create Receive Receive Command Send stdin Send stdin Send stdin Receive Terminate" {
		t.Errorf("the steps are %s", got)
	}
}

func TestOpenFails(t *testing.T) {
	state := func(s PoolState, r *ErrorRecord) func(GUID) [][]Message {
		return func(pool GUID) [][]Message {
			return [][]Message{{NewSessionCapability(ToClient, GUID{}), NewPoolState(pool, s, r)}}
		}
	}
	old := NewSessionCapability(ToClient, GUID{})
	old.Data = bytes.Replace(old.Data, []byte(">2.3<"), []byte(">3.0<"), 1)
	tests := []struct {
		name string
		e    *endpoint
		want string
	}{
		{"no shell", &endpoint{fail: func(op string, n int) error {
			if op == "Create" {
				return errors.New("access is denied")
			}
			return nil
		}}, "access is denied"},
		{"broken", &endpoint{opening: state(PoolBroken, &ErrorRecord{Message: "no memory", FullyQualifiedErrorID: "X"})}, "the runspace pool failed on the endpoint: no memory (X)"},
		{"closed", &endpoint{opening: state(PoolClosed, nil)}, "the pool is closed"},
		{"version", &endpoint{opening: func(GUID) [][]Message { return [][]Message{{old}} }}, "speaks PSRP 3.0"},
		{"no capability", &endpoint{opening: func(pool GUID) [][]Message {
			return [][]Message{{NewPoolState(pool, PoolOpened, nil)}}
		}}, "without a SESSION_CAPABILITY"},
		{"cut", &endpoint{fail: func(op string, n int) error {
			if op == "Receive" && n == 2 {
				return errors.New("connection reset")
			}
			return nil
		}}, "connection reset"},
		{"nothing", &endpoint{endless: true, opening: func(GUID) [][]Message { return [][]Message{{}} }}, "replies in a row"},
		{"cut and no way to delete", &endpoint{fail: func(op string, n int) error {
			if op == "Receive" || op == "Delete" {
				return errors.New("gone " + op)
			}
			return nil
		}}, "gone Receive; and the shell may be left: gone Delete"},
	}
	for _, tt := range tests {
		p, err := NewPool(tt.e, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Open(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.want)
		}
		if !strings.HasSuffix(tt.e.steps(), "Delete") {
			t.Errorf("%s: the steps are %s", tt.name, tt.e.steps())
		}
	}
}

// TestOpenWaits holds that states on the way, messages of no concern and a
// host call do not disturb the opening.
func TestOpenWaits(t *testing.T) {
	e := &endpoint{opening: func(pool GUID) [][]Message {
		return [][]Message{
			{}, {NewSessionCapability(ToClient, GUID{})}, {NewPoolState(pool, PoolNegotiated, nil)},
			{NewHostCall(pool, GUID{}, HostCall{1, 11, "ReadLine"})},
			{{To: ToClient, Type: RunspaceAvailability, Pool: pool, Data: []byte("not even CLIXML")}},
			{NewPoolState(pool, PoolOpening, nil)}, {NewPoolState(pool, PoolOpened, nil)},
		}
	}}
	open(t, e)
	if len(e.sent) != 1 || e.sent[0].Type != PoolHostResponse {
		t.Errorf("the host call was answered with %v", e.sent)
	}
}

// TestErrorsFail holds that any error record fails a call, also where the
// pipeline completes.
func TestErrorsFail(t *testing.T) {
	a := ErrorRecord{Message: "first", FullyQualifiedErrorID: "A"}
	b := ErrorRecord{Message: "second", FullyQualifiedErrorID: "B"}
	tests := []struct {
		name    string
		records []ErrorRecord
		state   PipelineState
		final   *ErrorRecord
		ids     []string
		message string
	}{
		{"not terminating", []ErrorRecord{a, b}, PipelineCompleted, nil, []string{"A", "B"}, "Get-X failed on the endpoint: first (A), and 1 more"},
		{"terminating", nil, PipelineFailed, &a, []string{"A"}, "Get-X failed on the endpoint: first (A)"},
		{"both", []ErrorRecord{a}, PipelineFailed, &b, []string{"B", "A"}, "Get-X failed on the endpoint: second (B), and 1 more"},
		{"failed without record", nil, PipelineFailed, nil, []string{""}, "Get-X failed on the endpoint: the pipeline is failed"},
		{"stopped by the endpoint", nil, PipelineStopped, nil, []string{""}, "Get-X failed on the endpoint: the pipeline is stopped"},
		{"completed with a record", nil, PipelineCompleted, &a, []string{"A"}, "Get-X failed on the endpoint: first (A)"},
	}
	for _, tt := range tests {
		e := &endpoint{run: func(pool, pipeline GUID, c Command) [][]Message {
			reply := []Message{NewOutput(pool, pipeline, clixml.String("partial"))}
			for _, r := range tt.records {
				reply = append(reply, NewErrorRecord(pool, pipeline, r))
			}
			return [][]Message{reply, {NewPipelineState(pool, pipeline, tt.state, tt.final)}}
		}}
		output, err := open(t, e).Run(t.Context(), Command{Name: "Get-X"}, Handlers{})
		var remote *RemoteError
		if !errors.As(err, &remote) {
			t.Errorf("%s: error %v", tt.name, err)
			continue
		}
		var ids []string
		for _, r := range remote.Records {
			ids = append(ids, r.FullyQualifiedErrorID)
		}
		if diff := cmp.Diff(tt.ids, ids); diff != "" || remote.State != tt.state || err.Error() != tt.message || len(output) != 1 {
			t.Errorf("%s: %v, state %v, %d values, %s", tt.name, err, remote.State, len(output), diff)
		}
		if !strings.HasSuffix(e.steps(), "Terminate") {
			t.Errorf("%s: the pipeline was left: %s", tt.name, e.steps())
		}
	}
}

// TestErrorsBounded holds how many error records are kept.
func TestErrorsBounded(t *testing.T) {
	e := &endpoint{run: func(pool, pipeline GUID, c Command) [][]Message {
		var reply []Message
		for i := range MaxErrors + 5 {
			reply = append(reply, NewErrorRecord(pool, pipeline, ErrorRecord{Message: fmt.Sprint(i)}))
		}
		return [][]Message{append(reply, NewPipelineState(pool, pipeline, PipelineCompleted, nil))}
	}}
	_, err := open(t, e).Run(t.Context(), Command{Name: "Get-X"}, Handlers{})
	var remote *RemoteError
	if !errors.As(err, &remote) || len(remote.Records) != MaxErrors || remote.Records[0].Message != "0" {
		t.Errorf("%v", err)
	}
}

// TestUnknown holds that whatever keeps the end from being seen is an unknown
// outcome, never success, and that the pipeline is not killed for it.
func TestUnknown(t *testing.T) {
	output := func(pool, pipeline GUID) Message { return NewOutput(pool, pipeline, clixml.String("x")) }
	foreign := guid("AAAAAAAA-AAAA-4AAA-8AAA-AAAAAAAAAAAA")
	one := func(m func(pool, pipeline GUID) []Message) func(pool, pipeline GUID, c Command) [][]Message {
		return func(pool, pipeline GUID, c Command) [][]Message { return [][]Message{m(pool, pipeline)} }
	}
	failing := func(op string, at int) func(string, int) error {
		return func(got string, n int) error {
			if got == op && n == at {
				return errors.New("cut")
			}
			return nil
		}
	}
	long := Command{"Get-X", []Parameter{Param("A", strings.Repeat("a", MaxFragment))}}
	tests := []struct {
		name string
		e    *endpoint
		c    Command
		want string
	}{
		{"done without state", &endpoint{run: one(func(p, i GUID) []Message { return []Message{output(p, i)} })}, Command{}, "without the pipeline's state"},
		{"done without anything", &endpoint{run: func(p, i GUID, c Command) [][]Message { return nil }}, Command{}, "without the pipeline's state"},
		{"disconnected", &endpoint{run: one(func(p, i GUID) []Message { return []Message{NewPipelineState(p, i, PipelineDisconnected, nil)} })}, Command{}, "disconnected"},
		{"lost Command", &endpoint{run: completes(), fail: failing("Command", 1)}, Command{}, "cut"},
		{"lost Send", &endpoint{run: completes(), fail: failing("Send stdin", 1)}, long, "cut"},
		{"lost Receive", &endpoint{run: completes(), fail: failing("Receive", 3)}, Command{}, "cut"},
		{"refused Receive", &endpoint{run: completes(), fail: func(op string, n int) error {
			if op == "Receive" && n == 3 {
				return refusal{errors.New("no such command")}
			}
			return nil
		}}, Command{}, "no such command"},
		{"other pool", &endpoint{run: one(func(p, i GUID) []Message { return []Message{output(foreign, i)} })}, Command{}, "belongs to pool"},
		{"no pool", &endpoint{run: one(func(p, i GUID) []Message { return []Message{output(GUID{}, i)} })}, Command{}, "belongs to pool"},
		{"other pipeline", &endpoint{run: one(func(p, i GUID) []Message { return []Message{output(p, i), output(p, foreign)} })}, Command{}, "belongs to pipeline"},
		{"no pipeline", &endpoint{run: one(func(p, i GUID) []Message { return []Message{output(p, GUID{})} })}, Command{}, "belongs to pipeline"},
		{"for the server", &endpoint{run: one(func(p, i GUID) []Message { m := output(p, i); m.To = ToServer; return []Message{m} })}, Command{}, "for the server"},
		{"no CLIXML", &endpoint{run: one(func(p, i GUID) []Message { m := output(p, i); m.Data = []byte("<S>"); return []Message{m} })}, Command{}, "not valid CLIXML"},
		{"no state in the state", &endpoint{run: one(func(p, i GUID) []Message {
			m := NewPipelineState(p, i, 4, nil)
			m.Data = []byte("<Nil />")
			return []Message{m}
		})}, Command{}, "no number PipelineState"},
		{"no record in the error", &endpoint{run: one(func(p, i GUID) []Message {
			m := output(p, i)
			m.Type = ErrorRecordMessage
			return []Message{m}
		})}, Command{}, "it is no object"},
		{"host called for ever", &endpoint{endless: true, run: one(func(p, i GUID) []Message {
			return []Message{NewHostCall(p, i, HostCall{1, 11, "ReadLine"})}
		})}, Command{}, "called the host over"},
		{"large value", &endpoint{run: one(func(p, i GUID) []Message {
			return []Message{NewOutput(p, i, clixml.String(strings.Repeat("a", MaxOutput)))}
		})}, Command{}, "over the size limit"},
		{"large progress", &endpoint{run: one(func(p, i GUID) []Message {
			return []Message{NewProgress(p, i, Progress{Activity: strings.Repeat("a", MaxOutput)})}
		})}, Command{}, "over the size limit"},
		{"endless output", &endpoint{endless: true, run: one(func(p, i GUID) []Message { return []Message{output(p, i)} })}, Command{}, "over the size limit"},
		{"endless errors", &endpoint{endless: true, run: one(func(p, i GUID) []Message {
			return []Message{NewErrorRecord(p, i, ErrorRecord{Message: strings.Repeat("e", 1<<16)})}
		})}, Command{}, "over the size limit"},
		{"endless progress", &endpoint{endless: true, run: one(func(p, i GUID) []Message {
			return []Message{NewProgress(p, i, Progress{Activity: strings.Repeat("a", 1<<20)})}
		})}, Command{}, "over the size limit"},
	}
	for _, tt := range tests {
		if tt.c.Name == "" {
			tt.c.Name = "Get-X"
		}
		var begun GUID
		p := open(t, tt.e)
		_, err := p.Run(t.Context(), tt.c, Handlers{Begin: func(id GUID) error { begun = id; return nil }})
		var unknown *UnknownOutcome
		if !errors.As(err, &unknown) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.want)
			continue
		}
		if unknown.Pipeline != begun || unknown.Command != "Get-X" {
			t.Errorf("%s: of %s, pipeline %s, want %s", tt.name, unknown.Command, unknown.Pipeline, begun)
		}
		if s := tt.e.steps(); strings.Contains(s, "Terminate") || strings.Contains(s, "ctrl_c") {
			t.Errorf("%s: the pipeline was killed: %s", tt.name, s)
		}
	}
}

// TestNotRun holds which errors mean that nothing was started.
func TestNotRun(t *testing.T) {
	refused := errors.New("quota")
	none := errors.New("disk full")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(none)
	tests := []struct {
		name  string
		ctx   context.Context
		c     Command
		begin func(GUID) error
		want  error
		sent  bool
	}{
		{"refused by the endpoint", t.Context(), Command{Name: "Get-X"}, nil, refused, true},
		{"not begun", t.Context(), Command{Name: "Get-X"}, func(GUID) error { return none }, none, false},
		{"cancelled before", ended, Command{Name: "Get-X"}, nil, none, false},
		{"no name", t.Context(), Command{}, nil, nil, false},
	}
	for _, tt := range tests {
		e := &endpoint{run: completes(), fail: func(op string, n int) error {
			if op == "Command" {
				return refusal{refused}
			}
			return nil
		}}
		_, err := open(t, e).Run(tt.ctx, tt.c, Handlers{Begin: tt.begin})
		var unknown *UnknownOutcome
		if err == nil || errors.As(err, &unknown) || tt.want != nil && !errors.Is(err, tt.want) && !strings.Contains(err.Error(), tt.want.Error()) {
			t.Errorf("%s: error %v", tt.name, err)
		}
		if strings.Contains(e.steps(), "Command") != tt.sent {
			t.Errorf("%s: the steps are %s", tt.name, e.steps())
		}
	}
}

// TestTerminateFails holds that a result that was seen stands.
func TestTerminateFails(t *testing.T) {
	e := &endpoint{run: completes(clixml.String("x")), fail: func(op string, n int) error {
		if op == "Terminate" {
			return errors.New("cut")
		}
		return nil
	}}
	if output, err := open(t, e).Run(t.Context(), Command{Name: "Get-X"}, Handlers{}); err != nil || len(output) != 1 {
		t.Errorf("%v, %v", output, err)
	}
}

// TestHostCalls holds that a call for an answer gets an error, one without is
// ignored, and the command goes on.
func TestHostCalls(t *testing.T) {
	e := &endpoint{run: func(pool, pipeline GUID, c Command) [][]Message {
		return [][]Message{
			{NewHostCall(pool, pipeline, HostCall{-100, 16, "WriteLine2"})},
			{NewHostCall(pool, pipeline, HostCall{3, 12, "ReadLineAsSecureString"})},
			{NewPipelineState(pool, pipeline, PipelineRunning, nil)},
			{{To: ToClient, Type: 0x00041099, Pool: pool, Pipeline: pipeline, Data: []byte("later versions")}},
			completes(clixml.String("x"))(pool, pipeline, c)[0],
		}
	}}
	output, err := open(t, e).Run(t.Context(), Command{Name: "Get-X"}, Handlers{})
	if err != nil || len(output) != 1 {
		t.Fatalf("%v, %v", output, err)
	}
	if len(e.sent) != 1 || e.sent[0].Type != PipelineHostResponse || !strings.Contains(e.steps(), "Send pr") {
		t.Fatalf("%v; %s", e.sent, e.steps())
	}
	v, err := e.sent[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	call, failure, err := ParseHostResponse(v)
	if err != nil || call.ID != 3 || call.MethodID != 12 || failure == nil {
		t.Errorf("%v, %v, %v", call, failure, err)
	}
}

// TestOtherIDs holds that an endpoint may write our ids otherwise, as some do
// that use the other byte order, as long as it stays with it.
func TestOtherIDs(t *testing.T) {
	e := &endpoint{
		opening: func(pool GUID) [][]Message {
			return [][]Message{{NewSessionCapability(ToClient, GUID{}), NewPoolState(pool.wire(), PoolOpened, nil)}}
		},
		run: func(pool, pipeline GUID, c Command) [][]Message {
			return completes(clixml.String("x"))(pool.wire(), pipeline.wire(), c)
		},
	}
	if output, err := open(t, e).Run(t.Context(), Command{Name: "Get-X"}, Handlers{}); err != nil || len(output) != 1 {
		t.Errorf("%v, %v", output, err)
	}
}

// TestStop holds the ways in which a command ends whose caller gives up.
func TestStop(t *testing.T) {
	why := errors.New("Ctrl-C")
	states := func(values []clixml.Value, s PipelineState, r *ErrorRecord) func(pool, pipeline GUID) []Message {
		return func(pool, pipeline GUID) (reply []Message) {
			for _, v := range values {
				reply = append(reply, NewOutput(pool, pipeline, v))
			}
			return append(reply, NewPipelineState(pool, pipeline, s, r))
		}
	}
	cut := func(op string) func(string, int) error {
		return func(got string, n int) error {
			if got == op {
				return errors.New("cut")
			}
			return nil
		}
	}
	x := []clixml.Value{clixml.String("x")}
	var stopped *Stopped
	var unknown *UnknownOutcome
	var remote *RemoteError
	tests := []struct {
		name   string
		onStop func(pool, pipeline GUID) []Message
		fail   func(string, int) error
		check  func(err error) bool
		values int
		steps  string
		takes  time.Duration
	}{
		{"stopped", states(x, PipelineStopped, nil), nil,
			func(err error) bool { return errors.As(err, &stopped) && errors.Is(err, why) }, 1, "ctrl_c Receive Terminate", 0},
		{"stopped with a record", states(nil, PipelineStopped, &ErrorRecord{Message: "the pipeline has been stopped"}), nil,
			func(err error) bool { return errors.As(err, &stopped) }, 0, "ctrl_c Receive Terminate", 0},
		{"completed just before", states(x, PipelineCompleted, nil), nil,
			func(err error) bool { return err == nil }, 1, "ctrl_c Receive Terminate", 0},
		{"failed just before", states(nil, PipelineFailed, &ErrorRecord{Message: "m"}), nil,
			func(err error) bool { return errors.As(err, &remote) }, 0, "ctrl_c Receive Terminate", 0},
		{"no answer", nil, nil,
			func(err error) bool { return errors.As(err, &unknown) && errors.Is(err, why) }, 0, "ctrl_c", Grace},
		{"signal lost", nil, cut("ctrl_c"),
			func(err error) bool { return errors.As(err, &unknown) && errors.Is(err, why) }, 0, "ctrl_c", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{hang: true, onStop: tt.onStop, fail: tt.fail, run: func(pool, pipeline GUID, c Command) [][]Message {
					return [][]Message{{NewProgress(pool, pipeline, Progress{Activity: "a"})}}
				}}
				p := open(t, e)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				start := time.Now()
				output, err := p.Run(ctx, Command{Name: "Get-X"}, Handlers{Progress: func(Progress) {
					time.AfterFunc(time.Minute, func() { cancel(why) })
				}})
				if !tt.check(err) || len(output) != tt.values {
					t.Errorf("%d values, error %v", len(output), err)
				}
				if took := time.Since(start) - time.Minute; took != tt.takes {
					t.Errorf("it took %v after the end of the context, want %v", took, tt.takes)
				}
				// The Receive that was told of the stop is the one that waited.
				want := strings.Replace("Create Receive Receive Command Receive Receive "+tt.steps, "ctrl_c Receive", "ctrl_c", 1)
				if got := e.steps(); got != want {
					t.Errorf("the steps are\n%s, want\n%s", got, want)
				}
				if err := p.Close(ctx); err != nil {
					t.Errorf("the pool cannot be closed after the end of the context: %v", err)
				}
				synctest.Wait()
			})
		})
	}
}

// TestFollow holds that a pipeline taken up again can fail, but not succeed.
func TestFollow(t *testing.T) {
	tests := []struct {
		name string
		run  func(pool, pipeline GUID, c Command) [][]Message
		want func(error) bool
	}{
		{"completed", completes(clixml.String("x")), func(err error) bool {
			var unknown *UnknownOutcome
			return errors.As(err, &unknown) && errors.Is(err, ErrUnseen)
		}},
		{"failed", func(pool, pipeline GUID, c Command) [][]Message {
			return [][]Message{{NewPipelineState(pool, pipeline, PipelineFailed, &ErrorRecord{Message: "m"})}}
		}, func(err error) bool {
			var remote *RemoteError
			return errors.As(err, &remote) && remote.Command == "Get-X"
		}},
	}
	for _, tt := range tests {
		var pipeline GUID
		e := &endpoint{run: tt.run, fail: func(op string, n int) error {
			if op == "Receive" && n == 3 {
				return errors.New("cut")
			}
			return nil
		}}
		first := open(t, e)
		if _, err := first.Run(t.Context(), Command{Name: "Get-X"}, Handlers{Begin: func(id GUID) error { pipeline = id; return nil }}); err == nil {
			t.Fatal("the cut was not noticed")
		}
		if _, err := Attach(e, first.ID()).Follow(t.Context(), pipeline, "Get-X", Handlers{}); !tt.want(err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s := e.steps(); !strings.HasSuffix(s, "Receive Receive Terminate") {
			t.Errorf("%s: the steps are %s", tt.name, s)
		}
	}
	p := Attach(&endpoint{}, testPool)
	f, rest, err := DecodeFragment(p.Connection())
	if err != nil || f.ObjectID < 1000 || len(rest) == 0 {
		t.Errorf("the connection starts with object %d: %v", f.ObjectID, err)
	}
}

// TestHostileMemory holds what the worst replies that are within the bounds of
// the wire cost.
func TestHostileMemory(t *testing.T) {
	object := func(data string) func(pool, pipeline GUID, c Command) [][]Message {
		return func(pool, pipeline GUID, c Command) [][]Message {
			m := NewOutput(pool, pipeline, clixml.Nil{})
			m.Data = []byte(data)
			return [][]Message{{m}}
		}
	}
	tests := map[string]func(pool, pipeline GUID, c Command) [][]Message{
		"one huge value":  object("<S>" + strings.Repeat("a", MaxObject-100) + "</S>"),
		"many objects":    object("<Obj><LST>" + strings.Repeat("<Obj/>", 60000) + "</LST></Obj>"),
		"small values":    object("<Nil/>"),
		"strings":         object("<S>" + strings.Repeat("a", 1<<20) + "</S>"),
		"escaped strings": object("<S>" + strings.Repeat("_x0041_", 1<<17) + "</S>"),
	}
	for name, run := range tests {
		t.Run(name, func(t *testing.T) {
			p := open(t, &endpoint{endless: true, run: run})
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			output, err := p.Run(t.Context(), Command{Name: "Get-X"}, Handlers{})
			if !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%v", err)
			}
			var after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&after)
			kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
			t.Logf("%d values, %d bytes kept", len(output), kept)
			if kept > 24<<20 {
				t.Errorf("%d bytes are kept", kept)
			}
			runtime.KeepAlive(output)
		})
	}
}
