package psrp

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// Destination says which side a message is for.
type Destination uint32

// The two destinations.
const (
	ToClient Destination = 1
	ToServer Destination = 2
)

// MessageType says what a message is ([MS-PSRP] 2.2.1).
type MessageType uint32

// The message types, with their names in MS-PSRP.
const (
	SessionCapability      MessageType = 0x00010002 // SESSION_CAPABILITY
	InitRunspacePool       MessageType = 0x00010004 // INIT_RUNSPACEPOOL
	PublicKey              MessageType = 0x00010005 // PUBLIC_KEY
	EncryptedSessionKey    MessageType = 0x00010006 // ENCRYPTED_SESSION_KEY
	PublicKeyRequest       MessageType = 0x00010007 // PUBLIC_KEY_REQUEST
	ConnectRunspacePool    MessageType = 0x00010008 // CONNECT_RUNSPACEPOOL
	RunspacePoolInitData   MessageType = 0x0002100B // RUNSPACEPOOL_INIT_DATA
	ResetRunspaceState     MessageType = 0x0002100C // RESET_RUNSPACE_STATE
	SetMaxRunspaces        MessageType = 0x00021002 // SET_MAX_RUNSPACES
	SetMinRunspaces        MessageType = 0x00021003 // SET_MIN_RUNSPACES
	RunspaceAvailability   MessageType = 0x00021004 // RUNSPACE_AVAILABILITY
	RunspacePoolState      MessageType = 0x00021005 // RUNSPACEPOOL_STATE
	CreatePipeline         MessageType = 0x00021006 // CREATE_PIPELINE
	GetAvailableRunspaces  MessageType = 0x00021007 // GET_AVAILABLE_RUNSPACES
	UserEvent              MessageType = 0x00021008 // USER_EVENT
	ApplicationPrivateData MessageType = 0x00021009 // APPLICATION_PRIVATE_DATA
	GetCommandMetadata     MessageType = 0x0002100A // GET_COMMAND_METADATA
	PoolHostCall           MessageType = 0x00021100 // RUNSPACEPOOL_HOST_CALL
	PoolHostResponse       MessageType = 0x00021101 // RUNSPACEPOOL_HOST_RESPONSE
	PipelineInput          MessageType = 0x00041002 // PIPELINE_INPUT
	EndOfPipelineInput     MessageType = 0x00041003 // END_OF_PIPELINE_INPUT
	PipelineOutput         MessageType = 0x00041004 // PIPELINE_OUTPUT
	ErrorRecordMessage     MessageType = 0x00041005 // ERROR_RECORD
	PipelineStateMessage   MessageType = 0x00041006 // PIPELINE_STATE
	DebugRecord            MessageType = 0x00041007 // DEBUG_RECORD
	VerboseRecord          MessageType = 0x00041008 // VERBOSE_RECORD
	WarningRecord          MessageType = 0x00041009 // WARNING_RECORD
	ProgressRecord         MessageType = 0x00041010 // PROGRESS_RECORD
	InformationRecord      MessageType = 0x00041011 // INFORMATION_RECORD
	PipelineHostCall       MessageType = 0x00041100 // PIPELINE_HOST_CALL
	PipelineHostResponse   MessageType = 0x00041101 // PIPELINE_HOST_RESPONSE
)

var typeNames = map[MessageType]string{
	SessionCapability: "SESSION_CAPABILITY", InitRunspacePool: "INIT_RUNSPACEPOOL",
	PublicKey: "PUBLIC_KEY", EncryptedSessionKey: "ENCRYPTED_SESSION_KEY",
	PublicKeyRequest: "PUBLIC_KEY_REQUEST", ConnectRunspacePool: "CONNECT_RUNSPACEPOOL",
	RunspacePoolInitData: "RUNSPACEPOOL_INIT_DATA", ResetRunspaceState: "RESET_RUNSPACE_STATE",
	SetMaxRunspaces: "SET_MAX_RUNSPACES", SetMinRunspaces: "SET_MIN_RUNSPACES",
	RunspaceAvailability: "RUNSPACE_AVAILABILITY", RunspacePoolState: "RUNSPACEPOOL_STATE",
	CreatePipeline: "CREATE_PIPELINE", GetAvailableRunspaces: "GET_AVAILABLE_RUNSPACES",
	UserEvent: "USER_EVENT", ApplicationPrivateData: "APPLICATION_PRIVATE_DATA",
	GetCommandMetadata: "GET_COMMAND_METADATA", PoolHostCall: "RUNSPACEPOOL_HOST_CALL",
	PoolHostResponse: "RUNSPACEPOOL_HOST_RESPONSE", PipelineInput: "PIPELINE_INPUT",
	EndOfPipelineInput: "END_OF_PIPELINE_INPUT", PipelineOutput: "PIPELINE_OUTPUT",
	ErrorRecordMessage: "ERROR_RECORD", PipelineStateMessage: "PIPELINE_STATE",
	DebugRecord: "DEBUG_RECORD", VerboseRecord: "VERBOSE_RECORD", WarningRecord: "WARNING_RECORD",
	ProgressRecord: "PROGRESS_RECORD", InformationRecord: "INFORMATION_RECORD",
	PipelineHostCall: "PIPELINE_HOST_CALL", PipelineHostResponse: "PIPELINE_HOST_RESPONSE",
}

// String returns the type's name in MS-PSRP, or its number.
func (t MessageType) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("message type %#08x", uint32(t))
}

// MessageHeaderLen is the number of bytes before a message's data.
const MessageHeaderLen = 40

// Message is one PSRP message ([MS-PSRP] 2.2.1): 4 bytes destination and
// 4 bytes type, little-endian, 16 bytes each of the pool's and the pipeline's
// id in .NET's order, and CLIXML.
type Message struct {
	To       Destination
	Type     MessageType
	Pool     GUID   // RPID; zero in a server's SESSION_CAPABILITY and ENCRYPTED_SESSION_KEY
	Pipeline GUID   // PID; zero in messages of the pool
	Data     []byte // CLIXML without byte order mark; may be empty
}

var byteOrderMark = []byte("\uFEFF")

// Encode returns the message's bytes. A message to the client has a byte order
// mark before its data, as Windows writes it.
func (m Message) Encode() []byte {
	out := make([]byte, 0, MessageHeaderLen+len(byteOrderMark)+len(m.Data))
	out = binary.LittleEndian.AppendUint32(out, uint32(m.To))
	out = binary.LittleEndian.AppendUint32(out, uint32(m.Type))
	pool, pipeline := m.Pool.wire(), m.Pipeline.wire()
	out = append(append(out, pool[:]...), pipeline[:]...)
	if m.To == ToClient {
		out = append(out, byteOrderMark...)
	}
	return append(out, m.Data...)
}

// DecodeMessage reads a whole message. Data is a part of data. A type that is
// not known is no error, because later versions may have more.
func DecodeMessage(data []byte) (Message, error) {
	if len(data) < MessageHeaderLen {
		return Message{}, fmt.Errorf("message %w: %d bytes of the %d of its header", ErrMalformed, len(data), MessageHeaderLen)
	}
	m := Message{
		To:       Destination(binary.LittleEndian.Uint32(data)),
		Type:     MessageType(binary.LittleEndian.Uint32(data[4:])),
		Pool:     GUID(data[8:24]).wire(),
		Pipeline: GUID(data[24:40]).wire(),
		Data:     bytes.TrimPrefix(data[MessageHeaderLen:], byteOrderMark),
	}
	if m.To != ToClient && m.To != ToServer {
		return Message{}, fmt.Errorf("%v %w: its destination is %d", m.Type, ErrMalformed, m.To)
	}
	return m, nil
}

// Value parses the message's data.
func (m Message) Value() (clixml.Value, error) {
	v, err := clixml.Parse(m.Data)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", m.Type, err)
	}
	return v, nil
}
