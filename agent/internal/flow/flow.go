// Package flow holds the use cases of azs-agent: make a request out of a
// registration token, and use the answer once.
//
// A use case knows no flag and no terminal. It takes the state folder's parts and
// whatever stands on the far side as an interface: a [Source] gives the
// registration token, a [Sink] takes the activation key. The order is always the
// same: check everything, write the journal, then act; and what acted before a
// crash is finished by running the same command again.
package flow

import (
	"context"
	"io"
	"strconv"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// Agent is one side of the gap at work: its state folder, unlocked.
type Agent struct {
	Ledger   *ledger.Ledger
	Identity *trust.Identity
	Peers    []trust.Peer    // the pinned relays
	Policy   trust.Approvers // who must have approved an answer
	Clock    clock.Clock
	Rand     io.Reader
}

// Stamp is what is known of the stamp beside its token. Empty means unknown.
type Stamp struct {
	CloudID      string
	Version      string
	Nodes        int
	TokenVersion string // that the token was asked for with
}

// Source gives a registration token: a file of the official cmdlet, or the
// privileged endpoint.
type Source interface {
	Token(ctx context.Context) (*official.Token, Stamp, error)
}

// Sink takes the activation key: a file for the official cmdlet, or the
// privileged endpoint.
type Sink interface {
	// Check says whether the key of this stamp could be taken, before the answer
	// is used up.
	Check(ctx context.Context, cloudID string, key secret.Text) error
	// Apply takes the key and returns what happened to it. It may be called again
	// with the same key after a crash, and is told what is known of earlier runs.
	Apply(ctx context.Context, key secret.Text, past Past) (outcome string, err error)
}

// Past is what the journal knows of earlier runs with the same answer.
type Past struct {
	Outcome string            // of an earlier run that saw its end, or ""
	Attempt map[string]string // what an earlier run noted and whose end nobody saw, or nil
	// Note journals an attempt before it is made, and, with nil, that its end was
	// seen and was a failure.
	Note func(attempt map[string]string) error
}

// The names under which a request's facts stand in the journal.
const (
	dataDigest       = "digest" // of the request's manifest, hex
	dataPair         = "pair"
	dataApproved     = "approved-by" // labels of approvers, with blanks between them
	dataSeqOut       = "seq-out"
	dataSeqIn        = "seq-in"
	dataRelay        = "relay"
	dataFile         = "file"
	dataCreated      = "created"
	dataExpires      = "expires"
	dataOperation    = "operation"
	dataCloudID      = "cloud-id"
	dataBilling      = "billing-model"
	dataToken        = "token-sha256"
	dataSubscription = "expect-subscription"
	dataGroup        = "expect-resource-group"
	dataRegistration = "expect-registration"
	dataUsage        = "usage-reporting"
	dataSyndication  = "marketplace-syndication"
	dataAnswer       = "answer" // bundle id of the answer that used the request up
	dataAnswerDigest = "answer-digest"
	dataKey          = "key-sha256"
	dataKeyExpires   = "key-expires"
	dataOutcome      = "outcome"
	dataReceipt      = "receipt"
	dataRefused      = "refused-answer" // bundle id of an answer that did not fit
	dataReason       = "reason"
	dataVersion      = "stamp-version"
	dataNodes        = "nodes"
	dataAgreement    = "agreement-number"
	dataAssetTag     = "ms-asset-tag"
	dataAttempt      = "attempt" // prefix of what a sink notes; "attempt" itself is open or ended
)

// relay picks the peer that a request is for.
func (a *Agent) relay(label string) (trust.Peer, error) {
	switch {
	case len(a.Peers) == 0:
		return trust.Peer{}, fault.New(fault.NothingYet, "no relay is paired yet").Hint("azs-agent pair RELAY-CARD.azc")
	case label == "" && len(a.Peers) == 1:
		return a.Peers[0], nil
	}
	var labels []string
	for _, p := range a.Peers {
		if p.Label() == label {
			return p, nil
		}
		labels = append(labels, p.Label())
	}
	return trust.Peer{}, fault.New(fault.Usage, "the request is for one of the paired relays %q: which one?", labels).Hint("azs-agent token --relay %s …", labels[0])
}

func boolText(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}

func parseBool(s string) *bool {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return nil
	}
	return &b
}
