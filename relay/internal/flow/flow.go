// Package flow holds the use cases of azs-relay: do what a request asks for
// (register, renew, unregister), answer it, and close the trip when the receipt
// comes; move a registration; tell what is registered and when its key ends.
//
// A use case knows no flag and no terminal. Each is a [Plan] first: a numbered
// list of what is left to do, made by reading alone. Every step that changes something in
// Azure is safe to repeat, and what it led to is journaled before the next one,
// so that a run that was killed anywhere is finished by running the same command
// again: it ends in the same single registration and the same answer bundle.
package flow

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// ResourceManager is what the use cases need of Azure; [azure.Client] is it.
type ResourceManager interface {
	Cloud() azure.Cloud
	Subscription(ctx context.Context, idOrName string) (azure.Subscription, error)
	Provider(ctx context.Context, s azure.SubscriptionID) (azure.ProviderState, error)
	RegisterProvider(ctx context.Context, s azure.SubscriptionID) (azure.ProviderState, error)
	WaitProvider(ctx context.Context, s azure.SubscriptionID) error
	Locations(ctx context.Context, s azure.SubscriptionID) ([]azure.Location, error)
	Group(ctx context.Context, g azure.GroupID) (azure.Group, bool, error)
	CreateGroup(ctx context.Context, g azure.GroupID, location string) (azure.Group, error)
	CheckWrites(ctx context.Context, writes []azure.Request) error
	Registrations(ctx context.Context, s azure.SubscriptionID) ([]azure.Registration, error)
	PutRegistration(ctx context.Context, id azure.RegistrationID, token secret.Text) (azure.Registration, error)
	PutLock(ctx context.Context, id azure.RegistrationID) (azure.Lock, error)
	ActivationKey(ctx context.Context, id azure.RegistrationID) (secret.Text, error)
	ReadBack(ctx context.Context, id azure.RegistrationID, cloudID string) (azure.Registration, error)
	Registration(ctx context.Context, id azure.RegistrationID) (azure.Registration, bool, error)
	DeleteRegistration(ctx context.Context, id azure.RegistrationID) error
	Lock(ctx context.Context, id azure.RegistrationID) (azure.Lock, bool, error)
	DeleteLock(ctx context.Context, id azure.RegistrationID) error
	Locks(ctx context.Context, s azure.Scope) ([]azure.PlacedLock, error)
	ValidateMove(ctx context.Context, id azure.RegistrationID, target azure.GroupID) error
	Move(ctx context.Context, id azure.RegistrationID, target azure.GroupID) (azure.RegistrationID, error)
}

// Relay is one side of the gap at work. Identity and Peers are needed only for
// bundles, Azure only for registering.
type Relay struct {
	Ledger   *ledger.Ledger
	Identity *trust.Identity
	Peers    []trust.Peer    // the pinned agents
	Policy   trust.Approvers // who must have approved what is done
	Azure    ResourceManager
	Requests azure.Requests // makes what a dry run prints
	Clock    clock.Clock
	Rand     io.Reader
	Say      func(format string, args ...any) // one line for each step
}

// operationMove is what no request can ask for.
const operationMove = "move"

// The names under which a trip's facts stand in the journal.
const (
	dataDigest         = "digest" // of the request's manifest, or of a plain token, hex
	dataPair           = "pair"
	dataApproved       = "approved-by" // labels of approvers, with blanks between them
	dataSeqIn          = "seq-in"
	dataSeqOut         = "seq-out"
	dataAgent          = "agent"
	dataCreated        = "created" // the agent's clock
	dataExpires        = "expires"
	dataReceived       = "received" // our clock
	dataCloudID        = "cloud-id"
	dataToken          = "token-sha256"
	dataBilling        = "billing-model"
	dataSubscription   = "subscription"
	dataTenant         = "tenant"
	dataRegistrationID = "registration-id"
	dataObjectID       = "object-id"
	dataLocked         = "locked"
	dataAnswer         = "answer"
	dataAnswerDigest   = "answer-digest"
	dataAnswerFile     = "answer-file"
	dataKey            = "key-sha256"
	dataKeyExpires     = "key-expires"
	dataReason         = "reason"
	dataOperation      = "operation" // register when it is missing
	dataOld            = "old-registration-id"
	dataMoveTo         = "move-to" // registration id
	dataMoved          = "moved"   // "true" when a move came to its end
)

// Job is a request that was checked and may be acted on.
type Job struct {
	Trip     string
	Peer     *trust.Peer      // nil for a plain token file
	Manifest *bundle.Manifest // nil for a plain token file
	Digest   bundle.Digest
	Ask      *bundle.Request
	Token    *official.Token
	Received time.Time
	To       Target      // of a move
	Known    ledger.Trip // as it stood in the journal; its State is "" when new

	// Unapproved is why the job may be planned and not done; ApprovedBy are the
	// labels of those who approved it.
	Unapproved error
	ApprovedBy []string
}

// Forced reports whether the operator asks for a removal and no agent does.
func (j *Job) Forced() bool { return j.Ask.Operation == bundle.Unregister && j.Manifest == nil }

// Read opens a request bundle and checks it, without writing anything.
func (r *Relay) Read(raw []byte) (*Job, error) {
	sealed, err := bundle.Split(raw)
	if err != nil {
		return nil, err
	}
	peer, v, err := trust.Verify(r.Identity.Card, r.Peers, sealed, bundle.KindRequest)
	if err != nil {
		return nil, err
	}
	m := v.Manifest
	j := &Job{Trip: m.Bundle.String(), Peer: &peer, Manifest: m, Digest: sealed.Digest(), Received: r.Clock.Now(), Unapproved: r.Policy.Check(v)}
	for _, by := range r.Policy.By(v) {
		j.ApprovedBy = append(j.ApprovedBy, by.Label)
	}
	if known, ok := r.Ledger.FindByDigest(j.Digest.String()); ok {
		j.Known = known
		if at, err := clock.Parse(known.Data[dataReceived]); err == nil {
			j.Received = at
		}
	}
	body, err := r.Identity.Open(v)
	if err != nil {
		return nil, err
	}
	j.Ask = body.Content.(*bundle.Request)
	payload, err := body.Payload()
	if err != nil {
		return nil, fault.New(fault.Refused, "request %s: %w", m.Bundle, err)
	}
	if j.Ask.Operation == bundle.Unregister {
		switch {
		case len(payload) != 0:
			return nil, fault.New(fault.Refused, "request %s asks to unregister and holds %d bytes of a token", m.Bundle, len(payload))
		case j.Ask.CloudID == "":
			return nil, fault.New(fault.Refused, "request %s asks to unregister and names no cloud id", m.Bundle)
		}
		return j, r.current(j)
	}
	if j.Token, err = official.ReadToken(payload); err != nil {
		return nil, err
	}
	if got := bundle.Sum(payload); got != j.Ask.TokenSHA256 || got != bundle.Digest(j.Token.Digest) {
		return nil, fault.New(fault.Refused, "the registration token in request %s has SHA-256 %s, the request says %s", m.Bundle, got, j.Ask.TokenSHA256)
	}
	if c := j.Token.Claims.CloudID; c != "" && !strings.EqualFold(c, j.Ask.CloudID) {
		return nil, fault.New(fault.NotForUs, "request %s is for cloud id %q, its registration token for %q", m.Bundle, j.Ask.CloudID, c)
	}
	return j, r.current(j)
}

// current refuses a request that a newer one of the same agent for the same stamp
// replaced, and one whose number another request of that agent has. The number is
// judged within a stamp, because an agent may serve several and their sticks may
// overtake each other. A request that was registered is welcome again.
func (r *Relay) current(j *Job) error {
	if s := j.Known.State; s != "" && s != ledger.Seen && s != ledger.Admitted {
		return nil
	}
	for _, t := range r.Ledger.Trips() {
		seq, err := strconv.ParseUint(t.Data[dataSeqIn], 10, 64)
		if err != nil || t.ID == j.Trip || t.Data[dataPair] != j.Manifest.Pair.String() {
			continue
		}
		switch {
		case seq == j.Manifest.Seq:
			return fault.New(fault.Replay, "request %s has the number %d, which request %s of the same agent has already", j.Trip, seq, t.ID).Hint("azs-relay status")
		case seq > j.Manifest.Seq && strings.EqualFold(t.Data[dataCloudID], j.Ask.CloudID):
			return fault.New(fault.Replay, "request %s has the number %d; for stamp %q it was replaced by request %s with the number %d", j.Trip, j.Manifest.Seq, j.Ask.CloudID, t.ID, seq).Hint("azs-relay status")
		}
	}
	return nil
}

// ReadToken makes a job of a plain token file, as the official cmdlet wrote it.
func (r *Relay) ReadToken(raw []byte) (*Job, error) {
	token, err := official.ReadToken(raw)
	if err != nil {
		return nil, err
	}
	digest := bundle.Digest(token.Digest)
	j := &Job{
		Unapproved: r.Policy.CheckNone("azs-relay", "the registration of a plain token"),
		Trip:       bundle.ID(digest[:16]).String(), Digest: digest, Token: token, Received: r.Clock.Now(),
		Ask: &bundle.Request{Operation: bundle.Register, CloudID: token.Claims.CloudID, BillingModel: token.Claims.BillingModel,
			AgreementNumber: token.Claims.AgreementNumber, UsageReporting: token.Claims.UsageReporting, TokenSHA256: digest},
	}
	if known, ok := r.Ledger.FindByDigest(digest.String()); ok {
		j.Known = known
	}
	return j, nil
}

// admit writes down that a job came and what it asks for, before anything is
// done for it.
func (r *Relay) admit(p *Plan) error {
	j := p.Job
	if j.Ask.Operation == operationMove {
		if j.Known.State == "" {
			if _, err := r.Ledger.Append(ledger.Moving, j.Trip, map[string]string{
				dataOperation: operationMove, dataCloudID: j.Ask.CloudID, dataRegistrationID: p.ID.String(), dataMoveTo: p.To.String(),
				dataSubscription: p.To.Subscription().String(), dataReceived: clock.Format(j.Received),
			}); err != nil {
				return err
			}
		}
		j.Known, _ = r.Ledger.Trip(j.Trip)
		return nil
	}
	if j.Known.State == "" {
		data := map[string]string{dataOperation: j.Ask.Operation, dataCloudID: j.Ask.CloudID, dataReceived: clock.Format(j.Received)}
		if !j.Digest.IsZero() {
			data[dataDigest] = j.Digest.String()
		}
		if !j.Ask.TokenSHA256.IsZero() {
			data[dataToken] = j.Ask.TokenSHA256.String()
		}
		if j.Manifest != nil {
			data[dataPair], data[dataSeqIn] = j.Manifest.Pair.String(), strconv.FormatUint(j.Manifest.Seq, 10)
			data[dataAgent] = j.Peer.Label()
			data[dataCreated], data[dataExpires] = clock.Format(j.Manifest.Created), clock.Format(j.Manifest.Expires)
		}
		if j.Forced() {
			data[dataRegistrationID] = p.ID.String()
		}
		if _, err := r.Ledger.Append(ledger.Seen, j.Trip, data); err != nil {
			return err
		}
	}
	if j.Known.State == "" || j.Known.State == ledger.Seen {
		data := map[string]string{dataCloudID: j.Ask.CloudID, dataBilling: j.Ask.BillingModel}
		if len(j.ApprovedBy) > 0 {
			data[dataApproved] = strings.Join(j.ApprovedBy, " ")
		}
		if p.Old != nil {
			data[dataOld] = p.Old.ID.String()
		}
		if _, err := r.Ledger.Append(ledger.Admitted, j.Trip, data); err != nil {
			return err
		}
	}
	j.Known, _ = r.Ledger.Trip(j.Trip)
	return nil
}

// Close reads a receipt and closes the trip of the answer that it names. The same
// receipt again changes nothing.
func (r *Relay) Close(raw []byte) (ledger.Trip, *bundle.Receipt, error) {
	sealed, err := bundle.Split(raw)
	if err != nil {
		return ledger.Trip{}, nil, err
	}
	_, v, err := trust.Verify(r.Identity.Card, r.Peers, sealed, bundle.KindReceipt)
	if err != nil {
		return ledger.Trip{}, nil, err
	}
	m := v.Manifest
	var trip ledger.Trip
	for _, t := range r.Ledger.Trips() {
		if t.Data[dataAnswerDigest] == m.Re.String() && t.Data[dataPair] == m.Pair.String() {
			trip = t
		}
	}
	if trip.ID == "" {
		return trip, nil, fault.New(fault.NotForUs, "receipt %s is for an answer that this relay did not make", m.Bundle).Hint("azs-relay status")
	}
	body, err := r.Identity.Open(v)
	if err != nil {
		return trip, nil, err
	}
	rec := body.Content.(*bundle.Receipt)
	key := "" // a removal has none
	if !rec.KeySHA256.IsZero() {
		key = rec.KeySHA256.String()
	}
	if key != trip.Data[dataKey] || rec.CloudID != trip.Data[dataCloudID] {
		return trip, nil, fault.New(fault.NotForUs, "receipt %s tells of another activation key or stamp than the answer to request %s", m.Bundle, trip.ID)
	}
	if trip.State == ledger.Closed {
		return trip, rec, nil
	}
	if _, err := r.Ledger.Append(ledger.Closed, trip.ID, map[string]string{
		"receipt": m.Bundle.String(), "outcome": rec.Outcome, "applied": clock.Format(rec.Applied), "agent-journal": rec.Journal.String(),
	}); err != nil {
		return trip, nil, err
	}
	trip, _ = r.Ledger.Trip(trip.ID)
	return trip, rec, nil
}
