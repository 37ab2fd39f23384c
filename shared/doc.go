// Package shared is the map of the packages that both programs stand on. It holds
// no code.
//
// azs-agent (module agent) runs inside, next to a disconnected Azure Stack Hub;
// azs-relay (module relay) runs on an internet host. They never import each
// other: what they have in common is here, and what crosses the gap between them
// is a bundle. The packages, from the ground up; each imports only those above
// it:
//
//	fault                  kinds of failure, which are the exit codes, and the hint to paste
//	clock                  the time of day, passed in
//	cmd/mkrelease          makes what is published of a version, for developers
//	secret                 values that print as [redacted]
//	internal/atomicfile    files that are whole or absent, whatever happens half way
//	frame/scan             QR codes in pictures, videos, folders and PDFs
//	frame/scan/camera      a simulated webcam before a screen, for tests and measurements
//	sshsig                 SSH signatures, in a narrow profile
//	sshkey                 signing keys that an ssh-agent holds
//	sshkey/agenttest       an ssh-agent with security keys in software, for tests
//	ageplugin              age plugins, named by absolute path
//	bundle                 the format that crosses the gap: Seal, Verify, Open; bytes in, bytes out
//	official               the token and key files of the official scripts, in every encoding
//	official/officialtest  tokens and keys that look like real ones, for rehearsals and tests
//	trust                  our identity, pairing cards, the twelve words, pinned peers
//	medium                 sticks and folders, as removable, full or hostile as they are
//	ledger                 what happened to every trip: a hash-chained journal and the kept bundles
//	ledger/ledgertest      the promises that every store of a ledger is held to
//	frame                  a bundle as QR texts: any K of N frames are enough
//	frame/render           frames as codes: in a terminal, as pictures, on a page, on paper
//	frame/page             the browser page that has the camera
//	console                data, talk and secrets on the terminal, kept apart
//	appkit                 the frame of both programs, and the commands that both have
//
// # How a bundle comes in
//
// Bytes from a stick go through medium, which trusts no name and no size, and
// through bundle.Split, which decrypts nothing. trust.Verify finds the pinned peer
// whose key signed the manifest and has bundle compare pair, recipient and kind.
// The ledger says whether it was seen, used or overtaken. Only then is it
// decrypted, its payload is classified by official, and its contents are compared
// with the request or the order that is known here. The way out is the same one
// backward: journaled, sealed, kept, written, read back.
//
// # Where the programs are
//
// Both have the same three storeys. Their main.go only calls internal/cli, one
// file a command: flags, questions and what is printed. internal/flow holds the
// use cases; it knows no flag and no terminal, and takes the far end as an
// interface. Beneath it is the far end itself: relay/internal/azure makes the
// Resource Manager calls, and relay/azuretest serves a simulated Azure for
// rehearsals and tests; agent/internal/pep runs the cmdlets of the privileged
// endpoint over agent/internal/psrp and agent/internal/wsman, and agent/peptest
// serves a simulated one. At either side the far end may also be a file of the
// official cmdlets.
//
// # Rules that hold in the whole tree
//
//   - bundle, sshsig, official, clock and fault open no file and no connection;
//     time and randomness are passed in to what they make, so that the vectors
//     in testdata are reproduced to the byte.
//   - Only console writes to the terminal, and only appkit turns an error into an
//     exit code.
//   - A failure that an operator can meet is a fault.Error with a kind, a sentence
//     that names both sides of a mismatch and, where there is one, the next command.
//   - No token, key or passphrase is ever a flag, a log line or part of an error.
//   - The agent links no Azure SDK; its only way to the outside is the stamp's
//     endpoint and the stick.
//
// What crosses the gap is described in docs/FORMAT.md, how a stranger checks it in
// docs/KIOSK.md, what the relay asks of Azure in docs/AZURE.md, what the agent asks of the stamp in
// docs/STAMP.md, the exit codes in docs/EXIT-CODES.md, and why things are as they are in docs/adr.
package shared
