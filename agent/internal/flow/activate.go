package flow

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// Activation is a used answer.
type Activation struct {
	Trip    string
	Answer  *bundle.Answer
	Key     *official.Key // nil for the answer to a removal, which has none
	Outcome string        // bundle.OutcomeWritten or bundle.OutcomeApplied
	Again   bool          // an interrupted run was finished

	// The relay's clock is ahead of ours by something between these two, as far as
	// the crossing can tell.
	SkewFrom, SkewTo time.Duration

	Receipt     *bundle.Bundle
	ReceiptID   bundle.ID
	ReceiptFile string
	Warnings    []string
}

// Activate opens an answer, checks it against the request that it answers,
// uses it up, hands the activation key to the sink and makes a receipt. A refused
// answer leaves its request pending; a used one is refused ever after.
func (a *Agent) Activate(ctx context.Context, raw []byte, to Sink) (*Activation, error) {
	sealed, err := bundle.Split(raw)
	if err != nil {
		return nil, err
	}
	peer, v, err := trust.Verify(a.Identity.Card, a.Peers, sealed, bundle.KindAnswer)
	if err != nil {
		return nil, err
	}
	trip, err := a.admit(v, sealed.Digest())
	if err != nil {
		return nil, err
	}
	if err := a.Policy.Check(v); err != nil {
		return nil, err
	}
	if trip.State == ledger.Requested || trip.State == ledger.Exported {
		if _, err := a.Ledger.Append(ledger.Admitted, trip.ID, a.approvedBy(v)); err != nil {
			return nil, err
		}
	}
	act, key, err := a.open(v, trip)
	if err != nil {
		if fault.KindOf(err) == fault.NotForUs {
			// The request stays open: the right answer may still come.
			if _, jerr := a.Ledger.Append("refused", trip.ID, map[string]string{dataRefused: v.Manifest.Bundle.String(), dataReason: ledger.Clean(err.Error())}); jerr != nil {
				return nil, jerr
			}
		}
		return nil, err
	}
	if act.Key == nil {
		to = nothing{}
	} else if to == nil {
		return nil, fault.New(fault.Usage, "answer %s holds an activation key, which has to go to the stamp or to a file", v.Manifest.Bundle).
			Hint("azs-agent activate ANSWER --key-out activation-key.txt")
	}
	if err := to.Check(ctx, act.Answer.CloudID, key); err != nil {
		return nil, err
	}
	act.Again = trip.Data[dataAnswerDigest] != ""
	if !act.Again {
		data := map[string]string{
			dataAnswer: v.Manifest.Bundle.String(), dataAnswerDigest: sealed.Digest().String(),
			dataPair: v.Manifest.Pair.String(), dataSeqIn: strconv.FormatUint(v.Manifest.Seq, 10),
		}
		if act.Key != nil {
			data[dataKey], data[dataKeyExpires] = act.Answer.KeySHA256.String(), act.Answer.KeyExpires
			data[dataRegistration] = act.Answer.Registration // of a renewal perhaps a new one, for the next
		}
		if _, err := a.Ledger.Append(ledger.Opened, trip.ID, data); err != nil {
			return nil, err
		}
	}
	// Also after a crash behind the line below: what this returns is true of this sink.
	if act.Outcome, err = to.Apply(ctx, key, a.past(trip)); err != nil {
		return nil, err
	}
	applied := appliedAt(trip)
	if applied.IsZero() {
		e, err := a.Ledger.Append(ledger.Applied, trip.ID, map[string]string{dataOutcome: act.Outcome})
		if err != nil {
			return nil, err
		}
		applied = e.Time
	}
	if t, _ := a.Ledger.Trip(trip.ID); act.Outcome == bundle.OutcomeApplied && t.State == ledger.Applied {
		if _, err := a.Ledger.Append(ledger.Confirmed, trip.ID, nil); err != nil {
			return nil, err
		}
	}
	return act, a.receipt(act, peer, sealed.Digest(), applied)
}

// nothing is the sink of an answer to a removal: the stamp was deactivated before
// the request was made, so there is nothing left to do to it.
type nothing struct{}

func (nothing) Check(context.Context, string, secret.Text) error { return nil }

func (nothing) Apply(context.Context, secret.Text, Past) (string, error) {
	return bundle.OutcomeApplied, nil
}

// Removal reports whether an answer is that to a removal, as far as the request
// that it names tells.
func Removal(l *ledger.Ledger, m *bundle.Manifest) bool {
	t, ok := l.FindByDigest(m.Re.String())
	return ok && t.Data[dataOperation] == bundle.Unregister
}

// past reads what earlier runs noted about a trip.
func (a *Agent) past(trip ledger.Trip) Past {
	p := Past{Outcome: trip.Data[dataOutcome]}
	if trip.Data[dataAttempt] == "open" {
		p.Attempt = attempt(trip.Data)
	}
	p.Note = func(attempt map[string]string) error {
		_, err := a.Ledger.Append("activating", trip.ID, attemptData(attempt))
		return err
	}
	return p
}

// Usable refuses an answer that was used, or that no request of this side waits
// for: what can be said before it is opened.
func Usable(l *ledger.Ledger, v *bundle.Verified, digest bundle.Digest) error {
	_, err := pendingFor(l, v, digest)
	return err
}

// pendingFor finds the request that an answer names, if it may still be answered.
func pendingFor(l *ledger.Ledger, v *bundle.Verified, digest bundle.Digest) (ledger.Trip, error) {
	m := v.Manifest
	trip, ok := l.FindByDigest(m.Re.String())
	if !ok {
		return trip, fault.New(fault.NotForUs, "answer %s is for a request that this agent does not have", m.Bundle).Hint("azs-agent requests")
	}
	d := trip.Data
	switch {
	case trip.State == ledger.Cancelled || trip.State == ledger.Superseded:
		return trip, fault.New(fault.Replay, "answer %s is for request %s, which is %s since %s", m.Bundle, trip.ID, trip.State, clock.Format(trip.Updated)).Hint("azs-agent requests")
	case d[dataAnswerDigest] != "" && d[dataAnswerDigest] != digest.String():
		return trip, fault.New(fault.Replay, "request %s was answered already by %s on %s; answer %s comes too late", trip.ID, d[dataAnswer], clock.Format(used(trip)), m.Bundle).Hint("azs-agent status")
	case d[dataReceipt] != "": // everything was done; without a receipt, a crash left something to finish
		return trip, fault.New(fault.Replay, "answer %s was already used on %s", m.Bundle, clock.Format(used(trip))).Hint("azs-agent status")
	case d[dataPair] != m.Pair.String():
		return trip, fault.New(fault.NotForUs, "answer %s comes from pair %s, request %s went to relay %q", m.Bundle, m.Pair, trip.ID, d[dataRelay])
	}
	return trip, nil
}

// admit judges what the outside of an answer can tell: its request, sequence and
// expiry.
func (a *Agent) admit(v *bundle.Verified, digest bundle.Digest) (ledger.Trip, error) {
	trip, err := pendingFor(a.Ledger, v, digest)
	if err != nil {
		return trip, err
	}
	m, d := v.Manifest, trip.Data
	for _, other := range a.Ledger.Trips() {
		seq, err := strconv.ParseUint(other.Data[dataSeqIn], 10, 64)
		if err == nil && other.ID != trip.ID && other.Data[dataPair] == d[dataPair] &&
			strings.EqualFold(other.Data[dataCloudID], d[dataCloudID]) && seq >= m.Seq {
			return trip, fault.New(fault.Replay, "answer %s has the number %d, but answer %s with the number %d was used for the same stamp on %s", m.Bundle, m.Seq, other.Data[dataAnswer], seq, clock.Format(used(other)))
		}
	}
	if got := clock.Format(m.Expires); got != d[dataExpires] {
		return trip, fault.New(fault.NotForUs, "answer %s says its request expires %s, the request says %s", m.Bundle, got, d[dataExpires])
	}
	if now := a.Clock.Now(); now.After(m.Expires) && d[dataAnswerDigest] == "" {
		return trip, fault.New(fault.Expired, "request %s expired on %s by this agent's clock, which says %s", trip.ID, d[dataExpires], clock.Format(now)).
			Hint("azs-agent token … makes a new request; a clock that was corrected is told by --accept-clock")
	}
	return trip, nil
}

// approvedBy is what the journal notes of those who approved an answer.
func (a *Agent) approvedBy(v *bundle.Verified) map[string]string {
	var labels []string
	for _, by := range a.Policy.By(v) {
		labels = append(labels, by.Label)
	}
	if len(labels) == 0 {
		return nil
	}
	return map[string]string{dataApproved: strings.Join(labels, " ")}
}

// appliedAt returns when the key of a trip went to its sink, or the zero time.
func appliedAt(t ledger.Trip) time.Time {
	for _, e := range t.Entries {
		if e.Event == ledger.Applied {
			return e.Time
		}
	}
	return time.Time{}
}

// used returns when a trip's answer was used.
func used(t ledger.Trip) time.Time {
	for _, e := range t.Entries {
		if e.Event == ledger.Opened {
			return e.Time
		}
	}
	return t.Updated
}

// open decrypts an answer and compares it with the request, then the key with
// both.
func (a *Agent) open(v *bundle.Verified, trip ledger.Trip) (*Activation, secret.Text, error) {
	body, err := a.Identity.Open(v)
	if err != nil {
		return nil, secret.Text{}, err
	}
	payload, err := body.Payload()
	if err != nil {
		return nil, secret.Text{}, fault.New(fault.Refused, "answer %s: %w", v.Manifest.Bundle, err)
	}
	ans := body.Content.(*bundle.Answer)
	if err := compare(v.Manifest.Bundle, ans, trip); err != nil {
		return nil, secret.Text{}, err
	}
	// The answer was made before it came, the request was made before it arrived.
	act := &Activation{Trip: trip.ID, Answer: ans, SkewFrom: v.Manifest.Created.Sub(a.Clock.Now()), SkewTo: ans.Received.Sub(ans.RequestCreated)}
	if ans.Operation == bundle.Unregister {
		if len(payload) != 0 || !ans.KeySHA256.IsZero() {
			return nil, secret.Text{}, fault.New(fault.Refused, "answer %s is for a removal and holds a key", v.Manifest.Bundle)
		}
		return act, secret.Text{}, nil
	}
	if got := bundle.Sum(payload); got != ans.KeySHA256 {
		return nil, secret.Text{}, fault.New(fault.NotForUs, "the activation key in answer %s has SHA-256 %s, the answer says %s", v.Manifest.Bundle, got, ans.KeySHA256)
	}
	key, err := official.ReadKey(payload)
	if err != nil {
		return nil, secret.Text{}, err
	}
	// Azure wrote the key's expiry, so it is held against the clock of the relay,
	// which said this when it had the key. What this clock thinks is a warning.
	if err := key.Check(official.Want{
		CloudID: ans.CloudID, RegistrationName: ans.Registration, ResourceGroup: ans.ResourceGroup,
		SubscriptionID: ans.Subscription, BillingModel: trip.Data[dataBilling],
		UsageReporting: parseBool(trip.Data[dataUsage]), MarketplaceSyndication: parseBool(trip.Data[dataSyndication]),
	}, v.Manifest.Created); err != nil {
		return nil, secret.Text{}, err
	}
	now := a.Clock.Now()
	if e := key.Claims.Expires; !e.IsZero() && !now.Before(e) {
		key.Warnings = append(key.Warnings, fmt.Sprintf("the activation key expired at %s by this clock, which says %s; the relay's clock said %s when it made the answer",
			clock.Format(e), clock.Format(now), clock.Format(v.Manifest.Created)))
	}
	act.Key, act.Warnings = key, key.Warnings
	if want := trip.Data[dataRegistration]; want != "" && !strings.EqualFold(want, ans.Registration) {
		act.Warnings = append(act.Warnings, fmt.Sprintf("the registration has the new unique name %q, and not %q", ans.Registration, want))
	}
	return act, key.Text, nil
}

// compare holds an answer against its request. An empty expectation is any.
func compare(id bundle.ID, ans *bundle.Answer, trip ledger.Trip) error {
	var diff []string
	check := func(what, got, want string) {
		if want != "" && !strings.EqualFold(got, want) {
			diff = append(diff, fmt.Sprintf("%s %q, want %q", what, got, want))
		}
	}
	d := trip.Data
	check("operation", ans.Operation, d[dataOperation])
	check("cloud id", ans.CloudID, d[dataCloudID])
	if ans.Operation != bundle.Unregister { // what is gone was wherever the relay found it
		check("subscription", ans.Subscription, d[dataSubscription])
		check("resource group", ans.ResourceGroup, d[dataGroup])
	}
	// A renewal may need a new unique name, which begins with the expected one.
	renewed := ans.Operation == bundle.Renew && d[dataRegistration] != "" &&
		strings.HasPrefix(strings.ToLower(ans.Registration), strings.ToLower(d[dataRegistration])+"-")
	if !renewed && ans.Operation != bundle.Unregister {
		check("registration", ans.Registration, d[dataRegistration])
	}
	check("request created", clock.Format(ans.RequestCreated), d[dataCreated])
	check("request expires", clock.Format(ans.RequestExpires), d[dataExpires])
	if len(diff) > 0 {
		return fault.New(fault.NotForUs, "answer %s is not what request %s expects: %s", id, trip.ID, strings.Join(diff, "; ")).Hint("azs-agent inspect BUNDLE")
	}
	return nil
}

// receipt seals what the relay may know: that its answer was used.
func (a *Agent) receipt(act *Activation, peer trust.Peer, re bundle.Digest, applied time.Time) error {
	head, err := bundle.ParseDigest(a.Ledger.Head())
	if err != nil {
		return err
	}
	id, err := bundle.NewID(a.Rand)
	if err != nil {
		return err
	}
	sealed, err := a.Identity.Seal(peer, bundle.Draft{
		Bundle: id, Seq: a.Ledger.NextSeq(peer.Pair.String()), Re: re, Created: a.Clock.Now(), Expires: act.Answer.RequestExpires,
		Content: &bundle.Receipt{Label: a.Identity.Card.Label, Outcome: act.Outcome, CloudID: act.Answer.CloudID,
			Applied: applied, KeySHA256: act.Answer.KeySHA256, Journal: head},
	}, a.Rand)
	if err != nil {
		return err
	}
	m, err := sealed.Peek()
	if err != nil {
		return err
	}
	act.Receipt, act.ReceiptID, act.ReceiptFile = sealed, id, medium.Name(string(m.Kind), id.String())
	if err := a.Ledger.Keep(act.ReceiptFile, sealed.Text()); err != nil {
		return err
	}
	_, err = a.Ledger.Append("receipt", act.Trip, map[string]string{
		dataReceipt: m.Bundle.String(), "receipt-file": act.ReceiptFile, dataPair: m.Pair.String(), dataSeqOut: strconv.FormatUint(m.Seq, 10),
	})
	return err
}
