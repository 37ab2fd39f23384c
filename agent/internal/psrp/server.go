package psrp

import (
	"fmt"
	"strings"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// This file has the endpoint's half: what a server reads and writes.

// PoolRequest is the content of an INIT_RUNSPACEPOOL.
type PoolRequest struct {
	MinRunspaces, MaxRunspaces int32
	HostNull                   bool // the client has no host
}

// ParseInitRunspacePool reads an INIT_RUNSPACEPOOL.
func ParseInitRunspacePool(v clixml.Value) (PoolRequest, error) {
	low, _ := get(v, "MinRunspaces")
	high, _ := get(v, "MaxRunspaces")
	n, ok1 := low.(clixml.Int32)
	x, ok2 := high.(clixml.Int32)
	if !ok1 || !ok2 || n < 1 || x < n {
		return PoolRequest{}, fmt.Errorf("INIT_RUNSPACEPOOL %w: it asks for %.20q to %.20q runspaces", ErrMalformed, clixml.Text(low), clixml.Text(high))
	}
	host, _ := get(v, "HostInfo")
	isNull, _ := get(host, "_isHostNull")
	null, _ := clixml.Truth(isNull)
	return PoolRequest{int32(n), int32(x), null}, nil
}

// ParseSessionCapability returns the protocol version that the peer names.
func ParseSessionCapability(v clixml.Value) (string, error) {
	version, _ := get(v, "protocolversion")
	s, ok := version.(clixml.Version)
	if !ok {
		return "", fmt.Errorf("SESSION_CAPABILITY %w: it has no protocol version", ErrMalformed)
	}
	return string(s), nil
}

// PipelineRequest is the content of a CREATE_PIPELINE.
type PipelineRequest struct {
	NoInput    bool
	Statements [][]Stage // usually one statement of one stage
}

// Stage is one command of a statement's pipeline, or a script.
type Stage struct {
	Command
	IsScript bool // Name is script text
}

// ParseCreatePipeline reads a CREATE_PIPELINE. Parameter names are as they were
// sent, dashes and colons included; see [Command.Bind].
func ParseCreatePipeline(v clixml.Value) (PipelineRequest, error) {
	bad := func(what string) (PipelineRequest, error) {
		return PipelineRequest{}, fmt.Errorf("CREATE_PIPELINE %w: %s", ErrMalformed, what)
	}
	noInput, _ := get(v, "NoInput")
	shell, ok := get(v, "PowerShell")
	if !ok {
		return bad("it has no PowerShell")
	}
	request := PipelineRequest{}
	request.NoInput, _ = clixml.Truth(noInput)
	statements := []clixml.Value{shell}
	if extra, _ := get(shell, "ExtraCmds"); extra != nil {
		if items, ok := clixml.Items(extra); ok && len(items) > 0 {
			statements = items // Cmds repeats the first of them
		}
	}
	for _, statement := range statements {
		commands, _ := get(statement, "Cmds")
		items, _ := clixml.Items(commands)
		if len(items) == 0 {
			return bad("a statement has no commands")
		}
		var stages []Stage
		for _, item := range items {
			stage, err := parseStage(item)
			if err != nil {
				return PipelineRequest{}, err
			}
			stages = append(stages, stage)
		}
		request.Statements = append(request.Statements, stages)
	}
	return request, nil
}

func parseStage(v clixml.Value) (Stage, error) {
	name, _ := get(v, "Cmd")
	script, _ := get(v, "IsScript")
	arguments, _ := get(v, "Args")
	isScript, ok := clixml.Truth(script)
	command, isText := name.(clixml.String)
	if !ok || !isText {
		return Stage{}, fmt.Errorf("CREATE_PIPELINE %w: a command lacks Cmd or IsScript", ErrMalformed)
	}
	stage := Stage{Command: Command{Name: string(command)}, IsScript: isScript}
	items, _ := clixml.Items(arguments)
	for _, item := range items {
		p := Parameter{Value: clixml.Nil{}}
		switch n, _ := get(item, "N"); n := n.(type) {
		case clixml.String:
			p.Name = string(n)
		case nil, clixml.Nil:
		default:
			return Stage{}, fmt.Errorf("CREATE_PIPELINE %w: the name of an argument is a %T", ErrMalformed, n)
		}
		if value, ok := get(item, "V"); ok {
			p.Value = value
		}
		stage.Parameters = append(stage.Parameters, p)
	}
	return stage, nil
}

// Bind resolves the forms in which clients write arguments, as Windows'
// parameter binder does:
//
//	N without dash, V            the name and its value; V Nil means $null
//	N "-Name", V Nil             a switch that is set, or a name whose value follows
//	N "-Name:", V                the name and its value, V Nil: the value follows
//	N Nil, V                     the value of the name before it, else positional
//
// A SwitchParameter object becomes a [clixml.Bool]. isSwitch says which
// parameters take no value. Positional arguments keep the name "". The error
// names a parameter that is given twice or lacks its value.
func (c Command) Bind(isSwitch func(name string) bool) ([]Parameter, error) {
	var bound []Parameter
	seen := map[string]bool{}
	add := func(name string, v clixml.Value) error {
		if key := strings.ToLower(name); name != "" {
			if seen[key] {
				return fmt.Errorf("parameter %q of %s is given twice", name, c.Name)
			}
			seen[key] = true
		}
		if on, ok := clixml.Truth(v); ok {
			v = clixml.Bool(on)
		}
		bound = append(bound, Parameter{name, v})
		return nil
	}
	for i := 0; i < len(c.Parameters); i++ {
		p := c.Parameters[i]
		name, dashed := strings.CutPrefix(p.Name, "-")
		name, colon := strings.CutSuffix(name, ":")
		_, null := p.Value.(clixml.Nil)
		var err error
		switch {
		case !dashed || !null:
			err = add(name, p.Value)
		case isSwitch(name) && !colon:
			err = add(name, clixml.Bool(true))
		case i+1 < len(c.Parameters) && c.Parameters[i+1].Name == "":
			i++
			err = add(name, c.Parameters[i].Value)
		default:
			err = fmt.Errorf("parameter %q of %s lacks its value", name, c.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	return bound, nil
}

// NewApplicationPrivateData returns APPLICATION_PRIVATE_DATA of a server with
// that PowerShell version, such as 5.1.17763.1.
func NewApplicationPrivateData(pool GUID, psVersion string) Message {
	version := func(s string) clixml.Value { return clixml.Version(s) }
	entry := func(key string, v clixml.Value) clixml.Entry { return clixml.Entry{Key: clixml.String(key), Value: v} }
	dictionary := func(d clixml.Dict) *clixml.Object {
		return &clixml.Object{Types: []string{typeDictionary, typeHashtable, typeObject}, Base: d}
	}
	compatible := &clixml.Object{
		Types: []string{"System.Version[]", "System.Array", typeObject},
		Base: clixml.List{Items: []clixml.Value{version("1.0"), version("2.0"), version("3.0"),
			version("4.0"), version("5.0"), version(psVersion)}},
	}
	return Message{To: ToClient, Type: ApplicationPrivateData, Pool: pool, Data: clixml.Marshal(clixml.Bag(
		clixml.M("ApplicationPrivateData", dictionary(clixml.Dict{
			entry("PSVersionTable", dictionary(clixml.Dict{
				entry("PSVersion", version(psVersion)),
				entry("PSEdition", clixml.String("Desktop")),
				entry("PSCompatibleVersions", compatible),
				entry("CLRVersion", version("4.0.30319.42000")),
				entry("BuildVersion", version("10.0."+strings.TrimPrefix(psVersion, "5.1."))),
				entry("WSManStackVersion", version("3.0")),
				entry("PSRemotingProtocolVersion", version(ProtocolVersion)),
				entry("SerializationVersion", version("1.1.0.1")),
			})),
		})),
	))}
}

// NewPoolState returns RUNSPACEPOOL_STATE; record may be nil.
func NewPoolState(pool GUID, state PoolState, record *ErrorRecord) Message {
	return Message{To: ToClient, Type: RunspacePoolState, Pool: pool, Data: newState("RunspaceState", int32(state), record)}
}

// NewPipelineState returns PIPELINE_STATE; record may be nil.
func NewPipelineState(pool, pipeline GUID, state PipelineState, record *ErrorRecord) Message {
	return toClient(PipelineStateMessage, pool, pipeline, newState("PipelineState", int32(state), record))
}

func newState(name string, state int32, record *ErrorRecord) []byte {
	members := []clixml.Member{clixml.M(name, clixml.Int32(state))}
	if record != nil {
		members = append(members, clixml.M("ExceptionAsErrorRecord", record.Value()))
	}
	return clixml.Marshal(clixml.Bag(members...))
}

// NewOutput returns PIPELINE_OUTPUT with one value.
func NewOutput(pool, pipeline GUID, v clixml.Value) Message {
	return toClient(PipelineOutput, pool, pipeline, clixml.Marshal(v))
}

// NewErrorRecord returns ERROR_RECORD.
func NewErrorRecord(pool, pipeline GUID, e ErrorRecord) Message {
	return toClient(ErrorRecordMessage, pool, pipeline, clixml.Marshal(e.Value()))
}

// NewRecord returns WARNING_RECORD, VERBOSE_RECORD, DEBUG_RECORD or
// INFORMATION_RECORD, according to r.Stream.
func NewRecord(pool, pipeline GUID, r Record) Message {
	if r.Stream == InformationRecord {
		return toClient(r.Stream, pool, pipeline, clixml.Marshal(clixml.Bag(
			clixml.M("MessageData", clixml.String(r.Text)),
			clixml.M("Source", clixml.String("Write-Information")),
		)))
	}
	kind := map[MessageType]string{WarningRecord: "Warning", VerboseRecord: "Verbose", DebugRecord: "Debug"}[r.Stream]
	return toClient(r.Stream, pool, pipeline, clixml.Marshal(&clixml.Object{
		Types: []string{"System.Management.Automation." + kind + "Record",
			"System.Management.Automation.InformationalRecord", typeObject},
		ToString: &r.Text,
		Members: []clixml.Member{
			clixml.M("InformationalRecord_Message", clixml.String(r.Text)),
			clixml.M("InformationalRecord_SerializeInvocationInfo", clixml.Bool(false)),
		},
	}))
}

// NewProgress returns PROGRESS_RECORD.
func NewProgress(pool, pipeline GUID, p Progress) Message {
	label, kind := "Processing", int32(0)
	if p.Completed {
		label, kind = "Completed", 1
	}
	var operation clixml.Value = clixml.Nil{}
	if p.CurrentOperation != "" {
		operation = clixml.String(p.CurrentOperation)
	}
	return toClient(ProgressRecord, pool, pipeline, clixml.Marshal(clixml.Bag(
		clixml.M("Activity", clixml.String(p.Activity)),
		clixml.M("ActivityId", clixml.Int32(p.ActivityID)),
		clixml.M("StatusDescription", clixml.String(p.Status)),
		clixml.M("CurrentOperation", operation),
		clixml.M("ParentActivityId", clixml.Int32(p.ParentID)),
		clixml.M("PercentComplete", clixml.Int32(p.Percent)),
		clixml.M("Type", clixml.Enum(typeProgressType, label, kind)),
		clixml.M("SecondsRemaining", clixml.Int32(p.SecondsRemaining)),
	)))
}

// NewHostCall returns a host call without arguments, of the pipeline or, where
// that is zero, of the pool.
func NewHostCall(pool, pipeline GUID, call HostCall) Message {
	kind := PipelineHostCall
	if pipeline.IsZero() {
		kind = PoolHostCall
	}
	return toClient(kind, pool, pipeline, clixml.Marshal(clixml.Bag(
		clixml.M("ci", clixml.Int64(call.ID)),
		clixml.M("mi", clixml.Enum(typeHostMethod, call.Method, call.MethodID)),
		clixml.M("mp", &clixml.Object{Types: []string{typeArrayList, typeObject}, Base: clixml.List{}}),
	)))
}

// ParseHostResponse reads the answer to a host call. The record is nil where
// the client's host returned.
func ParseHostResponse(v clixml.Value) (HostCall, *ErrorRecord, error) {
	call, err := ParseHostCall(v)
	if err != nil {
		return HostCall{}, nil, err
	}
	failure, ok := get(v, "me")
	if !ok {
		return call, nil, nil
	}
	record, err := ParseErrorRecord(failure)
	return call, &record, err
}

func toClient(kind MessageType, pool, pipeline GUID, data []byte) Message {
	return Message{To: ToClient, Type: kind, Pool: pool, Pipeline: pipeline, Data: data}
}
