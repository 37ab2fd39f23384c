package peptest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// psVersion is that of Windows Server 2019, on which stamps of this age run.
const psVersion = "5.1.17763.1"

// errStopped ends a pipeline whose client, or whose shell, stops it.
var errStopped = errors.New("the pipeline has been stopped")

func newGUID() psrp.GUID {
	id, err := psrp.NewGUID(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return id
}

// poolInput takes fragments for the pool. The lock is held.
func (s *Server) poolInput(sh *shell, data []byte) error {
	return s.input(sh, &sh.in, data, func(m psrp.Message, v clixml.Value) error {
		switch m.Type {
		case psrp.SessionCapability:
			_, err := psrp.ParseSessionCapability(v)
			return err
		case psrp.InitRunspacePool:
			if _, err := psrp.ParseInitRunspacePool(v); err != nil {
				return err
			}
			if sh.opened {
				return errors.New("INIT_RUNSPACEPOOL of a pool that is open")
			}
			sh.opened = true
			sh.queueMessages(&sh.stream, true, psrp.NewSessionCapability(psrp.ToClient, sh.pool))
			sh.queueMessages(&sh.stream, s.config.opening == 3, psrp.NewApplicationPrivateData(sh.pool, psVersion))
			sh.queueMessages(&sh.stream, true, psrp.NewPoolState(sh.pool, psrp.PoolOpened, nil))
		}
		return nil // keys, and numbers of runspaces, need no answer here
	})
}

// pipelineInput takes fragments for a pipeline. The lock is held.
func (s *Server) pipelineInput(sh *shell, c *command, data []byte) error {
	return s.input(sh, &c.in, data, func(m psrp.Message, v clixml.Value) error {
		if m.Pipeline.String() != c.id {
			return fmt.Errorf("message %s is for pipeline %s in the stream of %s", m.Type, m.Pipeline, c.id)
		}
		if m.Type != psrp.CreatePipeline {
			return nil // the six cmdlets read no input
		}
		request, err := psrp.ParseCreatePipeline(v)
		if err != nil {
			return err
		}
		if c.started || !sh.opened {
			return fmt.Errorf("CREATE_PIPELINE of a pipeline that was started: %t, in an open pool: %t", c.started, sh.opened)
		}
		c.started = true
		if len(request.Statements) > 0 && len(request.Statements[0]) > 0 {
			sh.cmdlets[c.id] = request.Statements[0][0].Name
		}
		p := &pipeline{s: s, sh: sh, c: c, id: m.Pipeline}
		p.ctx, c.cancel = context.WithCancelCause(sh.ctx)
		s.serving.Go(func() { p.run(request) })
		return nil
	})
}

// hostAnswer takes the answer to a host call. The lock is held.
func (s *Server) hostAnswer(sh *shell, c *command, data []byte) error {
	return s.input(sh, &c.hostIn, data, func(m psrp.Message, v clixml.Value) error {
		call, _, err := psrp.ParseHostResponse(v)
		switch {
		case err != nil:
			return err
		case m.Type != psrp.PipelineHostResponse || call.ID != hostCallID || c.answered == nil:
			return fmt.Errorf("%s for call %d, which nobody made", m.Type, call.ID)
		}
		close(c.answered)
		c.answered = nil
		return nil
	})
}

// hostCallID is that of the one host call of a pipeline.
const hostCallID = 1

// callHost calls the client's host and waits for its answer, if there is to be one.
func (p *pipeline) callHost(wants bool) {
	if !wants {
		p.write(psrp.NewHostCall(p.sh.pool, p.id, psrp.HostCall{ID: -100, MethodID: 16, Method: "WriteLine2"}))
		return
	}
	answered := make(chan struct{})
	p.s.mu.Lock()
	p.c.answered = answered
	p.s.mu.Unlock()
	p.write(psrp.NewHostCall(p.sh.pool, p.id, psrp.HostCall{ID: hostCallID, MethodID: 11, Method: "ReadLine"}))
	p.wait(answered)
}

func (s *Server) input(sh *shell, in *psrp.Defragmenter, data []byte, take func(psrp.Message, clixml.Value) error) error {
	messages, err := in.Write(data)
	if err != nil {
		return err
	}
	for _, raw := range messages {
		m, err := psrp.DecodeMessage(raw)
		if err != nil {
			return err
		}
		if m.To != psrp.ToServer || m.Pool != sh.pool {
			return fmt.Errorf("message %s is for pool %s, this is %s", m.Type, m.Pool, sh.pool)
		}
		var v clixml.Value = clixml.Nil{}
		if len(m.Data) > 0 {
			if v, err = m.Value(); err != nil {
				return err
			}
		}
		if err := take(m, v); err != nil {
			return err
		}
	}
	return nil
}

// takeOver reads the messages of a Connect and puts the answer into opening.
func (s *Server) takeOver(sh *shell, opening *stream, data []byte) error {
	asked := false
	err := s.input(sh, &sh.in, data, func(m psrp.Message, v clixml.Value) error {
		asked = asked || m.Type == psrp.ConnectRunspacePool
		return nil
	})
	if err != nil {
		return err
	}
	if !asked {
		return errors.New("connectXml has no CONNECT_RUNSPACEPOOL")
	}
	sh.queueMessages(opening, false, psrp.NewSessionCapability(psrp.ToClient, sh.pool),
		psrp.Message{To: psrp.ToClient, Type: psrp.RunspacePoolInitData, Pool: sh.pool, Data: clixml.Marshal(clixml.Bag(
			clixml.M("MinRunspaces", clixml.Int32(1)), clixml.M("MaxRunspaces", clixml.Int32(1))))})
	sh.queueMessages(&sh.stream, true, psrp.NewApplicationPrivateData(sh.pool, psVersion),
		psrp.NewPoolState(sh.pool, psrp.PoolOpened, nil))
	return nil
}

// pipeline is a running pipeline.
type pipeline struct {
	s       *Server
	sh      *shell
	c       *command
	id      psrp.GUID
	ctx     context.Context
	pending []psrp.Message  // not visible yet
	hold    <-chan struct{} // nil unless a fault holds the cmdlet's action
}

// write puts a message out; the client sees it at the next flush.
func (p *pipeline) write(m psrp.Message) { p.pending = append(p.pending, m) }

func (p *pipeline) flush() {
	if len(p.pending) == 0 {
		return
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.sh.queueMessages(&p.c.stream, false, p.pending...)
	p.pending = nil
}

// run runs the statements and ends with the pipeline's state, which is visible
// together with what was written last.
func (p *pipeline) run(request psrp.PipelineRequest) {
	state, record := psrp.PipelineCompleted, (*psrp.ErrorRecord)(nil)
	select {
	case p.sh.runspace <- struct{}{}:
		record = p.statements(request)
		<-p.sh.runspace
	case <-p.ctx.Done():
		record = stopped()
	}
	switch {
	case record != nil && record.FullyQualifiedErrorID == stoppedID:
		state = psrp.PipelineStopped
	case record != nil:
		state = psrp.PipelineFailed
	}
	p.write(psrp.NewPipelineState(p.sh.pool, p.id, state, record))
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.sh.queueMessages(&p.c.stream, true, p.pending...)
	p.c.done = true
	p.c.cancel(nil)
}

// statements runs until the first terminating error, which it returns.
func (p *pipeline) statements(request psrp.PipelineRequest) *psrp.ErrorRecord {
	for _, statement := range request.Statements {
		for _, stage := range statement {
			if stage.IsScript {
				return &psrp.ErrorRecord{Message: "The syntax is not supported by this runspace. This can occur if the runspace is in no-language mode.",
					FullyQualifiedErrorID: "ScriptsNotAllowed", Category: psrp.CategoryParserError,
					CategoryMessage: "ParserError: (:) [], ParseException", Reason: "ParseException",
					Exception: "System.Management.Automation.ParseException"}
			}
		}
		for i, stage := range statement {
			if i > 0 && strings.EqualFold(stage.Name, "Out-Default") {
				continue
			}
			if i > 0 {
				return notFound(stage.Name)
			}
			if record := p.cmdlet(stage.Command); record != nil {
				return record
			}
			if p.ctx.Err() != nil {
				return stopped()
			}
		}
	}
	return nil
}

const stoppedID = "PipelineStopped"

func stopped() *psrp.ErrorRecord {
	return &psrp.ErrorRecord{Message: "The pipeline has been stopped.", FullyQualifiedErrorID: stoppedID,
		Category: psrp.CategoryOperationStopped, CategoryMessage: "OperationStopped: (:) [], PipelineStoppedException",
		Reason: "PipelineStoppedException", Exception: "System.Management.Automation.PipelineStoppedException"}
}

func notFound(name string) *psrp.ErrorRecord {
	return &psrp.ErrorRecord{Message: "The term '" + name + "' is not recognized as the name of a cmdlet, function, script file, or operable program. " +
		"Check the spelling of the name, or if a path was included, verify that the path is correct and try again.",
		FullyQualifiedErrorID: "CommandNotFoundException", Category: psrp.CategoryObjectNotFound,
		CategoryMessage: "ObjectNotFound: (" + name + ":String) [], CommandNotFoundException", Reason: "CommandNotFoundException",
		TargetName: name, TargetType: "String", Exception: "System.Management.Automation.CommandNotFoundException"}
}

// bindingError is an error of PowerShell's parameter binder.
func bindingError(cmdlet, parameter, id, text string) *psrp.ErrorRecord {
	return &psrp.ErrorRecord{Message: text, FullyQualifiedErrorID: id + "," + cmdlet, Category: psrp.CategoryInvalidArgument,
		CategoryMessage: "InvalidArgument: (:) [" + cmdlet + "], ParameterBindingException", Activity: cmdlet,
		Reason: "ParameterBindingException", TargetName: parameter, Exception: "System.Management.Automation.ParameterBindingException"}
}

// thrown is what a cmdlet throws.
func thrown(cmdlet, text string) *psrp.ErrorRecord {
	return &psrp.ErrorRecord{Message: text, FullyQualifiedErrorID: text, Category: psrp.CategoryOperationStopped,
		CategoryMessage: "OperationStopped: (:) [" + cmdlet + "], RuntimeException", Activity: cmdlet,
		Reason: "RuntimeException", Exception: "System.Management.Automation.RuntimeException"}
}

// mangle spoils the fragments of a reply.
func mangle(k Kind, fragments [][]byte) [][]byte {
	last := fragments[len(fragments)-1]
	switch k {
	case Truncated:
		return append(fragments[:len(fragments)-1:len(fragments)-1], last[:len(last)/2])
	case Duplicate:
		return slices.Concat(fragments[:1], fragments)
	case HugeFrag:
		f, _, err := psrp.DecodeFragment(fragments[0])
		if err != nil {
			return fragments
		}
		huge := f.Append(nil)
		copy(huge[17:], []byte{0xff, 0xff, 0xff, 0xff}) // its length
		return [][]byte{huge}
	case Reordered:
		f, _, err := psrp.DecodeFragment(fragments[0])
		if err != nil {
			return fragments
		}
		a, b := f, f
		a.Blob, a.End = f.Blob[:len(f.Blob)/2], false
		b.Blob, b.Start, b.ID = f.Blob[len(f.Blob)/2:], false, f.ID+1
		return append([][]byte{b.Append(nil), a.Append(nil)}, fragments[1:]...)
	case DeepNest:
		f, _, err := psrp.DecodeFragment(fragments[0])
		if err != nil {
			return fragments
		}
		m, err := psrp.DecodeMessage(f.Blob)
		if err != nil {
			return fragments
		}
		const deep = 20_000 // which fits into an envelope
		m.Data = []byte(strings.Repeat("<Obj><MS>", deep) + strings.Repeat("</MS></Obj>", deep))
		splitter := psrp.Fragmenter{Last: f.ObjectID - 1}
		return slices.Concat(splitter.Split(m.Encode()), fragments[1:])
	}
	return fragments
}
