// Package fault gives every failure that an operator can meet a kind, an exit
// code and the next command to paste.
//
// An error is made where the failure is understood, with the names of the
// things that differ:
//
//	fault.New(fault.Replay, "answer %s was already used on %s", id, when).Hint("azs-agent token …")
//
// and travels up unchanged or wrapped with %w. Only the command line maps the
// kind to the process's exit code, in one place. The codes are a contract:
// they are only ever added to.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure it is. Its number is the exit code.
type Kind int

// The kinds, numbered by their exit codes (docs/EXIT-CODES.md).
const (
	Unexpected  Kind = 1   // a failure that nobody foresaw
	Usage       Kind = 2   // the command line, or two values on it, contradict each other
	Refused     Kind = 3   // signature, format or digest is wrong
	NotForUs    Kind = 4   // meant for somebody else, or not what was expected
	Replay      Kind = 5   // used before, or out of order
	Expired     Kind = 6   // expired by its writer's clock, or the clock went back
	Medium      Kind = 7   // a stick, a folder or a file could not be read or written
	Locked      Kind = 8   // key locked, missing, or wrong passphrase
	Permanent   Kind = 9   // the remote said no, and will say so again
	Unreachable Kind = 10  // the remote cannot be reached now; try again
	Approval    Kind = 11  // an approval is missing
	NothingYet  Kind = 12  // there is nothing to do yet
	Partial     Kind = 13  // done in part
	Cancelled   Kind = 130 // the operator stopped it
)

var names = map[Kind]string{
	Unexpected: "unexpected", Usage: "usage", Refused: "refused", NotForUs: "not-for-us",
	Replay: "replay", Expired: "expired", Medium: "medium", Locked: "locked",
	Permanent: "permanent", Unreachable: "unreachable", Approval: "approval",
	NothingYet: "nothing-yet", Partial: "partial", Cancelled: "cancelled",
}

// String returns the kind's name as it stands in JSON output.
func (k Kind) String() string {
	if s, ok := names[k]; ok {
		return s
	}
	return fmt.Sprintf("kind-%d", int(k))
}

// Kinds returns every kind in the order of the exit codes.
func Kinds() []Kind {
	return []Kind{Unexpected, Usage, Refused, NotForUs, Replay, Expired, Medium, Locked,
		Permanent, Unreachable, Approval, NothingYet, Partial, Cancelled}
}

// Error is a failure with its kind and the command that helps.
type Error struct {
	kind Kind
	err  error
	hint string
}

// New makes an error of a kind; the format takes %w as fmt.Errorf does. The
// text is lower case without a full stop and names the thing that failed.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{kind: kind, err: fmt.Errorf(format, args...)}
}

// Hint sets the next command to paste and returns the error itself.
func (e *Error) Hint(format string, args ...any) *Error {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// Error returns the sentence without the hint.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns what the error was made from.
func (e *Error) Unwrap() error { return e.err }

// Kind returns the error's kind.
func (e *Error) Kind() Kind { return e.kind }

// KindOf returns the kind of the outermost [Error] in err's chain. A cancelled
// context is [Cancelled], a context past its deadline is [Unreachable], and
// everything else is [Unexpected]. It returns 0 for nil.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.kind
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return Unreachable
	}
	return Unexpected
}

// ExitCode returns the exit code for err: 0 for nil, else the kind's number.
func ExitCode(err error) int { return int(KindOf(err)) }

// HintOf returns the hint of the outermost [Error] in err's chain that has one,
// or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.hint != "" {
			return e.hint
		}
		err = e.err
	}
	return ""
}
