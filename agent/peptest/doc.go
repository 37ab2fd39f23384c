// Package peptest serves a simulated privileged endpoint of an Azure Stack Hub
// stamp: a PowerShell remoting endpoint in NoLanguage mode with the six cmdlets
// of a disconnected registration. It is named and used like net/http/httptest:
//
//	srv := peptest.NewServer()
//	defer srv.Close()
//	// srv.Addresses, srv.User, srv.Password, srv.CloudID, srv.CAPEM
//
// A client needs an address, an account and, over TLS, a trusted CA, and nothing
// that is particular to a test. The program cmd/peptest serves the same thing
// for a rehearsal, and "peptest ctl" drives it from a script.
//
// # What it holds to
//
// It speaks what a Windows host speaks, over real TCP: NTLMv2 with extended
// session security, whose proof, target info, time and MIC are verified; bodies
// sealed both ways, one context for each connection; WSMan shells with their
// selectors, timeouts, quotas and sizes; PSRP in fragments of 32 KiB, one a
// Stream. A body in clear is answered with 401.
//
// It acts by state, never by script. A stamp is activated after an activation
// key of its own cloud id was taken and the action has run its time, whether or
// not anybody still listens; while it runs every other action is refused, also
// in other sessions. A cmdlet or parameter is known from the version on that the
// registration scripts name. Scripts are refused as NoLanguage refuses them.
//
// Each address is a machine of its own: a session of one is not known on another.
// The headers of an envelope are checked as WS-Management wants them, and a request
// that lacks one is answered with the fault for that.
//
// What a real host does on a bad day, and what only a hostile one does, is
// switched on with [Server.Fail]; [Kinds] lists it. What hosts do differently and
// are allowed to are options, such as [WithStreams] and [WithTimedOut200]. A test
// need not wait for an activation: [Server.Finish] ends its time, and a [Hold] keeps
// it from ending.
//
// The code shares with this project's client the grammar of PSRP messages and
// nothing of NTLM, HTTP and WSMan, so that it is a second opinion on these.
//
// # Where it stops
//
// Nothing here was compared with a live stamp. The exchanges follow recordings
// of Windows hosts and Microsoft's open specifications, the cmdlets the source
// of the registration scripts and the documentation. Not public, and therefore
// guesses: the exact object of Get-AzureStackStampInformation, the words in which
// a stamp refuses a key of another stamp, the text of progress records, and how
// long an action takes. Signatures of activation keys are not checked, because
// the key that checks them is not public. Kerberos and CredSSP are not spoken; of
// SPNEGO only NTLM that is offered first. The numbers of the faults about options and
// about headers that must be understood are guesses, their subcodes are not. It
// listens on loopback only.
package peptest
