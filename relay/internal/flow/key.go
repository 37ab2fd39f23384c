package flow

import (
	"context"
	"strings"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
)

// Whose finds the registration whose key is wanted: the one that is named, else
// that of the only stamp that the journal knows. The order's subscription must be
// an id.
func (r *Relay) Whose(o Order) (azure.RegistrationID, error) {
	var none azure.RegistrationID
	if o.Name != "" && o.Subscription != "" {
		sub, err := azure.ParseSubscriptionID(o.Subscription)
		if err != nil {
			return none, err
		}
		g, err := sub.Group(orDefault(o.Group, "azurestack"))
		if err != nil {
			return none, err
		}
		return g.Registration(o.Name)
	}
	var found []azure.RegistrationID
	for _, s := range Stamps(r.Ledger) {
		id, err := azure.ParseRegistrationID(s.RegistrationID)
		if err != nil {
			continue
		}
		if fits := func(want, got string) bool { return want == "" || strings.EqualFold(want, got) }; fits(o.Name, id.Name()) &&
			fits(o.Group, id.Group().Name()) && fits(o.Subscription, id.Subscription().String()) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return none, fault.New(fault.NotForUs, "this relay knows no such registration").
			Hint("azs-relay key --name NAME --group GROUP --subscription SUBSCRIPTION-ID --key-out ActivationKey.txt")
	}
	return none, fault.New(fault.Usage, "%d registrations fit, the first two are %s and %s: which one?", len(found), found[0], found[1]).
		Hint("azs-relay key --name %s --subscription %s", found[0].Name(), found[0].Subscription())
}

// SealKey seals a key that was fetched again to the agent whose request the
// registration was made for, as an answer to that request. A key that the agent
// was given already gives the same answer bundle; one that a receipt tells to be
// in use is refused, since the agent takes no second answer.
func (r *Relay) SealKey(ctx context.Context, id azure.RegistrationID, key *official.Key) (*Outcome, error) {
	trip, ok := r.TripOf(id)
	if ok {
		_, release, err := r.Ledger.Claim(ctx, "trip "+trip.ID)
		if err != nil {
			return nil, err
		}
		defer release()
		trip, _ = r.Ledger.Trip(trip.ID)
	}
	d := trip.Data
	switch {
	case d[dataPair] == "":
		return nil, fault.New(fault.NotForUs, "no agent's request stands for %s, so there is nobody to seal the key to", id).
			Hint("azs-relay key --name %s --key-out ActivationKey.txt, or a new request from the agent", id.Name())
	case trip.State == ledger.Closed:
		return nil, fault.New(fault.Replay, "the answer to request %s was used and its receipt came: the agent takes no second one", trip.ID).
			Hint("azs-agent token …   # makes a new request; or azs-relay key --name %s --key-out ActivationKey.txt", id.Name())
	}
	j, err := r.jobOf(trip)
	if err != nil {
		return nil, err
	}
	if trip.State == ledger.Answered && d[dataKey] == bundle.Digest(key.Digest).String() {
		return r.Done(j, Order{})
	}
	p := &Plan{Job: j, ID: id, Subscription: azure.Subscription{ID: id.Subscription(), TenantID: d[dataTenant]}}
	if err := r.keyed(p, key); err != nil {
		return nil, err
	}
	content, locked := r.content(p), d[dataLocked] == "true"
	content.BillingModel, content.Locked = key.Claims.BillingModel, &locked
	content.KeyExpires, content.KeySHA256 = key.Claims.ExpiresText, bundle.Digest(key.Digest)
	out := &Outcome{Trip: trip.ID, ID: id, Key: key, Warnings: key.Warnings}
	file := ""
	if trip.State == ledger.Registered {
		if sealed, err := r.kept(j); err != nil {
			return nil, err
		} else if sealed != nil {
			return out, r.adopt(j, sealed, out)
		}
		file = answerFile(j)
	}
	return out, r.answer(j, content, []byte(key.Text.Reveal()), file, out)
}

// TripOf returns the last trip that registered at a place.
func (r *Relay) TripOf(id azure.RegistrationID) (trip ledger.Trip, ok bool) {
	for _, t := range r.Ledger.Trips() {
		if op := t.Data[dataOperation]; op != operationMove && op != bundle.Unregister && isRegistered(t.State) && strings.EqualFold(t.Data[dataRegistrationID], id.String()) {
			trip, ok = t, true
		}
	}
	return trip, ok
}

// jobOf makes the job of a trip again, of what the journal knows of its request.
func (r *Relay) jobOf(t ledger.Trip) (*Job, error) {
	d := t.Data
	j := &Job{Trip: t.ID, Known: t, Ask: &bundle.Request{Operation: orDefault(d[dataOperation], bundle.Register), CloudID: d[dataCloudID], BillingModel: d[dataBilling]}}
	pair, err := bundle.ParseID(d[dataPair])
	if err != nil {
		return nil, err
	}
	for _, p := range r.Peers {
		if in, ok := p.In(pair); ok {
			j.Peer = &in
		}
	}
	if j.Peer == nil {
		return nil, fault.New(fault.NotForUs, "agent %q, whose request %s is, is not pinned any more", d[dataAgent], t.ID).Hint("azs-relay pair show")
	}
	m := &bundle.Manifest{Pair: j.Peer.Pair}
	if m.Bundle, err = bundle.ParseID(t.ID); err != nil {
		return nil, err
	}
	if j.Digest, err = bundle.ParseDigest(d[dataDigest]); err != nil {
		return nil, err
	}
	if m.Created, err = clock.Parse(d[dataCreated]); err != nil {
		return nil, err
	}
	if m.Expires, err = clock.Parse(d[dataExpires]); err != nil {
		return nil, err
	}
	if j.Received, err = clock.Parse(d[dataReceived]); err != nil {
		return nil, err
	}
	j.Manifest = m
	return j, nil
}
