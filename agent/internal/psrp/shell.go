package psrp

import "context"

// Signal codes of [Shell.Signal].
const (
	SignalTerminate = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/signal/Terminate"
	SignalCtrlC     = "powershell/signal/ctrl_c"
)

// Streams of [Shell.Send].
const (
	StreamInput        = "stdin" // the rest of a CREATE_PIPELINE, keys, pipeline input
	StreamHostResponse = "pr"    // answers to host calls
)

// Shell is one WSMan shell: the operations of [MS-WSMV] that carry PSRP. All
// ids are GUIDs in upper case; all bytes are PSRP fragments before base64.
//
// Signal may be called while a Receive of the same shell is waiting, also from
// another goroutine; there are no other overlaps. An error may have a method
// Definite() bool that returns true if the endpoint answered that it refuses
// the operation, so that it certainly was not begun: a fault, or a failed
// login. Every other error leaves it open.
type Shell interface {
	// Create makes the shell and hands over the opening messages (creationXml).
	Create(ctx context.Context, shellID string, creation []byte) error
	// Command starts a command with the first fragment of its CREATE_PIPELINE.
	Command(ctx context.Context, commandID string, first []byte) error
	// Send delivers one fragment; commandID is "" for the shell itself.
	Send(ctx context.Context, commandID, stream string, fragment []byte) error
	// Receive waits for output of a command, or of the shell where commandID is
	// "". An operation timeout of the endpoint is no error: Receive polls again,
	// within ctx. done says that the endpoint reports the command as done.
	Receive(ctx context.Context, commandID string) (streams [][]byte, done bool, err error)
	// Signal sends a code to a command.
	Signal(ctx context.Context, commandID, code string) error
	// Delete ends the shell. Without a shell it does nothing.
	Delete(ctx context.Context) error
}
