package psrp

import (
	"fmt"
	"strings"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// ProtocolVersion is the PSRP version that both ends name, that of Windows
// PowerShell 5.1.
const ProtocolVersion = "2.3"

// Command is one cmdlet with its parameters, never a script.
type Command struct {
	Name       string
	Parameters []Parameter
}

// Parameter is one argument of a [Command].
//
// A client gives Name without a dash, and as Value a [clixml.String], a
// [clixml.Int32], or a [clixml.Bool] for a switch. A server meets every form
// that clients use; see [Command.Bind].
type Parameter struct {
	Name  string // "" where the argument is positional
	Value clixml.Value
}

// Param returns a string parameter.
func Param(name, value string) Parameter { return Parameter{name, clixml.String(value)} }

// Number returns an integer parameter.
func Number(name string, value int32) Parameter { return Parameter{name, clixml.Int32(value)} }

// Switch returns a switch parameter, set or not.
func Switch(name string, on bool) Parameter { return Parameter{name, clixml.Bool(on)} }

// Check refuses a command that a client has no reason to send: an empty name,
// a positional or dashed parameter, one of another type, or one given twice.
func (c Command) Check() error {
	if c.Name == "" {
		return fmt.Errorf("a command has no name")
	}
	seen := map[string]bool{}
	for _, p := range c.Parameters {
		key := strings.ToLower(p.Name)
		switch {
		case p.Name == "" || p.Name[0] == '-':
			return fmt.Errorf("command %s has a parameter named %q", c.Name, p.Name)
		case seen[key]:
			return fmt.Errorf("command %s has the parameter %s twice", c.Name, p.Name)
		}
		seen[key] = true
		switch p.Value.(type) {
		case clixml.String, clixml.Int32, clixml.Bool:
		default:
			return fmt.Errorf("parameter %s of command %s is a %T, not a string, number or switch", p.Name, c.Name, p.Value)
		}
	}
	return nil
}

// Names of the .NET types in messages.
const (
	typeThreadOptions = "System.Management.Automation.Runspaces.PSThreadOptions"
	typeApartment     = "System.Management.Automation.Runspaces.ApartmentState"
	typeStreamOptions = "System.Management.Automation.Runspaces.RemoteStreamOptions"
	typeResultTypes   = "System.Management.Automation.Runspaces.PipelineResultTypes"
	typeErrorRecord   = "System.Management.Automation.ErrorRecord"
	typeProgressType  = "System.Management.Automation.ProgressRecordType"
	typeHostMethod    = "System.Management.Automation.Remoting.RemoteHostMethodId"
	typeObjectList    = "System.Collections.Generic.List`1[[System.Management.Automation.PSObject, System.Management.Automation, Version=1.0.0.0, Culture=neutral, PublicKeyToken=31bf3856ad364e35]]"
	typeArrayList     = "System.Collections.ArrayList"
	typeDictionary    = "System.Management.Automation.PSPrimitiveDictionary"
	typeHashtable     = "System.Collections.Hashtable"
	typeObject        = "System.Object"
)

// NewSessionCapability returns SESSION_CAPABILITY. A server's has no pool id.
func NewSessionCapability(to Destination, pool GUID) Message {
	return Message{To: to, Type: SessionCapability, Pool: pool, Data: clixml.Marshal(clixml.Bag(
		clixml.M("protocolversion", clixml.Version(ProtocolVersion)),
		clixml.M("PSVersion", clixml.Version("2.0")),
		clixml.M("SerializationVersion", clixml.Version("1.1.0.1")),
	))}
}

// NewInitRunspacePool returns INIT_RUNSPACEPOOL for one runspace without host
// and without application arguments.
func NewInitRunspacePool(pool GUID) Message {
	return Message{To: ToServer, Type: InitRunspacePool, Pool: pool, Data: clixml.Marshal(clixml.Bag(
		clixml.M("MinRunspaces", clixml.Int32(1)),
		clixml.M("MaxRunspaces", clixml.Int32(1)),
		clixml.M("PSThreadOptions", clixml.Enum(typeThreadOptions, "Default", 0)),
		clixml.M("ApartmentState", apartmentUnknown()),
		clixml.M("HostInfo", noHost()),
		clixml.M("ApplicationArguments", clixml.Nil{}),
	))}
}

// NewConnectRunspacePool returns CONNECT_RUNSPACEPOOL, which takes over the
// pool that another session has left.
func NewConnectRunspacePool(pool GUID) Message {
	return Message{To: ToServer, Type: ConnectRunspacePool, Pool: pool, Data: clixml.Marshal(clixml.Bag(
		clixml.M("MinRunspaces", clixml.Int32(1)),
		clixml.M("MaxRunspaces", clixml.Int32(1)),
	))}
}

// NewCreatePipeline returns CREATE_PIPELINE for the one command as it is given;
// call [Command.Check] for what a client may send. There is no input, no host
// and no history.
func NewCreatePipeline(pool, pipeline GUID, c Command) Message {
	arguments := clixml.List{}
	for _, p := range c.Parameters {
		var name clixml.Value = clixml.Nil{}
		if p.Name != "" {
			name = clixml.String(p.Name)
		}
		arguments.Items = append(arguments.Items, clixml.Bag(clixml.M("N", name), clixml.M("V", p.Value)))
	}
	merge := func() *clixml.Object { return clixml.Enum(typeResultTypes, "None", 0) }
	objects := func(list clixml.List) *clixml.Object {
		return &clixml.Object{Types: []string{typeObjectList, typeObject}, Base: list}
	}
	command := clixml.Bag(
		clixml.M("Cmd", clixml.String(c.Name)),
		clixml.M("IsScript", clixml.Bool(false)),
		clixml.M("UseLocalScope", clixml.Nil{}),
		clixml.M("MergeMyResult", merge()),
		clixml.M("MergeToResult", merge()),
		clixml.M("MergePreviousResults", merge()),
		clixml.M("Args", objects(arguments)),
		clixml.M("MergeError", merge()),
		clixml.M("MergeWarning", merge()),
		clixml.M("MergeVerbose", merge()),
		clixml.M("MergeDebug", merge()),
		clixml.M("MergeInformation", merge()),
	)
	return Message{To: ToServer, Type: CreatePipeline, Pool: pool, Pipeline: pipeline, Data: clixml.Marshal(clixml.Bag(
		clixml.M("NoInput", clixml.Bool(true)),
		clixml.M("ApartmentState", apartmentUnknown()),
		clixml.M("RemoteStreamOptions", clixml.Enum(typeStreamOptions, "AddInvocationInfo", 15)),
		clixml.M("AddToHistory", clixml.Bool(false)),
		clixml.M("HostInfo", noHost()),
		clixml.M("PowerShell", clixml.Bag(
			clixml.M("IsNested", clixml.Bool(false)),
			clixml.M("ExtraCmds", clixml.Nil{}),
			clixml.M("Cmds", objects(clixml.List{Items: []clixml.Value{command}})),
			clixml.M("History", clixml.Nil{}),
			clixml.M("RedirectShellErrorOutputPipe", clixml.Bool(false)),
		)),
		clixml.M("IsNested", clixml.Bool(false)),
	))}
}

// NewHostError answers the host call with an error, because there is no host.
func NewHostError(pool, pipeline GUID, call HostCall) Message {
	kind := PipelineHostResponse
	if pipeline.IsZero() {
		kind = PoolHostResponse
	}
	e := ErrorRecord{
		Message:               fmt.Sprintf("host method %s is not available to an unattended client", call.Method),
		FullyQualifiedErrorID: "HostMethodNotAvailable",
		Category:              CategoryNotImplemented,
		Exception:             "System.NotImplementedException",
	}
	return Message{To: ToServer, Type: kind, Pool: pool, Pipeline: pipeline, Data: clixml.Marshal(clixml.Bag(
		clixml.M("ci", clixml.Int64(call.ID)),
		clixml.M("mi", clixml.Enum(typeHostMethod, call.Method, call.MethodID)),
		clixml.M("me", e.Value()),
	))}
}

func apartmentUnknown() *clixml.Object { return clixml.Enum(typeApartment, "Unknown", 2) }

func noHost() *clixml.Object {
	return clixml.Bag(
		clixml.M("_isHostNull", clixml.Bool(true)),
		clixml.M("_isHostUINull", clixml.Bool(true)),
		clixml.M("_isHostRawUINull", clixml.Bool(true)),
		clixml.M("_useRunspaceHost", clixml.Bool(true)),
	)
}
