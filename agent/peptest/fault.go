package peptest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind says what a [Fault] does.
type Kind string

// The faults of a bad day and the modes of a hostile host.
const (
	// Of the connection.
	Refused   Kind = "refused"    // nothing listens on the address
	BlackHole Kind = "black-hole" // the request is never answered
	Dies      Kind = "dies"       // the address goes for good: its listener is closed and its connections are reset

	// Of an HTTP exchange.
	DropBefore   Kind = "drop-before"  // the connection is closed before the request acts
	DropAfter    Kind = "drop-after"   // the request acts, then the connection is closed
	DropIdle     Kind = "drop-idle"    // the whole reply comes, then the connection is closed as one that is idle
	Cut          Kind = "cut"          // the request acts, half of the reply comes, then the connection is closed
	Unauthorized Kind = "unauthorized" // 401 after the challenge, for every name and password
	BasicOnly    Kind = "basic-only"   // 401 that offers Basic alone
	NoSeal       Kind = "no-seal"      // the challenge lacks the SEAL bit,
	NoSign       Kind = "no-sign"      // SIGN,
	NoKeyExch    Kind = "no-key-exch"  // KEY_EXCH,
	No128        Kind = "no-128"       // 128,
	NoESS        Kind = "no-ess"       // extended session security
	HTML         Kind = "html"         // 503 with a page
	Redirect     Kind = "redirect"     // 307 to another port

	// Of a reply.
	Clear          Kind = "clear"            // the reply is not sealed
	Garbage        Kind = "garbage"          // a multipart body that is none
	BadSeal        Kind = "bad-seal"         // one bit of the sealed bytes is wrong
	HugeLength     Kind = "huge-length"      // a signature length of 4 GiB
	HugeOriginal   Kind = "huge-original"    // OriginalContent announces 4 GiB
	Endless        Kind = "endless"          // a body that never ends
	EndlessHeader  Kind = "endless-header"   // a header that never ends
	SlowHeader     Kind = "slow-header"      // a header that comes a byte at a time, and never ends
	SlowBody       Kind = "slow-body"        // a body that comes a byte at a time, and never ends
	DeepSOAP       Kind = "deep-soap"        // an envelope of 100,000 elements within each other
	WrongRelatesTo Kind = "wrong-relates-to" // the reply to another request
	WSManFault     Kind = "wsman-fault"      // a fault with Code and Text, before the request acts
	Vanish         Kind = "vanish"           // the shell is gone, with all that runs in it

	// Of a Receive that carries data.
	Truncated Kind = "truncated-fragment"
	Duplicate Kind = "duplicate-fragment"
	Reordered Kind = "reordered-fragments" // the message is cut into several pieces and the first two change places
	DeepNest  Kind = "deep-nesting"        // output of 20,000 objects within each other
	HugeFrag  Kind = "huge-fragment"       // a fragment that announces 4 GiB
	NoState   Kind = "no-state"            // the command is Done without its PIPELINE_STATE
	Flood     Kind = "flood"               // output that never ends, a message of a megabyte in every reply
	Hoard     Kind = "hoard"               // a message that never ends, its fragments in one reply after the other
	Chatter   Kind = "chatter"             // progress that never ends, a record in every reply

	// Of a cmdlet.
	ErrorRecord Kind = "error"          // ERROR_RECORD with Text, then the cmdlet does its work and completes
	ErrorAfter  Kind = "error-after"    // the cmdlet does its work, then ERROR_RECORD with Text
	HostCall    Kind = "host-call"      // the cmdlet asks the client's host for a line, and goes on once it is answered
	VoidCall    Kind = "void-host-call" // the cmdlet writes a line to the client's host, which nobody answers
	Terminating Kind = "terminating"    // the cmdlet does nothing and fails with Text
	Busy        Kind = "busy"           // another action is in progress
	Hold        Kind = "hold"           // the cmdlet waits for [Server.Release]
)

// Texts of documented errors, for Fault.Text. %s stands for what it is about.
const (
	TextHardwareInfo      = "Could not retrieve mandatory hardware info for `%s`. Check physical host and connectivity then try to re-run registration"
	TextCannotConnect     = "Cannot connect to `%s` to get hardware info. Check physical host and connectivity then try to re-run registration"
	TextAlreadyRegistered = "Cloud identifier [%s] is already registered. Reusing cloud identifiers is not allowed."
	TextBusy              = "Cannot invoke action plan because another action is in progress: %s"
)

// stage is the moment at which a kind of fault strikes.
type stage int

const (
	onListen  stage = iota
	onRequest       // Action is known, nothing has happened
	onReply         // there is an answer, which the fault spoils
	onStream        // there are fragments to send
	onCmdlet        // a cmdlet is about to run
)

var stages = map[Kind]stage{
	Refused:   onListen,
	BlackHole: onRequest, DropBefore: onRequest, Unauthorized: onRequest, BasicOnly: onRequest, NoSeal: onRequest,
	NoSign: onRequest, NoKeyExch: onRequest, No128: onRequest, NoESS: onRequest,
	HTML: onRequest, Redirect: onRequest, WSManFault: onRequest, Vanish: onRequest, Dies: onRequest,
	DropAfter: onReply, DropIdle: onReply, Cut: onReply, Clear: onReply, Garbage: onReply, BadSeal: onReply, HugeLength: onReply,
	HugeOriginal: onReply, Endless: onReply, EndlessHeader: onReply, SlowHeader: onReply, SlowBody: onReply, DeepSOAP: onReply,
	WrongRelatesTo: onReply,
	Truncated:      onStream, Duplicate: onStream, Reordered: onStream, DeepNest: onStream,
	HugeFrag: onStream, NoState: onStream, Flood: onStream, Hoard: onStream, Chatter: onStream,
	ErrorRecord: onCmdlet, ErrorAfter: onCmdlet, HostCall: onCmdlet, VoidCall: onCmdlet, Terminating: onCmdlet, Busy: onCmdlet, Hold: onCmdlet,
}

// lacks are the bits that a challenge is made to lack.
var lacks = map[Kind]uint32{NoSeal: flagSeal, NoSign: flagSign, NoKeyExch: flagKeyExchange, No128: flag128, NoESS: flagESS}

// Kinds returns all kinds, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(stages)) }

// actions that a Fault can name: the two halves of the login, an unauthenticated
// request, and the WSMan operations.
var actions = []string{"Probe", "Negotiate", "Authenticate", "Create", "Receive", "Command", "Send", "Signal",
	"Delete", "Disconnect", "Reconnect", "Connect"}

// kindActions are the actions that a kind can strike; a kind that is not listed
// can strike every one.
var kindActions = map[Kind][]string{
	NoSeal:         {"Negotiate"},
	NoSign:         {"Negotiate"},
	NoKeyExch:      {"Negotiate"},
	No128:          {"Negotiate"},
	NoESS:          {"Negotiate"},
	HugeOriginal:   actions[3:],
	DeepSOAP:       actions[3:],
	BasicOnly:      {"Probe", "Negotiate", "Authenticate"},
	Unauthorized:   actions[2:], // a host challenges whoever asks
	Clear:          actions[3:],
	BadSeal:        actions[3:],
	HugeLength:     actions[3:],
	WrongRelatesTo: actions[3:],
	WSManFault:     actions[3:],
	Garbage:        actions[3:],
	Vanish:         actions[4:], // not Create
}

// Fault is a failure to come. It strikes what matches Address, Action and
// Cmdlet, after letting After of them pass, Times times. Of several that match,
// the one added first strikes.
type Fault struct {
	Kind Kind `json:"kind"`
	// Address is the number of the address, from 1; 0 is every one.
	Address int `json:"address,omitempty"`
	// Action is Probe (a request without login), Negotiate or Authenticate (the
	// two requests of the login), or a WSMan operation: Create, Receive, Command,
	// Send, Signal, Delete, Disconnect, Reconnect, Connect; "" is any.
	Action string `json:"action,omitempty"`
	// Cmdlet limits the faults of cmdlets to one; letters match without case, ""
	// is any.
	Cmdlet string `json:"cmdlet,omitempty"`
	After  int    `json:"skip,omitempty"`
	Times  int    `json:"times,omitempty"` // 0 is every one until [Server.ClearFaults]

	// Code and Text are those of the error. A WSManFault without a text gets the
	// one that Windows has for the code.
	Code uint32 `json:"code,omitempty"`
	Text string `json:"text,omitempty"`

	number, seen, struck int
}

// Valid says what is wrong with the fault.
func (f Fault) Valid() error {
	at, ok := stages[f.Kind]
	switch {
	case !ok:
		return fmt.Errorf("kind %q is none of %v", f.Kind, Kinds())
	case f.Action != "" && !slices.Contains(actions, f.Action):
		return fmt.Errorf("action %q is none of %v", f.Action, actions)
	case f.Action != "" && !strikes(f.Kind, f.Action):
		return fmt.Errorf("a fault %s cannot strike %s", f.Kind, f.Action)
	case at == onCmdlet && f.Action != "", at == onListen && f.Action != "":
		return fmt.Errorf("a fault %s has no action", f.Kind)
	case at != onCmdlet && f.Cmdlet != "":
		return fmt.Errorf("a fault %s has no cmdlet", f.Kind)
	case at == onStream && f.Action != "" && f.Action != "Receive":
		return fmt.Errorf("a fault %s strikes Receive alone, not %s", f.Kind, f.Action)
	case (f.Kind == ErrorRecord || f.Kind == ErrorAfter || f.Kind == Terminating) && f.Text == "":
		return fmt.Errorf("a fault %s needs a text", f.Kind)
	case f.Kind == WSManFault && f.Code == 0:
		return fmt.Errorf("a fault %s needs a code", f.Kind)
	case f.Address < 0 || f.After < 0 || f.Times < 0:
		return fmt.Errorf("address, skip and times are not below 0")
	case at == onListen && (f.After > 0 || f.Times > 0):
		return fmt.Errorf("a fault %s lasts until faults are cleared, it has no skip and no times", f.Kind)
	}
	return nil
}

func strikes(k Kind, action string) bool {
	list, ok := kindActions[k]
	return !ok || slices.Contains(list, action)
}

// Fail adds a fault and returns its number. It panics on one that is not valid.
func (s *Server) Fail(f Fault) int {
	if err := f.Valid(); err != nil {
		panic("peptest: " + err.Error())
	}
	s.mu.Lock()
	s.numbered++
	f.number = s.numbered
	s.faults = append(s.faults, &f)
	s.mu.Unlock()
	if f.Kind == Refused {
		s.refuse(f.Address)
	}
	return f.number
}

// ClearFaults removes every fault and lets held cmdlets go on; refused addresses
// are listened on again.
func (s *Server) ClearFaults() error {
	s.mu.Lock()
	s.faults = nil
	s.mu.Unlock()
	s.Release()
	return s.listenAgain()
}

// strike returns the fault that strikes now, or nil.
func (s *Server) strike(at stage, address int, action, cmdlet string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strikeLocked(at, address, action, cmdlet)
}

func (s *Server) strikeLocked(at stage, address int, action, cmdlet string) *Fault {
	var hit *Fault
	for _, f := range s.faults {
		if stages[f.Kind] != at || f.Address != 0 && f.Address != address ||
			f.Action != "" && f.Action != action || at != onCmdlet && !strikes(f.Kind, action) ||
			f.Cmdlet != "" && !strings.EqualFold(f.Cmdlet, cmdlet) {
			continue
		}
		f.seen++
		if hit == nil && f.seen > f.After && (f.Times == 0 || f.struck < f.Times) {
			f.struck++
			hit = f
		}
	}
	if hit == nil {
		return nil
	}
	copied := *hit
	return &copied
}
