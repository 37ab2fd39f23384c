package psrp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

const (
	// MaxOutput bounds what is kept of one command's output and errors, in bytes
	// of memory, roughly. What the six cmdlets return is a few kilobytes.
	MaxOutput = 8 << 20
	// MaxErrors is the number of error records of one command that are kept.
	MaxErrors = 32
	// Grace is how long the end of a pipeline is awaited after the caller's
	// context has ended, and the time for cleaning up.
	Grace = 30 * time.Second

	maxIdle      = 1000 // replies in a row without content before it is no conversation
	maxHostCalls = 100  // answered in one pipeline
)

// RemoteError says that the endpoint ran a command, or opened the pool, and
// reported errors.
type RemoteError struct {
	Command string        // the cmdlet, or "" for the pool
	State   PipelineState // how the pipeline ended; Completed is possible
	Records []ErrorRecord // at least one; that which ended the pipeline is first
}

// Error shows the first record.
func (e *RemoteError) Error() string {
	r := e.Records[0]
	what := e.Command
	if what == "" {
		what = "the runspace pool"
	}
	s := fmt.Sprintf("%s failed on the endpoint: %s", what, strings.TrimSpace(r.Message))
	// What a script throws has its own text as its id.
	if id := strings.TrimSpace(r.FullyQualifiedErrorID); id != "" && id != strings.TrimSpace(r.Message) {
		s += fmt.Sprintf(" (%s)", r.FullyQualifiedErrorID)
	}
	if more := len(e.Records) - 1; more > 0 {
		s += fmt.Sprintf(", and %d more", more)
	}
	return s
}

// UnknownOutcome says that a command may have run, or may be running still,
// and that its end was not seen.
type UnknownOutcome struct {
	Command  string
	Pipeline GUID
	Err      error
}

// Error names the pipeline and the reason.
func (e *UnknownOutcome) Error() string {
	return fmt.Sprintf("the outcome of %s (pipeline %s) is unknown: %v", e.Command, e.Pipeline, e.Err)
}

// Unwrap returns the reason.
func (e *UnknownOutcome) Unwrap() error { return e.Err }

// Stopped says that the caller's context ended and the endpoint confirmed that
// it stopped the pipeline. What the command had begun may still go on there.
type Stopped struct {
	Command  string
	Pipeline GUID
	Err      error // why: the cause of the context's end
}

// Error names the pipeline and the reason.
func (e *Stopped) Error() string {
	return fmt.Sprintf("%s (pipeline %s) was stopped: %v", e.Command, e.Pipeline, e.Err)
}

// Unwrap returns the reason.
func (e *Stopped) Unwrap() error { return e.Err }

// Handlers are told what comes while a command runs; each may be nil. They run
// in the goroutine of [Pool.Run].
type Handlers struct {
	// Begin is called with the pipeline's id before anything is sent, so that it
	// can be stored. An error keeps the command from being sent.
	Begin    func(pipeline GUID) error
	Progress func(Progress)
	Record   func(Record) // warning, verbose, debug and information
}

// Pool is a runspace pool of one runspace on an endpoint. It is for one
// goroutine. Make it with [NewPool] and [Pool.Open], or with [Attach].
type Pool struct {
	// Grace is for the end of a pipeline and for cleaning up after the context has
	// ended; 0 is the constant [Grace].
	Grace time.Duration

	shell  Shell
	random io.Reader
	id     GUID
	remote GUID // the id that the endpoint uses for the pool, once seen
	out    Fragmenter
}

// NewPool returns a pool that is not open yet. Ids are drawn from random,
// which is [crypto/rand.Reader] outside tests.
func NewPool(shell Shell, random io.Reader) (*Pool, error) {
	id, err := NewGUID(random)
	if err != nil {
		return nil, err
	}
	return &Pool{shell: shell, random: random, id: id}, nil
}

// Attach returns a pool that was opened before, by this process or another,
// over a shell that the transport has taken up again. Its pipelines can be
// followed with [Pool.Follow]; for new commands open a new pool.
func Attach(shell Shell, id GUID) *Pool {
	// Far above what the first session can have used: two messages to open and
	// a few for each command.
	return &Pool{shell: shell, id: id, out: Fragmenter{Last: 1 << 32}}
}

// Connection returns the messages (connectXml) with which a session takes over
// the pool of another one that is disconnected.
func (p *Pool) Connection() []byte {
	return p.opening(NewConnectRunspacePool(p.id))
}

// opening returns SESSION_CAPABILITY and m as fragments.
func (p *Pool) opening(m Message) (creation []byte) {
	for _, m := range []Message{NewSessionCapability(ToServer, p.id), m} {
		creation = append(creation, bytes.Join(p.out.Split(m.Encode()), nil)...)
	}
	return creation
}

// ID returns the pool's id, which is also the shell's in Create.
func (p *Pool) ID() GUID { return p.id }

// Open creates the shell and waits until the pool is open. If it fails it
// deletes the shell that may have come to be.
func (p *Pool) Open(ctx context.Context) error {
	err := p.open(ctx)
	if err != nil {
		if closing := p.Close(ctx); closing != nil {
			err = fmt.Errorf("%w; and the shell may be left: %v", err, closing)
		}
	}
	return err
}

func (p *Pool) open(ctx context.Context) error {
	if err := p.shell.Create(ctx, p.id.String(), p.opening(NewInitRunspacePool(p.id))); err != nil {
		return err
	}
	var opened bool
	negotiated := false
	calls := 0
	_, err := p.receive(ctx, "", func(m Message) (bool, error) {
		if m.Type == PoolHostCall {
			return false, p.answer(ctx, m, GUID{}, &calls)
		}
		if m.Type != SessionCapability && m.Type != RunspacePoolState {
			return false, nil // APPLICATION_PRIVATE_DATA, RUNSPACE_AVAILABILITY and the like
		}
		v, err := m.Value()
		if err != nil {
			return false, err
		}
		if m.Type == SessionCapability {
			version, err := ParseSessionCapability(v)
			if err == nil && !strings.HasPrefix(version, "2.") {
				err = fmt.Errorf("the endpoint speaks PSRP %s, not 2.x", version)
			}
			negotiated = err == nil
			return false, err
		}
		state, record, err := ParsePoolState(v)
		switch {
		case err != nil:
			return false, err
		case state == PoolOpened && !negotiated:
			return false, fmt.Errorf("the endpoint opened the pool without a SESSION_CAPABILITY")
		case state == PoolOpened:
			opened = true
			return true, nil
		case state == PoolBroken || state == PoolClosed || state == PoolClosing:
			if record == nil {
				record = &ErrorRecord{Message: "the pool is " + state.String()}
			}
			return false, &RemoteError{State: PipelineFailed, Records: []ErrorRecord{*record}}
		}
		return false, nil
	})
	if err == nil && !opened {
		err = fmt.Errorf("the endpoint ended the shell before the pool was open")
	}
	return err
}

// Close deletes the shell, and with it whatever runs there. It works for
// [Grace] longer than ctx.
func (p *Pool) Close(ctx context.Context) error {
	ctx, cancel := p.linger(ctx)
	defer cancel()
	return p.shell.Delete(ctx)
}

// Run runs a command to its end and returns what it wrote.
//
// The error is a *[RemoteError] if the endpoint reported any error record,
// even when the command completed; the output until then is returned with it.
// It is an *[UnknownOutcome] if the command may have been started and its end
// was not seen. When ctx ends, the pipeline is stopped in order, for which
// [Grace] is left, and the error is a *[Stopped] if the endpoint confirmed;
// a command that ended just before it could be stopped is reported as it ended.
// Any other error means that nothing was run.
func (p *Pool) Run(ctx context.Context, c Command, h Handlers) ([]clixml.Value, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	id, err := NewGUID(p.random)
	if err != nil {
		return nil, err
	}
	if h.Begin != nil {
		if err := h.Begin(id); err != nil {
			return nil, err
		}
	}
	if err := p.start(ctx, id, c); err != nil {
		return nil, err
	}
	return p.follow(ctx, id, c.Name, h)
}

// start sends the CREATE_PIPELINE. The caller's cancellation does not cut a
// message in half: its fragments are sent within the grace time.
func (p *Pool) start(ctx context.Context, id GUID, c Command) error {
	ctx, cancel := p.linger(ctx)
	defer cancel()
	fragments := p.out.Split(NewCreatePipeline(p.id, id, c).Encode())
	err := p.shell.Command(ctx, id.String(), fragments[0])
	if definite(err) {
		return fmt.Errorf("%s was not started: %w", c.Name, err)
	}
	for _, f := range fragments[1:] {
		if err != nil {
			break
		}
		err = p.shell.Send(ctx, id.String(), StreamInput, f)
	}
	if err != nil {
		return &UnknownOutcome{c.Name, id, err}
	}
	return nil
}

// definite says whether the endpoint certainly did not begin an operation.
func definite(err error) bool {
	var d interface{ Definite() bool }
	return errors.As(err, &d) && d.Definite()
}

// ErrUnseen is the reason of an [UnknownOutcome] of [Pool.Follow]: the pipeline
// completed, but an earlier session may have taken error records or output.
var ErrUnseen = errors.New("it completed, but an earlier session may have received error records")

// Follow takes up a pipeline that an earlier session started and lost, and
// receives until it ends; command is for messages. The endpoint delivers
// everything once, so what the earlier session had taken is gone. Therefore
// Follow can say that the command failed, but never that it succeeded: where
// [Pool.Run] would, it returns an *[UnknownOutcome] for the reason [ErrUnseen],
// and the caller looks at what the command was to bring about.
func (p *Pool) Follow(ctx context.Context, id GUID, command string, h Handlers) ([]clixml.Value, error) {
	output, err := p.follow(ctx, id, command, h)
	if err == nil {
		err = &UnknownOutcome{command, id, ErrUnseen}
	}
	return output, err
}

func (p *Pool) follow(ctx context.Context, id GUID, name string, h Handlers) ([]clixml.Value, error) {
	f := follower{pool: p, id: id, name: name, handlers: h}
	state, err := f.run(ctx)
	if err != nil {
		return f.output, &UnknownOutcome{name, id, err}
	}
	p.terminate(ctx, id)
	switch {
	case state == PipelineStopped && ctx.Err() != nil:
		return f.output, &Stopped{name, id, context.Cause(ctx)}
	case f.final != nil:
		f.errors = append([]ErrorRecord{*f.final}, f.errors...)
	case state != PipelineCompleted && len(f.errors) == 0:
		f.errors = []ErrorRecord{{Message: "the pipeline is " + state.String()}}
	}
	if len(f.errors) > 0 {
		return f.output, &RemoteError{name, state, f.errors}
	}
	return f.output, nil
}

// terminate frees the pipeline's place on the endpoint, which counts commands
// until they are terminated. The pipeline has ended or cannot be followed any
// more, so a failure changes nothing; deleting the shell frees it as well.
func (p *Pool) terminate(ctx context.Context, id GUID) {
	ctx, cancel := p.linger(ctx)
	defer cancel()
	_ = p.shell.Signal(ctx, id.String(), SignalTerminate)
}

// follower gathers what one pipeline sends.
type follower struct {
	pool     *Pool
	id       GUID
	remote   GUID // the id that the endpoint uses for the pipeline, once seen
	name     string
	handlers Handlers

	output []clixml.Value
	size   int // of output and errors, see weight
	errors []ErrorRecord
	calls  int

	state PipelineState
	final *ErrorRecord
}

// run receives until the pipeline's final state. When ctx ends it sends ctrl_c
// beside the waiting Receive and goes on receiving for the grace time.
func (f *follower) run(ctx context.Context) (PipelineState, error) {
	life, end := f.pool.linger(ctx)
	stopping := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopping)
		if err := f.pool.shell.Signal(life, f.id.String(), SignalCtrlC); err != nil {
			end() // nothing will come of waiting
		}
	})
	ended, err := f.pool.receive(life, f.id.String(), func(m Message) (bool, error) { return f.take(life, m) })
	if err != nil {
		end() // nobody waits for the answer to ctrl_c any more
	} else {
		defer end() // the pipeline may end before ctrl_c is answered, which is awaited all the same
	}
	if !unhook() {
		<-stopping
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, fmt.Errorf("%w, and the pipeline could not be stopped in order: %w", context.Cause(ctx), err)
	case err != nil:
		return 0, err
	case !ended:
		return 0, fmt.Errorf("the endpoint reports the command as done without the pipeline's state")
	}
	return f.state, nil
}

// take handles one message and says whether it ends the pipeline.
func (f *follower) take(ctx context.Context, m Message) (bool, error) {
	if f.remote.IsZero() {
		f.remote = m.Pipeline
	}
	if m.Pipeline.IsZero() || m.Pipeline != f.remote {
		return false, fmt.Errorf("%v %w: it belongs to pipeline %s, the others to %s", m.Type, ErrMalformed, m.Pipeline, f.remote)
	}
	if m.Type == PipelineHostCall {
		return false, f.pool.answer(ctx, m, f.id, &f.calls)
	}
	switch m.Type {
	case PipelineOutput, ErrorRecordMessage, PipelineStateMessage, ProgressRecord,
		DebugRecord, VerboseRecord, WarningRecord, InformationRecord:
	default:
		return false, nil // of no concern to a command
	}
	if m.Type == PipelineOutput || m.Type == ErrorRecordMessage {
		f.size += weight(m)
	}
	if max(f.size, weight(m)) > MaxOutput {
		return false, fmt.Errorf("with this %v the output is %w of %d bytes", m.Type, ErrTooLarge, MaxOutput)
	}
	v, err := m.Value()
	if err != nil {
		return false, err
	}
	switch m.Type {
	case PipelineOutput:
		f.output = append(f.output, v)
	case ErrorRecordMessage:
		record, err := ParseErrorRecord(v)
		if err != nil {
			return false, err
		}
		if len(f.errors) < MaxErrors {
			f.errors = append(f.errors, record)
		}
	case PipelineStateMessage:
		if f.state, f.final, err = ParsePipelineState(v); err != nil {
			return false, err
		}
		if f.state == PipelineDisconnected {
			return false, fmt.Errorf("the endpoint disconnected the pipeline")
		}
		return f.state.Final(), nil
	case ProgressRecord:
		if f.handlers.Progress != nil {
			f.handlers.Progress(ParseProgress(v))
		}
	default:
		if f.handlers.Record != nil {
			f.handlers.Record(ParseRecord(m.Type, v))
		}
	}
	return false, nil
}

// weight estimates the memory that a message takes once it is parsed: its text,
// and some for each element.
func weight(m Message) int { return len(m.Data) + 64*bytes.Count(m.Data, []byte("<")) }

// answer tells the endpoint that there is no host, if it waits for an answer.
func (p *Pool) answer(ctx context.Context, m Message, pipeline GUID, calls *int) error {
	v, err := m.Value()
	if err != nil {
		return err
	}
	call, err := ParseHostCall(v)
	if err != nil || !call.WantsAnswer() {
		return err
	}
	if *calls++; *calls > maxHostCalls {
		return fmt.Errorf("the endpoint called the host over %d times", maxHostCalls)
	}
	commandID := ""
	if !pipeline.IsZero() {
		commandID = pipeline.String()
	}
	for _, f := range p.out.Split(NewHostError(p.id, pipeline, call).Encode()) {
		if err := p.shell.Send(ctx, commandID, StreamHostResponse, f); err != nil {
			return fmt.Errorf("host call %s could not be answered: %w", call.Method, err)
		}
	}
	return nil
}

// receive hands every message of a stream to take until take returns true, and
// then returns true. It returns false if the endpoint reports the end first.
func (p *Pool) receive(ctx context.Context, commandID string, take func(Message) (bool, error)) (bool, error) {
	var in Defragmenter
	for idle := 0; idle < maxIdle; idle++ {
		streams, done, err := p.shell.Receive(ctx, commandID)
		if err != nil {
			return false, err
		}
		for _, stream := range streams {
			idle = -1
			messages, err := in.Write(stream)
			if err != nil {
				return false, err
			}
			for _, data := range messages {
				m, err := DecodeMessage(data)
				if err != nil {
					return false, err
				}
				if err := p.check(m); err != nil {
					return false, err
				}
				if ended, err := take(m); ended || err != nil {
					return ended, err
				}
			}
		}
		if done {
			return false, in.Close()
		}
	}
	return false, fmt.Errorf("the endpoint sent %d replies in a row with nothing in them", maxIdle)
}

// check refuses a message that is not for this pool. The endpoint's id for the
// pool is learned from its first message and must stay: Windows repeats ours,
// some endpoints write it in the other byte order. Two types carry none.
func (p *Pool) check(m Message) error {
	if m.To != ToClient {
		return fmt.Errorf("%v %w: it is for the server", m.Type, ErrMalformed)
	}
	if m.Pool.IsZero() && (m.Type == SessionCapability || m.Type == EncryptedSessionKey) {
		return nil
	}
	if p.remote.IsZero() {
		p.remote = m.Pool
	}
	if m.Pool.IsZero() || m.Pool != p.remote {
		return fmt.Errorf("%v %w: it belongs to pool %s, the others to %s", m.Type, ErrMalformed, m.Pool, p.remote)
	}
	return nil
}

// linger returns a context that ends the grace time after ctx does. The function
// that ends it may be called from several goroutines, and more than once.
func (p *Pool) linger(ctx context.Context) (context.Context, context.CancelFunc) {
	grace := p.Grace
	if grace == 0 {
		grace = Grace
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var timer *time.Timer
	armed := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(armed)
		timer = time.AfterFunc(grace, cancel)
	})
	return life, func() {
		if !unhook() {
			<-armed
			timer.Stop()
		}
		cancel()
	}
}
