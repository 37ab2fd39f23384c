// Package azure makes the Resource Manager calls of azs-relay: which cloud,
// with whose credential, and the few requests that the registration of an Azure
// Stack Hub stamp, its renewal, move and removal need.
//
// Property: what is printed is what is sent. A call is first a value, a
// [Request] made by [Requests]; [Client] sends that value and --dry-run prints
// it, so that the two cannot differ but for the registration token, which is
// printed as its length and digest. No token, activation key, client secret or
// bearer is in any error, log event or printed request of this package: Azure's
// own messages are searched for the token before they are shown.
//
// Property: a call has one of three ends. It succeeded; or Azure said no, which
// is permanent and is never tried again; or nobody knows, and then the same
// request is sent again, because every request here is safe to repeat
// (PUT, DELETE, and two POSTs that only read or register). An answer that is
// lost after Azure acted therefore ends in the same single registration. Which
// answer belongs to which end is one table, in refusal.go.
//
// Property: a client keeps to the rates that Resource Manager documents instead
// of finding them by refusals ([Limits]), and a run over many stamps asks once
// what is the same for all of them ([Client.Shared]).
//
// Property: what a verb may do in Azure is one table, in rights.go. The role that
// is printed, the check before the first change and the hint of a 403 are made
// from it.
//
// Limits: the identity that [Client.WhoAmI] shows is read from the access token
// and not verified, as only Azure can do that. Nothing here has met the real
// Azure Stack resource provider; where the design infers its behaviour, the
// comment at the place says so.
//
// One pipeline of azcore/arm serves all calls. The generated packages
// (armresources, armsubscriptions, armlocks, armazurestack) are not used: the
// calls are few, the generated registration client sends no api-version with
// one of its calls, and their requests cannot be printed before they are sent.
// azcore's own provider registration is switched off, since it registers a
// provider unasked and polls for up to five minutes without a word; its own
// retries are switched off too, since they cannot be told to wait on another
// clock (see retry.go).
package azure
