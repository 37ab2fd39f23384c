package peptest

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// Idle times of a shell, as Windows has them.
const (
	defaultIdle = 2 * time.Hour
	minIdle     = time.Minute
)

// shell is a WSMan shell with its runspace pool. Server.mu guards it.
type shell struct {
	id, session  string
	address      int // of the connection that made it
	idle         time.Duration
	used         time.Time
	busy         int // operations under way
	disconnected bool
	envelope     int // MaxEnvelopeSize of the last request

	pool      psrp.GUID
	opened    bool
	in        psrp.Defragmenter
	out       psrp.Fragmenter
	stream    // of the pool
	commands  map[string]*command
	cmdlets   map[string]string // by command id, also of commands that are gone
	changed   chan struct{}     // closed at every change, then replaced
	runspace  chan struct{}     // holds one token: pipelines run one after another
	ctx       context.Context
	terminate context.CancelCauseFunc
}

// stream is what waits to be received, of the pool or of a pipeline.
type stream struct {
	queue []fragment
	// lastID and last are the reply that was given last, for a client that asks
	// again because it was lost.
	lastID string
	last   answer
}

type fragment struct {
	data []byte
	end  bool // the reply ends behind it, although more may wait
}

// command is a WSMan command with its pipeline.
type command struct {
	id string
	in psrp.Defragmenter
	stream
	started bool
	done    bool          // STATE is in the queue, or was received
	endless Kind          // of output: Flood, Hoard or Chatter
	hoarded psrp.Fragment // that came last of a Hoard
	hostIn  psrp.Defragmenter
	// answered is closed by the answer to the host call that is out.
	answered chan struct{}
	cancel   context.CancelCauseFunc
}

func (sh *shell) wake() {
	close(sh.changed)
	sh.changed = make(chan struct{})
}

// queueMessages puts messages into a stream, each with its next object id.
func (sh *shell) queueMessages(to *stream, end bool, messages ...psrp.Message) {
	sh.out.Size = min(psrp.MaxFragment, max(sh.envelope-envelopeOverhead, 1024)*3/4)
	for _, m := range messages {
		for _, f := range sh.out.Split(m.Encode()) {
			to.queue = append(to.queue, fragment{data: f})
		}
	}
	if n := len(to.queue); end && n > 0 {
		to.queue[n-1].end = true
	}
	sh.wake()
}

// operate does a WSMan operation.
func (s *Server) operate(ctx context.Context, conn *connection, e *envelope) answer {
	known := e.Header.Action == nsTransfer+"Create" || e.Header.Action == nsTransfer+"Delete"
	for _, op := range actions[4:] {
		known = known || op != "Delete" && e.Header.Action == nsShell+"/"+op
	}
	if !known {
		return faultAnswer(codeCannot, "The action "+e.Header.Action+" is not supported by the service. ")
	}
	if !strings.EqualFold(e.Header.ResourceURI, resource) {
		return faultAnswer(codeResource, "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropIdle()
	if e.operation() == "Create" {
		return s.create(conn, e)
	}
	sh := s.shells[e.shellID()]
	if sh == nil || sh.address != conn.address { // each address is a machine of its own
		return faultAnswer(codeSelectors, "")
	}
	sh.envelope = e.maxEnvelope()
	sh.busy++
	defer func() { sh.busy--; sh.used = s.config.now() }()

	op := e.operation()
	if sh.disconnected && op != "Reconnect" && op != "Connect" && op != "Delete" {
		return faultAnswer(codeCannot, "The shell is disconnected. ")
	}
	switch op {
	case "Receive":
		return s.receive(ctx, conn, sh, e)
	case "Command":
		return s.command(sh, e)
	case "Send":
		return s.sendInput(sh, e)
	case "Signal":
		return s.signal(sh, e)
	case "Disconnect":
		sh.disconnected = true
		sh.wake()
		return ok(nsShell+"/DisconnectResponse", `<rsp:DisconnectResponse/>`)
	case "Reconnect":
		if !strings.EqualFold(sh.session, e.Header.SessionID) {
			return faultAnswer(codeCannot, "The shell belongs to another session. ")
		}
		sh.disconnected = false
		return ok(nsShell+"/ReconnectResponse", `<rsp:ReconnectResponse/>`)
	case "Connect":
		return s.connect(sh, e)
	}
	s.end(sh)
	return ok(nsTransfer+"DeleteResponse", "")
}

func (s *Server) create(conn *connection, e *envelope) answer {
	b := e.Body.Shell
	id, err := psrp.ParseGUID(e.shellID())
	version := e.option("protocolversion")
	switch {
	case b == nil || err != nil:
		return faultAnswer(codeSchema, "")
	case !strings.HasPrefix(version.Value, "2.") || !isTrue(version.MustComply):
		return faultAnswer(codeOptions, "The option protocolversion is not 2.x with MustComply. ")
	}
	if len(s.shells) >= s.config.maxShells {
		return faultAnswer(codeMaxShells, "")
	}
	for _, sh := range s.shells {
		if sh.pool == id {
			return faultAnswer(codeCannot, "The ShellId is in use. ")
		}
	}
	creation, err := base64.StdEncoding.DecodeString(strings.TrimSpace(b.CreationXML))
	if err != nil {
		return faultAnswer(codeSchema, "")
	}
	name := id
	if s.config.ownShellIDs {
		name = newGUID()
	}
	sh := &shell{id: name.String(), address: conn.address, session: e.Header.SessionID, pool: id, used: s.config.now(), envelope: e.maxEnvelope(),
		idle: max(minIdle, parseDuration(b.IdleTimeOut, defaultIdle)), commands: map[string]*command{}, cmdlets: map[string]string{},
		changed: make(chan struct{}), runspace: make(chan struct{}, 1)}
	sh.ctx, sh.terminate = context.WithCancelCause(s.ctx)
	if err := s.poolInput(sh, creation); err != nil {
		sh.terminate(err)
		return faultAnswer(codeCannot, err.Error())
	}
	s.shells[sh.id] = sh
	return ok(nsTransfer+"CreateResponse", fmt.Sprintf(`<x:ResourceCreated><a:Address>%s</a:Address><a:ReferenceParameters>`+
		`<w:ResourceURI>%s</w:ResourceURI><w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet>`+
		`</a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>%s</rsp:ShellId><rsp:ResourceUri>%s</rsp:ResourceUri>`+
		`<rsp:Owner>%s</rsp:Owner><rsp:ClientIP>127.0.0.1</rsp:ClientIP><rsp:ProcessId>5068</rsp:ProcessId>`+
		`<rsp:IdleTimeOut>PT%.3fS</rsp:IdleTimeOut><rsp:InputStreams>stdin pr</rsp:InputStreams><rsp:OutputStreams>stdout</rsp:OutputStreams>`+
		`<rsp:MaxIdleTimeOut>PT2147483.647S</rsp:MaxIdleTimeOut><rsp:Locale>en-US</rsp:Locale><rsp:DataLocale>en-US</rsp:DataLocale>`+
		`<rsp:CompressionMode>NoCompression</rsp:CompressionMode><rsp:ProfileLoaded>Yes</rsp:ProfileLoaded><rsp:Encoding>UTF8</rsp:Encoding>`+
		`<rsp:BufferMode>Block</rsp:BufferMode><rsp:State>Connected</rsp:State></rsp:Shell>`,
		escape(e.Header.To), resource, sh.id, sh.id, resource, escape(s.User), sh.idle.Seconds()))
}

// receive waits for output. The lock is held on entry and on return.
func (s *Server) receive(ctx context.Context, conn *connection, sh *shell, e *envelope) answer {
	if e.Body.Receive == nil {
		return faultAnswer(codeSchema, "")
	}
	id := e.commandID()
	timer := time.NewTimer(parseDuration(e.Header.OperationTimeout, time.Minute))
	defer timer.Stop()
	for {
		from, c := &sh.stream, (*command)(nil)
		if id != "" {
			if c = sh.commands[id]; c == nil {
				return faultAnswer(codeSelectors, "")
			}
			from = &c.stream
		}
		switch {
		case s.shells[sh.id] != sh:
			return faultAnswer(codeSelectors, "")
		case sh.disconnected:
			return faultAnswer(codeAborted, "")
		case ctx.Err() != nil:
			return answer{}
		case from.lastID == e.Header.MessageID:
			return from.last
		case c != nil && c.endless != "":
			s.more(sh, c)
			a := s.deliver(conn, sh, from, c, e)
			from.lastID, from.last = e.Header.MessageID, a
			return a
		case len(from.queue) > 0 || c != nil && c.done:
			a := s.deliver(conn, sh, from, c, e)
			from.lastID, from.last = e.Header.MessageID, a
			return a
		}
		changed := sh.changed
		s.mu.Unlock()
		expired := false
		select {
		case <-changed:
		case <-ctx.Done():
		case <-timer.C:
			expired = true
		}
		s.mu.Lock()
		if expired {
			return faultAnswer(codeTimedOut, "")
		}
	}
}

// deliver takes from the queue what fits into a reply: one fragment a Stream.
func (s *Server) deliver(conn *connection, sh *shell, from *stream, c *command, e *envelope) answer {
	var taken [][]byte
	size := envelopeOverhead
	for len(from.queue) > 0 {
		f := from.queue[0]
		n := base64.StdEncoding.EncodedLen(len(f.data)) + 150
		if len(taken) > 0 && size+n > sh.envelope {
			break
		}
		size += n
		taken = append(taken, f.data)
		from.queue = from.queue[1:]
		if f.end {
			break
		}
	}
	if len(taken) > 0 && (c == nil || c.endless == "") {
		if f := s.strikeLocked(onStream, conn.address, "Receive", ""); f != nil {
			switch {
			case c != nil && (f.Kind == Flood || f.Kind == Hoard || f.Kind == Chatter):
				c.endless = f.Kind
				taken, from.queue = nil, nil
			case c != nil && f.Kind == NoState:
				taken, from.queue = nil, nil
				c.done = true
			default:
				taken = mangle(f.Kind, taken)
			}
		}
	}
	var b strings.Builder
	attribute := ""
	if c != nil {
		attribute = ` CommandId="` + c.id + `"`
	}
	b.WriteString("<rsp:ReceiveResponse>")
	for _, data := range s.config.streams.lay(taken) {
		fmt.Fprintf(&b, `<rsp:Stream Name="stdout"%s>%s</rsp:Stream>`, attribute, base64.StdEncoding.EncodeToString(data))
	}
	if c != nil && c.done && c.endless == "" && len(from.queue) == 0 {
		fmt.Fprintf(&b, `<rsp:CommandState%s State="%s"><rsp:ExitCode>0</rsp:ExitCode></rsp:CommandState>`, attribute, stateDone)
	}
	b.WriteString("</rsp:ReceiveResponse>")
	return ok(nsShell+"/ReceiveResponse", b.String())
}

// lay spreads fragments over Streams.
func (how Streams) lay(fragments [][]byte) (streams [][]byte) {
	for _, f := range fragments {
		switch {
		case how == AllFragments && len(streams) > 0:
			streams[0] = append(streams[0], f...)
		case how == SplitFragments:
			streams = append(streams, f[:len(f)/2], f[len(f)/2:])
		default:
			streams = append(streams, append([]byte{}, f...))
		}
	}
	return streams
}

// more adds to output that never ends.
func (s *Server) more(sh *shell, c *command) {
	id, _ := psrp.ParseGUID(c.id) // it was parsed before
	switch c.endless {
	case Hoard:
		for range 16 {
			if f := &c.hoarded; f.Blob == nil {
				sh.out.Last++
				*f = psrp.Fragment{ObjectID: sh.out.Last, Start: true, Blob: make([]byte, psrp.MaxFragment-psrp.HeaderLen)}
			} else {
				f.ID, f.Start = f.ID+1, false
			}
			c.queue = append(c.queue, fragment{data: c.hoarded.Append(nil)})
		}
		return
	case Chatter:
		sh.queueMessages(&c.stream, true, psrp.NewProgress(sh.pool, id, psrp.Progress{Activity: "Chatter", Status: "In progress", ParentID: -1, Percent: -1, SecondsRemaining: -1}))
		return
	}
	if sh.envelope < 2<<20 { // whatever the client asked for
		sh.envelope = 2 << 20
	}
	sh.queueMessages(&c.stream, true, psrp.NewOutput(sh.pool, id, clixml.String(strings.Repeat("a", 1<<20))))
}

// cmdletOf names the cmdlet of a command.
func (s *Server) cmdletOf(shell, command string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.shells[shell]; sh != nil {
		return sh.cmdlets[command]
	}
	return ""
}

func (s *Server) command(sh *shell, e *envelope) answer {
	b := e.Body.CommandLine
	if b == nil {
		return faultAnswer(codeSchema, "")
	}
	first, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.Join(b.Arguments, "")))
	id, err2 := psrp.ParseGUID(e.commandID())
	if err != nil || err2 != nil {
		return faultAnswer(codeSchema, "")
	}
	if len(sh.commands) >= s.config.maxCommands {
		return faultAnswer(codeMaxCommands, "")
	}
	if sh.commands[id.String()] != nil {
		return faultAnswer(codeCannot, "The CommandId is in use. ")
	}
	c := &command{id: id.String()}
	sh.commands[c.id] = c
	if err := s.pipelineInput(sh, c, first); err != nil {
		delete(sh.commands, c.id)
		return faultAnswer(codeCannot, err.Error())
	}
	return ok(nsShell+"/CommandResponse", fmt.Sprintf(`<rsp:CommandResponse><rsp:CommandId>%s</rsp:CommandId></rsp:CommandResponse>`, c.id))
}

func (s *Server) sendInput(sh *shell, e *envelope) answer {
	if e.Body.Send == nil {
		return faultAnswer(codeSchema, "")
	}
	for _, in := range e.Body.Send.Stream {
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(in.Data))
		switch {
		case err != nil || in.Name != "stdin" && in.Name != "pr":
			return faultAnswer(codeSchema, "")
		case in.Name == "pr":
			if c := sh.commands[strings.ToUpper(in.CommandID)]; c != nil {
				err = s.hostAnswer(sh, c, data)
			} else if in.CommandID != "" {
				return faultAnswer(codeSelectors, "")
			}
		case in.CommandID == "":
			err = s.poolInput(sh, data)
		default:
			c := sh.commands[strings.ToUpper(in.CommandID)]
			if c == nil {
				return faultAnswer(codeSelectors, "")
			}
			err = s.pipelineInput(sh, c, data)
		}
		if err != nil {
			return faultAnswer(codeCannot, err.Error())
		}
	}
	return ok(nsShell+"/SendResponse", `<rsp:SendResponse/>`)
}

func (s *Server) signal(sh *shell, e *envelope) answer {
	if e.Body.Signal == nil {
		return faultAnswer(codeSchema, "")
	}
	c := sh.commands[e.commandID()]
	if c == nil {
		return faultAnswer(codeSelectors, "")
	}
	switch code := strings.ToLower(strings.TrimSpace(e.Body.Signal.Code)); {
	case strings.HasSuffix(code, "/signal/terminate"):
		c.stop(errStopped)
		delete(sh.commands, c.id)
		sh.wake()
	case strings.HasSuffix(code, "signal/ctrl_c"):
		c.stop(errStopped)
	default:
		return faultAnswer(codeSchema, "")
	}
	return ok(nsShell+"/SignalResponse", `<rsp:SignalResponse/>`)
}

func (c *command) stop(cause error) {
	if c.cancel != nil {
		c.cancel(cause)
	}
}

// connect takes a shell, or a command of it, over for another session.
func (s *Server) connect(sh *shell, e *envelope) answer {
	if e.Body.Connect == nil {
		return faultAnswer(codeSchema, "")
	}
	if id := e.commandID(); id != "" {
		if sh.commands[id] == nil {
			return faultAnswer(codeSelectors, "")
		}
		return ok(nsShell+"/ConnectResponse", `<rsp:ConnectResponse/>`)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(e.Body.Connect.ConnectXML))
	if err != nil {
		return faultAnswer(codeSchema, "")
	}
	var opening stream
	sh.in = psrp.Defragmenter{} // the new client counts anew
	if err := s.takeOver(sh, &opening, data); err != nil {
		return faultAnswer(codeCannot, err.Error())
	}
	sh.disconnected, sh.session = false, e.Header.SessionID
	var all []byte
	for _, f := range opening.queue {
		all = append(all, f.data...)
	}
	return ok(nsShell+"/ConnectResponse", fmt.Sprintf(
		`<rsp:ConnectResponse><pwsh:connectResponseXml xmlns:pwsh="http://schemas.microsoft.com/powershell">%s</pwsh:connectResponseXml></rsp:ConnectResponse>`,
		base64.StdEncoding.EncodeToString(all)))
}

// end removes a shell and stops what runs in it.
func (s *Server) end(sh *shell) {
	delete(s.shells, sh.id)
	sh.terminate(errStopped)
	sh.wake()
}

// dropIdle ends the shells that nobody has used for their idle time.
func (s *Server) dropIdle() {
	now := s.config.now()
	for _, sh := range s.shells {
		if sh.busy == 0 && now.Sub(sh.used) > sh.idle {
			s.end(sh)
		}
	}
}

// vanish ends every shell, as when the host's WinRM service starts again.
func (s *Server) vanish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.shells {
		s.end(sh)
	}
}
