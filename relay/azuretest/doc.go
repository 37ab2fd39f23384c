// Package azuretest serves a simulated Entra and Azure Resource Manager on
// loopback TLS. It is named and used like net/http/httptest:
//
//	srv := azuretest.NewServer()
//	defer srv.Close()
//	// srv.URL, srv.Authority, srv.Tenant, srv.Subscription,
//	// srv.ClientID, srv.ClientSecret, srv.CAPEM
//
// A client needs three things to talk to it and nothing that is particular to
// a test: the authority, the Resource Manager endpoint and a trusted CA. The
// program cmd/azuretest serves the same thing for a rehearsal, and cmd's
// "azuretest ctl" drives it from a script.
//
// # What it holds to
//
// The server acts by state, never by script. A registration exists after its
// PUT and is gone after its DELETE; a lock stops what such a lock stops; the
// provider is Registered only after somebody registered it and polled; a token
// is decoded and its cloud id compared with every registration that exists;
// the bearer's signature, audience, expiry and tenant are checked; the
// api-version is checked per resource type; the caller's role must cover the
// action. Answers carry the documented statuses, codes, texts and headers.
// Paths are compared without case, as Resource Manager does.
//
// What a real cloud does only on a bad day is programmed with [Server.Fail]:
// any documented error on any call at any time, a connection dropped before or
// after the call acted, an answer that never comes; or by chance, with
// [WithTrouble]. The buckets of the throttling can run faster than the clock
// ([WithSpeed]), and the clock can be moved ([Server.Advance]).
//
// # Where it stops
//
// Nothing here was compared with live Azure. Shapes and texts come from the
// published swagger and its examples, from recorded traffic of Microsoft's own
// clients and from public issue threads. Some things are not public and are
// guesses, so a client must not lean on them: the status of the two cloud id
// errors, the code of the second one ([CodeCloudIDRegistered]), how long a
// Capacity key lives, and the codes by which a move is refused in its provider and
// a change while a move goes on. The inner layout of token versions 3.0 and later is not
// public either: by default only tokens that are base64 of a JSON object are
// accepted, see [WithOpaqueTokens].
//
// Activation keys are shaped like real ones but are signed by a key made in
// this process. No stamp accepts them.
package azuretest
