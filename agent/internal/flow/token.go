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
	"github.com/azs-courier/azs-courier/shared/trust"
)

// TokenOrder is what the operator asks for. What the token says too must agree.
type TokenOrder struct {
	Relay              string // label; "" when only one is paired
	CloudID            string
	BillingModel       string
	AgreementNumber    string
	UsageReporting     *bool
	MsAssetTag         string
	TokenVersion       string
	Registration       string // "" is AzureStack-<cloud id>
	ResourceGroup      string // "" is azurestack
	ExpectSubscription string // "" is any
	Note               string
	WithCard           bool
	Valid              time.Duration // how long the answer is waited for
	Operation          string        // "" is bundle.Register
}

// Request is a sealed request.
type Request struct {
	Trip       string // the bundle's id
	File       string // its name on a medium
	Bundle     *bundle.Bundle
	Manifest   *bundle.Manifest
	Content    *bundle.Request
	Token      *official.Token
	Relay      string
	Superseded []string // earlier requests for the same stamp that it replaces
	Warnings   []string
}

// Token seals a registration token into a request, after everything that can be
// known to be wrong with it has been refused. Earlier requests for the same stamp
// that have no answer yet are superseded.
func (a *Agent) Token(ctx context.Context, from Source, o TokenOrder) (*Request, error) {
	peer, err := a.relay(o.Relay)
	if err != nil {
		return nil, err
	}
	token, stamp, err := from.Token(ctx)
	if err != nil {
		return nil, err
	}
	content, err := compose(token, stamp, o)
	if err != nil {
		return nil, err
	}
	r, err := a.request(peer, content, []byte(token.Text.Reveal()), o)
	if err != nil {
		return nil, err
	}
	r.Token = token
	r.Warnings = append(r.Warnings, token.Warnings...)
	return r, nil
}

// request seals and journals a request, and supersedes the earlier ones of the
// same stamp.
func (a *Agent) request(peer trust.Peer, content *bundle.Request, payload []byte, o TokenOrder) (*Request, error) {
	content.Label = a.Identity.Card.Label
	if o.WithCard {
		content.Card = a.Identity.Card.Bundle.Wire()
	}
	id, err := bundle.NewID(a.Rand)
	if err != nil {
		return nil, err
	}
	now := a.Clock.Now()
	sealed, err := a.Identity.Seal(peer, bundle.Draft{
		Bundle: id, Seq: a.Ledger.NextSeq(peer.Pair.String()), Created: now, Expires: now.Add(o.Valid),
		Content: content, Payload: payload,
	}, a.Rand)
	if err != nil {
		return nil, err
	}
	m, err := sealed.Peek()
	if err != nil {
		return nil, err
	}
	r := &Request{Trip: id.String(), File: medium.Name(string(m.Kind), id.String()), Bundle: sealed, Manifest: m, Content: content, Relay: peer.Label()}
	if content.ExpectSubscription == "" {
		r.Warnings = append(r.Warnings, "the answer may come from any subscription: --expect-subscription pins the right one")
	}
	if err := a.Ledger.Keep(r.File, sealed.Text()); err != nil {
		return nil, err
	}
	if _, err := a.Ledger.Append(ledger.Requested, r.Trip, map[string]string{
		dataDigest: sealed.Digest().String(), dataPair: m.Pair.String(), dataSeqOut: strconv.FormatUint(m.Seq, 10),
		dataRelay: peer.Label(), dataFile: r.File, dataCreated: clock.Format(m.Created), dataExpires: clock.Format(m.Expires),
		dataOperation: content.Operation, dataCloudID: content.CloudID, dataBilling: content.BillingModel,
		dataToken: content.TokenSHA256.String(), dataVersion: content.StampVersion, dataNodes: strconv.Itoa(content.Nodes),
		dataAgreement: content.AgreementNumber, dataAssetTag: content.MsAssetTag,
		dataUsage: boolText(content.UsageReporting), dataSyndication: boolText(content.MarketplaceSyndication),
		dataSubscription: content.ExpectSubscription, dataGroup: content.ExpectResourceGroup, dataRegistration: content.ExpectRegistration,
	}); err != nil {
		return nil, err
	}
	for _, t := range Pending(a.Ledger) {
		if t.ID == r.Trip || !strings.EqualFold(t.Data[dataCloudID], content.CloudID) {
			continue
		}
		if _, err := a.Ledger.Append(ledger.Superseded, t.ID, map[string]string{dataReason: "request " + r.Trip}); err != nil {
			return nil, err
		}
		r.Superseded = append(r.Superseded, t.ID)
	}
	return r, nil
}

// compose joins what the token, the stamp and the operator say, and refuses what
// contradicts.
func compose(token *official.Token, stamp Stamp, o TokenOrder) (*bundle.Request, error) {
	c := token.Claims
	var clash error
	agree := func(what, flag string, values ...string) string {
		out := ""
		for _, v := range values {
			switch {
			case v == "":
			case out == "":
				out = v
			case !strings.EqualFold(out, v) && clash == nil:
				clash = fault.New(fault.Usage, "the %s is %q by %s and %q by the registration token", what, out, flag, v).
					Hint("azs-agent token … without %s, or with a token that was made for it", flag)
			}
		}
		return out
	}
	r := &bundle.Request{
		Operation:       first(o.Operation, bundle.Register),
		CloudID:         agree("cloud id", "--cloud-id", o.CloudID, stamp.CloudID, c.CloudID),
		StampVersion:    stamp.Version,
		Nodes:           max(stamp.Nodes, c.Nodes),
		BillingModel:    agree("billing model", "--billing-model", o.BillingModel, c.BillingModel),
		AgreementNumber: agree("agreement number", "--agreement-number", o.AgreementNumber, c.AgreementNumber),
		UsageReporting: parseBool(agree("usage reporting", "--usage-reporting",
			boolText(o.UsageReporting), boolText(c.UsageReporting))),
		MarketplaceSyndication: c.MarketplaceSyndication,
		MsAssetTag:             o.MsAssetTag,
		TokenVersion:           first(o.TokenVersion, stamp.TokenVersion),
		TokenSHA256:            token.Digest,
		ExpectSubscription:     strings.ToLower(o.ExpectSubscription),
		ExpectResourceGroup:    o.ResourceGroup,
		ExpectRegistration:     o.Registration,
		Note:                   o.Note,
	}
	if clash != nil {
		return nil, clash
	}
	switch {
	case r.CloudID == "":
		return nil, fault.New(fault.Usage, "the registration token is opaque and does not tell the cloud id of its stamp").
			Hint("azs-agent token --token-file FILE --cloud-id GUID   (Get-AzureStackStampInformation shows it)")
	case strings.EqualFold(r.BillingModel, "PayAsYouUse") || strings.EqualFold(r.BillingModel, "Ruggedized"):
		return nil, fault.New(fault.Usage, "billing model %q is for connected stamps; a disconnected one registers with Capacity, Custom or Development", r.BillingModel)
	case strings.EqualFold(r.BillingModel, "Custom") && r.MsAssetTag == "":
		return nil, fault.New(fault.Usage, "billing model Custom needs an asset tag").Hint("azs-agent token … --ms-asset-tag TAG")
	}
	if r.ExpectRegistration == "" {
		r.ExpectRegistration = "AzureStack-" + r.CloudID
	}
	if r.ExpectResourceGroup == "" {
		r.ExpectResourceGroup = "azurestack"
	}
	return r, nil
}

// first returns the first text that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// Exported notes that a bundle of a trip left on a medium, in the operator's
// words for it: "x.azc", "/media/usb".
func (a *Agent) Exported(trip, to string) error {
	event := "put"
	if t, _ := a.Ledger.Trip(trip); t.State == ledger.Requested || t.State == ledger.Exported {
		event = ledger.Exported
	}
	_, err := a.Ledger.Append(event, trip, map[string]string{"to": ledger.Clean(to)})
	return err
}

// PlainOut notes that the token left as a plain file for the official scripts.
func (a *Agent) PlainOut(trip, to string) error {
	t, _ := a.Ledger.Trip(trip)
	_, err := a.Ledger.Append("plain-out", trip, map[string]string{"to": ledger.Clean(to), dataToken: t.Data[dataToken]})
	return err
}

// IsPending reports whether a trip waits for an answer.
func IsPending(t ledger.Trip) bool {
	return t.State == ledger.Requested || t.State == ledger.Exported || t.State == ledger.Admitted
}

// Pending returns the requests that wait for an answer, oldest first.
func Pending(l *ledger.Ledger) []ledger.Trip {
	var out []ledger.Trip
	for _, t := range l.Trips() {
		if IsPending(t) {
			out = append(out, t)
		}
	}
	return out
}

// Cancel gives a pending request up: an answer to it is refused from now on. The
// id may be shortened as long as it names one request.
func Cancel(l *ledger.Ledger, id string) (ledger.Trip, error) {
	var found []ledger.Trip
	for _, t := range l.Trips() {
		if id != "" && strings.HasPrefix(t.ID, strings.ToUpper(id)) {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 0:
		return ledger.Trip{}, fault.New(fault.Usage, "no request has the id %q", id).Hint("azs-agent requests")
	case len(found) > 1:
		return ledger.Trip{}, fault.New(fault.Usage, "%d requests have an id that starts with %q", len(found), id).Hint("azs-agent requests")
	}
	t := found[0]
	switch {
	case t.State == ledger.Cancelled:
		return t, nil
	case !IsPending(t):
		return t, fault.New(fault.Replay, "request %s is %s since %s and cannot be cancelled", t.ID, t.State, clock.Format(t.Updated))
	}
	if _, err := l.Append(ledger.Cancelled, t.ID, nil); err != nil {
		return t, err
	}
	t, _ = l.Trip(t.ID)
	return t, nil
}

// Describe names a request in one line.
func Describe(t ledger.Trip) string {
	return fmt.Sprintf("%s  %s  stamp %q  made %s, answer until %s", t.ID, t.State, t.Data[dataCloudID], t.Data[dataCreated], t.Data[dataExpires])
}
