package psrp

import (
	"fmt"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// PoolState is a runspace pool's state ([MS-PSRP] 2.2.3.4).
type PoolState int32

// The pool states.
const (
	PoolBeforeOpen  PoolState = 0
	PoolOpening     PoolState = 1
	PoolOpened      PoolState = 2
	PoolClosed      PoolState = 3
	PoolClosing     PoolState = 4
	PoolBroken      PoolState = 5
	PoolNegotiating PoolState = 6
	PoolNegotiated  PoolState = 7
)

// String returns the state's name.
func (s PoolState) String() string {
	names := []string{"before open", "opening", "opened", "closed", "closing", "broken", "negotiation sent", "negotiation succeeded"}
	if s >= 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("pool state %d", int32(s))
}

// PipelineState is a pipeline's state ([MS-PSRP] 2.2.3.5).
type PipelineState int32

// The pipeline states.
const (
	PipelineNotStarted   PipelineState = 0
	PipelineRunning      PipelineState = 1
	PipelineStopping     PipelineState = 2
	PipelineStopped      PipelineState = 3
	PipelineCompleted    PipelineState = 4
	PipelineFailed       PipelineState = 5
	PipelineDisconnected PipelineState = 6
)

// String returns the state's name.
func (s PipelineState) String() string {
	names := []string{"not started", "running", "stopping", "stopped", "completed", "failed", "disconnected"}
	if s >= 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("pipeline state %d", int32(s))
}

// Final says whether a pipeline in this state has ended.
func (s PipelineState) Final() bool {
	return s == PipelineStopped || s == PipelineCompleted || s == PipelineFailed
}

// ErrorCategory is .NET's System.Management.Automation.ErrorCategory.
type ErrorCategory int32

// The categories that this package and its tests write.
const (
	CategoryNotSpecified     ErrorCategory = 0
	CategoryInvalidArgument  ErrorCategory = 5
	CategoryInvalidOperation ErrorCategory = 7
	CategoryNotImplemented   ErrorCategory = 11
	CategoryObjectNotFound   ErrorCategory = 13
	CategoryOperationStopped ErrorCategory = 14
	CategoryParserError      ErrorCategory = 17
	CategoryResourceBusy     ErrorCategory = 19
)

var categoryNames = []string{"NotSpecified", "OpenError", "CloseError", "DeviceError", "DeadlockDetected",
	"InvalidArgument", "InvalidData", "InvalidOperation", "InvalidResult", "InvalidType", "MetadataError",
	"NotImplemented", "NotInstalled", "ObjectNotFound", "OperationStopped", "OperationTimeout", "SyntaxError",
	"ParserError", "PermissionDenied", "ResourceBusy", "ResourceExists", "ResourceUnavailable", "ReadError",
	"WriteError", "FromStdErr", "SecurityError", "ProtocolError", "ConnectionError", "AuthenticationError",
	"LimitsExceeded", "QuotaExceeded", "NotEnabled"}

// String returns the category's .NET name.
func (c ErrorCategory) String() string {
	if c >= 0 && int(c) < len(categoryNames) {
		return categoryNames[c]
	}
	return fmt.Sprintf("category %d", int32(c))
}

// ErrorRecord is what PowerShell says about one error ([MS-PSRP] 2.2.3.15).
// All text comes from the endpoint.
type ErrorRecord struct {
	Message               string // what the exception said
	FullyQualifiedErrorID string // such as ScriptsNotAllowed
	Category              ErrorCategory
	CategoryMessage       string // such as "ObjectNotFound: (FileSystem:String) [Get-Item], ProviderNotFoundException"
	Activity              string // the cmdlet
	Reason                string // the exception's short name
	TargetName            string
	TargetType            string
	Exception             string // the exception's full type name
}

// ParseErrorRecord reads the value of an ERROR_RECORD, or that within a state.
func ParseErrorRecord(v clixml.Value) (ErrorRecord, error) {
	if _, ok := v.(*clixml.Object); !ok {
		return ErrorRecord{}, fmt.Errorf("error record %w: it is no object", ErrMalformed)
	}
	category, _ := get(v, "ErrorCategory_Category")
	n, _ := clixml.Int(category)
	e := ErrorRecord{
		FullyQualifiedErrorID: text(v, "FullyQualifiedErrorId"),
		Category:              ErrorCategory(n),
		CategoryMessage:       text(v, "ErrorCategory_Message"),
		Activity:              text(v, "ErrorCategory_Activity"),
		Reason:                text(v, "ErrorCategory_Reason"),
		TargetName:            text(v, "ErrorCategory_TargetName"),
		TargetType:            text(v, "ErrorCategory_TargetType"),
	}
	exception, _ := get(v, "Exception")
	if o, ok := exception.(*clixml.Object); ok && o != nil && len(o.Types) > 0 {
		e.Exception = o.Types[0]
	}
	// The first that says something: the details of the record, its text, the exception's message.
	for _, s := range []string{text(v, "ErrorDetails_Message"), clixml.Text(v), text(exception, "Message"), clixml.Text(exception)} {
		if e.Message = s; s != "" {
			break
		}
	}
	return e, nil
}

// Value writes the record as Windows does.
func (e ErrorRecord) Value() *clixml.Object {
	exception := e.Exception
	if exception == "" {
		exception = "System.Management.Automation.RuntimeException"
	}
	message := e.Message
	full := exception + ": " + message
	return &clixml.Object{
		Types:    []string{typeErrorRecord, typeObject},
		ToString: &message,
		Members: []clixml.Member{
			clixml.M("writeErrorStream", clixml.Bool(true)),
			clixml.M("Exception", &clixml.Object{
				Types:    []string{exception, "System.Exception", typeObject},
				ToString: &full,
				Props: []clixml.Member{
					clixml.M("Message", clixml.String(message)),
					clixml.M("InnerException", clixml.Nil{}),
					clixml.M("StackTrace", clixml.Nil{}),
					clixml.M("HResult", clixml.Int32(-2146233087)),
				},
			}),
			clixml.M("TargetObject", clixml.Nil{}),
			clixml.M("FullyQualifiedErrorId", clixml.String(e.FullyQualifiedErrorID)),
			clixml.M("InvocationInfo", clixml.Nil{}),
			clixml.M("ErrorCategory_Category", clixml.Int32(e.Category)),
			clixml.M("ErrorCategory_Activity", clixml.String(e.Activity)),
			clixml.M("ErrorCategory_Reason", clixml.String(e.Reason)),
			clixml.M("ErrorCategory_TargetName", clixml.String(e.TargetName)),
			clixml.M("ErrorCategory_TargetType", clixml.String(e.TargetType)),
			clixml.M("ErrorCategory_Message", clixml.String(e.CategoryMessage)),
			clixml.M("SerializeExtendedInfo", clixml.Bool(false)),
		},
	}
}

// ParsePoolState reads a RUNSPACEPOOL_STATE. The record is nil where the state
// carries none.
func ParsePoolState(v clixml.Value) (PoolState, *ErrorRecord, error) {
	n, record, err := parseState(v, "RunspaceState")
	return PoolState(n), record, err
}

// ParsePipelineState reads a PIPELINE_STATE. The record is nil where the state
// carries none.
func ParsePipelineState(v clixml.Value) (PipelineState, *ErrorRecord, error) {
	n, record, err := parseState(v, "PipelineState")
	return PipelineState(n), record, err
}

func parseState(v clixml.Value, name string) (int32, *ErrorRecord, error) {
	state, _ := get(v, name)
	n, ok := state.(clixml.Int32)
	if !ok {
		return 0, nil, fmt.Errorf("state message %w: it has no number %s", ErrMalformed, name)
	}
	carried, ok := get(v, "ExceptionAsErrorRecord")
	if _, none := carried.(clixml.Nil); !ok || none {
		return int32(n), nil, nil
	}
	record, err := ParseErrorRecord(carried)
	if err != nil {
		return 0, nil, err
	}
	return int32(n), &record, nil
}

// Record is a line of the warning, verbose, debug or information stream.
type Record struct {
	Stream MessageType // WarningRecord, VerboseRecord, DebugRecord or InformationRecord
	Text   string
}

// ParseRecord reads the value of a message of that type.
func ParseRecord(stream MessageType, v clixml.Value) Record {
	name := "InformationalRecord_Message"
	if stream == InformationRecord {
		name = "MessageData"
	}
	s := text(v, name)
	if s == "" {
		s = clixml.Text(v)
	}
	return Record{stream, s}
}

// Progress is a progress record ([MS-PSRP] 2.2.5.1.25).
type Progress struct {
	Activity         string
	Status           string
	CurrentOperation string
	ActivityID       int32
	ParentID         int32 // -1 if there is none
	Percent          int32 // 0 to 100, or -1 if not known
	SecondsRemaining int32 // -1 if not known
	Completed        bool  // the activity has ended
}

// ParseProgress reads the value of a PROGRESS_RECORD; what is missing in it is
// not known.
func ParseProgress(v clixml.Value) Progress {
	number := func(name string, missing int32) int32 {
		field, _ := get(v, name)
		n, ok := clixml.Int(field)
		if !ok || n != int64(int32(n)) {
			return missing
		}
		return int32(n)
	}
	return Progress{
		Activity:         text(v, "Activity"),
		Status:           text(v, "StatusDescription"),
		CurrentOperation: text(v, "CurrentOperation"),
		ActivityID:       number("ActivityId", 0),
		ParentID:         number("ParentActivityId", -1),
		Percent:          number("PercentComplete", -1),
		SecondsRemaining: number("SecondsRemaining", -1),
		Completed:        number("Type", 0) == 1,
	}
}

// HostCall is a call of the endpoint to the client's host ([MS-PSRP] 2.2.2.27).
type HostCall struct {
	ID       int64  // to be repeated in the answer
	MethodID int32  // such as 11, ReadLine
	Method   string // its name
}

// voidCall is the id of calls that want no answer.
const voidCall = -100

// WantsAnswer says whether the endpoint waits for a response.
func (c HostCall) WantsAnswer() bool { return c.ID != voidCall }

// ParseHostCall reads the value of a host call.
func ParseHostCall(v clixml.Value) (HostCall, error) {
	id, _ := get(v, "ci")
	method, _ := get(v, "mi")
	ci, ok1 := clixml.Int(id)
	mi, ok2 := clixml.Int(method)
	if !ok1 || !ok2 || mi != int64(int32(mi)) {
		return HostCall{}, fmt.Errorf("host call %w: it has no call or method number", ErrMalformed)
	}
	name := ""
	if o, ok := method.(*clixml.Object); ok && o.ToString != nil {
		name = *o.ToString
	}
	return HostCall{ID: ci, MethodID: int32(mi), Method: name}, nil
}

func get(v clixml.Value, name string) (clixml.Value, bool) { return clixml.Get(v, name) }

// text returns a property's text, or "".
func text(v clixml.Value, name string) string {
	field, _ := clixml.Get(v, name)
	return clixml.Text(field)
}
