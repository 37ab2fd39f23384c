package ledger

import "slices"

// Role is the side whose trips a ledger keeps.
type Role string

// The two sides.
const (
	Agent Role = "agent" // inside the disconnected site
	Relay Role = "relay" // on the internet
)

// Program returns the name of the side's program, for hints.
func (r Role) Program() string { return "azs-" + string(r) }

func (r Role) known() bool { return r == Agent || r == Relay }

// The states of a trip, and the event by which it enters them.
const (
	Requested  = "requested"
	Exported   = "exported"
	Admitted   = "admitted"
	Opened     = "opened"
	Applied    = "applied"
	Confirmed  = "confirmed"
	Cancelled  = "cancelled"
	Superseded = "superseded"

	Seen       = "seen"
	Removed    = "removed"
	Registered = "registered"
	Answered   = "answered"
	Moving     = "moving"
	Closed     = "closed"
)

// fresh stands in a table for the trip that is not there yet.
const fresh = ""

// state is a row of the table of transitions: a trip may become name when its
// state is one of from. A state that lists itself may be entered again.
type state struct {
	name string
	from []string
}

// states is the table of transitions. There is no way back, and no row leads
// out of confirmed, cancelled, superseded and closed.
var states = map[Role][]state{
	Agent: {
		// 1. A request was sealed; from here on its answer is awaited.
		{Requested, []string{fresh}},
		// 2. The request was written to a medium, and to another one. A bundle
		// that goes to stdout skips this.
		{Exported, []string{Requested, Exported}},
		// 3. An answer came whose signature, digest, addressee and request are right.
		{Admitted, []string{Requested, Exported}},
		// 4. The answer was decrypted and holds what was expected. It is used now.
		{Opened, []string{Admitted}},
		// 5. The activation key went to the stamp, or to a file.
		{Applied, []string{Opened}},
		// 6. The stamp says that it is registered.
		{Confirmed, []string{Applied}},
		// 7. The operator gave the request up.
		{Cancelled, []string{Requested, Exported, Admitted}},
		// 8. A later request took its place.
		{Superseded, []string{Requested, Exported, Admitted}},
	},
	Relay: {
		// 1. A request was read from a medium.
		{Seen, []string{fresh}},
		// 2. Its signature, digest, addressee, sequence and policy are right.
		{Admitted, []string{Seen}},
		// 3. Azure has the old registration of the stamp no more: a removal is done
		// but for its answer, a renewal goes on.
		{Removed, []string{Admitted}},
		// 4. Azure has the registration. A renewal in place skips 3.
		{Registered, []string{Admitted, Removed}},
		// 5. The answer was sealed and kept; the same answer may go out again.
		{Answered, []string{Registered, Removed, Answered}},
		// 6. The operator began to move a registration, which may be without its
		// lock from here on.
		{Moving, []string{fresh}},
		// 7. A receipt came, or the operator closed the trip. A removal that no
		// request asked for has no answer, and a move has none either.
		{Closed, []string{Answered, Removed, Moving}},
	},
}

// Notes that the ledger writes or reads itself.
const (
	eventInit     = "init"
	eventRepaired = "repaired"

	// ClockAccepted is the note by which an operator settles that the clock
	// went back, see [Ledger.ClockWentBack].
	ClockAccepted = "clock-accepted"
)

// notes is the table of events that change no state. A note may name a trip,
// which must be there, or none.
var notes = []struct{ name, meaning string }{
	{eventInit, "the state folder was made: the first line and no other; data role"},                 // 1
	{eventRepaired, "a half-written last line was moved to journal.torn"},                            // 2
	{ClockAccepted, "the operator accepts that the clock went back"},                                 // 3
	{"keys", "the side's own keys were made; data holds fingerprints"},                               // 4
	{"card", "a pairing card was written"},                                                           // 5
	{"paired", "a peer was pinned"},                                                                  // 6
	{"rekeyed", "a peer's keys were changed by a bundle that its old key signed"},                    // 7
	{"revoked", "a pinned peer was removed"},                                                         // 8
	{"put", "a bundle was written to a medium and read back"},                                        // 9
	{"took", "a bundle was read from a medium"},                                                      // 10
	{"shown", "a bundle was shown or printed as QR"},                                                 // 11
	{"scanned", "a bundle was read from QR"},                                                         // 12
	{"approved", "a further signature was put under a bundle"},                                       // 13
	{"plain-out", "a token or key left as a plain file for the official scripts; data: digest only"}, // 14
	{"repeated", "a request came again and got the answer that it had got"},                          // 15
	{"refused", "a bundle was refused; data holds the sentence"},                                     // 16
	{"failed", "an act failed; the trip stays in its state; data holds the sentence"},                // 17
	{"locked", "the registration got its CanNotDelete lock"},                                         // 18
	{"unlocked", "the lock of the registration was removed"},                                         // 19
	{"moved", "the registration moved to another group or subscription"},                             // 20
	{"unregistered", "the registration was deleted"},                                                 // 21
	{"deactivated", "the stamp removed its activation"},                                              // 22
	{"key-fetched", "the activation key was fetched from Azure; data: its digest and expiry"},        // 23
	{"receipt", "a receipt was made or came in"},                                                     // 24
	{"activating", "an activation begins on the stamp, or failed; data names its session"},           // 25
	{"stamp-info", "the stamp told its version and its nodes"},                                       // 26
	{"evidence", "an evidence page was printed"},                                                     // 27
	{"sealing", "an answer took its number; data: seq-out"},                                          // 28
	{"rekeying", "the side's own keys are changed: the bundle for a peer took its number"},           // 29
	{"keys-forgotten", "the side's own keys before a change were removed"},                           // 30
	{"approvers", "the rule of approvals was changed; data: how many, whose keys"},                   // 31
}

func findState(role Role, event string) (state, bool) {
	i := slices.IndexFunc(states[role], func(s state) bool { return s.name == event })
	if i < 0 {
		return state{}, false
	}
	return states[role][i], true
}

func isNote(event string) bool {
	return slices.ContainsFunc(notes, func(n struct{ name, meaning string }) bool { return n.name == event })
}
