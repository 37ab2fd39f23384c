package flow

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
)

// Selection names a registration to remove without a request of its agent: by
// its name, or by the cloud id of its stamp.
type Selection struct {
	Name    string
	CloudID string
}

// SelectToken makes a selection of a plain token file: the cloud id that the
// token tells.
func SelectToken(raw []byte) (Selection, error) {
	token, err := official.ReadToken(raw)
	if err != nil {
		return Selection{}, err
	}
	if token.Claims.CloudID == "" {
		return Selection{}, fault.New(fault.Usage, "the registration token is opaque and does not tell the cloud id of its stamp").
			Hint("azs-relay unregister --name NAME --subscription SUBSCRIPTION --force")
	}
	return Selection{CloudID: token.Claims.CloudID}, nil
}

// Select makes a job of a selection. Nothing in it proves that the stamp was
// deactivated, so only force makes one. A removal of the same registration that
// was begun and not finished is taken up.
func (r *Relay) Select(s Selection, o Order, force bool) (*Job, error) {
	if s.Name == "" && s.CloudID == "" {
		return nil, fault.New(fault.Usage, "unregister needs a request, --name, --token-file or --cloud-id")
	}
	if !force {
		return nil, fault.New(fault.Approval, "the agent has not told that the stamp is deactivated: a stamp that is still active would lose its registration").
			Hint("azs-agent deactivate --pep …   # makes the request for azs-relay unregister; or the same command with --force")
	}
	j := &Job{Received: r.Clock.Now(), Unapproved: r.Policy.CheckNone("azs-relay", "a removal that no agent asks for"), Ask: &bundle.Request{Operation: bundle.Unregister, CloudID: s.CloudID, ExpectRegistration: s.Name}}
	for _, t := range r.Ledger.Trips() {
		d := t.Data
		if d[dataOperation] != bundle.Unregister || d[dataDigest] != "" || t.State == ledger.Closed {
			continue
		}
		id, err := azure.ParseRegistrationID(d[dataRegistrationID])
		if err != nil {
			continue
		}
		_, notID := azure.ParseSubscriptionID(o.Subscription)
		sameCloud := s.CloudID != "" && strings.EqualFold(d[dataCloudID], s.CloudID)
		sameName := s.Name != "" && strings.EqualFold(id.Name(), s.Name) && (o.Group == "" || strings.EqualFold(id.Group().Name(), o.Group))
		if (sameCloud || sameName) && (notID != nil || strings.EqualFold(id.Subscription().String(), o.Subscription)) {
			j.Trip, j.Known = t.ID, t
			return j, nil
		}
	}
	id, err := bundle.NewID(r.Rand)
	j.Trip = id.String()
	return j, err
}

// planUnregister finds the registration and plans its removal. Of a request, it
// is the one that the agent expects, else the one of the stamp's cloud id; never
// one that does not tell its cloud id (fault 18 of the official flow, which
// compares with an empty cloud id and then deletes the first that has none).
func (r *Relay) planUnregister(ctx context.Context, p *Plan) error {
	if o := p.order; o.FromSubscription != "" || o.NameSuffix != "" || o.InPlace {
		return fault.New(fault.Usage, "request %s is a removal: --from-subscription, --name-suffix-on-renewal and --in-place are for renewals", p.Job.Trip)
	}
	j := p.Job
	if j.Known.State == ledger.Removed { // nothing is left to do in Azure
		if err := p.remember(); err != nil {
			return err
		}
	} else if err := r.surveyRemoval(ctx, p); err != nil {
		return err
	}
	r.removeSteps(p)
	if j.Peer == nil {
		p.here(func(context.Context, *Outcome) error {
			_, err := r.Ledger.Append(ledger.Closed, j.Trip, nil)
			return err
		}, "close the trip")
		return nil
	}
	sealed, err := r.kept(j)
	if err != nil {
		return err
	}
	if sealed != nil {
		p.here(func(_ context.Context, out *Outcome) error { return r.adopt(j, sealed, out) }, "take up the answer that an earlier run has sealed")
		return nil
	}
	p.here(func(_ context.Context, out *Outcome) error {
		content := r.content(p)
		if t, _ := r.Ledger.Trip(j.Trip); t.Data[dataOld] == "" {
			content.Note = "no registration of this stamp was found"
		}
		return r.answer(j, content, nil, answerFile(j), out)
	}, "seal the answer for agent %q", j.Peer.Label())
	return nil
}

// remember takes the place of a removal from the journal.
func (p *Plan) remember() (err error) {
	d := p.Job.Known.Data
	if p.ID, err = azure.ParseRegistrationID(d[dataRegistrationID]); err != nil {
		return err
	}
	p.Subscription = azure.Subscription{ID: p.ID.Subscription(), TenantID: d[dataTenant]}
	return nil
}

// surveyRemoval reads what the removal needs to know: three calls where the
// registration is found by its name.
func (r *Relay) surveyRemoval(ctx context.Context, p *Plan) error {
	if err := r.subscription(ctx, p); err != nil {
		return err
	}
	if err := p.placeRemoval(); err != nil {
		return err
	}
	if err := r.findRemoval(ctx, p); err != nil || p.Old == nil {
		return err
	}
	var err error
	_, p.oldLocked, err = r.Azure.Lock(ctx, p.Old.ID)
	return err
}

// placeRemoval says where the registration is looked for first: where the
// operator says, else where the agent expects it. The zero id is nowhere.
func (p *Plan) placeRemoval() (err error) {
	ask, o := p.Job.Ask, p.order
	if d := p.Job.Known.Data; p.Job.Forced() && d[dataRegistrationID] != "" {
		p.ID, err = azure.ParseRegistrationID(d[dataRegistrationID])
		return err
	}
	if want := ask.ExpectSubscription; want != "" && o.Subscription == "" && !strings.EqualFold(want, p.Subscription.ID.String()) {
		return fault.New(fault.NotForUs, "the request expects subscription %s, Azure answers with %s", want, p.Subscription.ID)
	}
	name, group := o.Name, o.Group
	if name == "" {
		name = ask.ExpectRegistration
	}
	if group == "" {
		group = ask.ExpectResourceGroup
	}
	if name == "" {
		return nil
	}
	if group == "" {
		group = "azurestack"
	}
	g, err := p.Subscription.ID.Group(group)
	if err != nil {
		return err
	}
	p.ID, err = g.Registration(name)
	return err
}

// findRemoval finds what is to be removed; p.Old stays nil when it is gone.
func (r *Relay) findRemoval(ctx context.Context, p *Plan) error {
	j, cloudID := p.Job, p.Job.Ask.CloudID
	nowhere := p.ID == azure.RegistrationID{}
	if !nowhere {
		reg, there, err := r.Azure.Registration(ctx, p.ID)
		if err != nil {
			return err
		}
		if there {
			return p.mayRemove(reg)
		}
	}
	if cloudID == "" || (j.Forced() && !nowhere) {
		// By its name: it is not there. A removal that was begun has done it.
		if j.Known.State != "" {
			return nil
		}
		return fault.New(fault.Permanent, "there is no registration %s", p.ID).Hint("azs-relay list --subscription %s", p.Subscription.ID)
	}
	all, err := r.Azure.Registrations(ctx, p.Subscription.ID)
	if err != nil {
		return err
	}
	for _, reg := range all {
		if reg.CloudID == "" || !strings.EqualFold(reg.CloudID, cloudID) {
			continue
		}
		if p.Old != nil {
			return fault.New(fault.Permanent, "the stamp with cloud id %q is registered twice, as %s and as %s", cloudID, p.Old.ID, reg.ID).
				Hint("azs-relay unregister --name NAME --group GROUP --subscription %s --force", p.Subscription.ID)
		}
		p.Old = &reg
	}
	switch {
	case p.Old != nil && !nowhere:
		p.note("the request expects %s; the stamp's cloud id is found at %s", p.ID, p.Old.ID)
	case p.Old == nil && nowhere:
		return fault.New(fault.Permanent, "no registration of subscription %s tells the cloud id %q", p.Subscription.ID, cloudID).
			Hint("azs-relay list --subscription %s", p.Subscription.ID)
	case p.Old == nil:
		p.warn("no registration of cloud id %q is in subscription %s (%q): nothing is deleted", cloudID, p.Subscription.ID, p.Subscription.Name)
	}
	if p.Old != nil {
		p.ID = p.Old.ID
	}
	return nil
}

// mayRemove holds a registration that was found by its name against the cloud id
// of the job.
func (p *Plan) mayRemove(reg azure.Registration) error {
	j := p.Job
	switch want := j.Ask.CloudID; {
	case want == "":
		j.Ask.CloudID = reg.CloudID
		if reg.CloudID == "" {
			p.warn("registration %q does not tell its cloud id: it is removed by its name alone", reg.ID.Name())
		}
	case reg.CloudID == "":
		return fault.New(fault.Permanent, "registration %s does not tell its cloud id, so it cannot be shown to be that of stamp %q", reg.ID, want).
			Hint("azs-relay unregister --name %s --group %s --subscription %s --force   # after a look at it", reg.ID.Name(), reg.ID.Group().Name(), reg.ID.Subscription())
	case !strings.EqualFold(want, reg.CloudID):
		return fault.New(fault.NotForUs, "registration %s is that of cloud id %q, and the removal is for %q", reg.ID, reg.CloudID, want).
			Hint("azs-relay list --subscription %s", reg.ID.Subscription())
	}
	p.Old = &reg
	return nil
}

// removeSteps lists the steps that remove the old registration and journal that
// it is gone.
func (r *Relay) removeSteps(p *Plan) {
	j := p.Job
	if s := j.Known.State; s == ledger.Removed || isRegistered(s) {
		return
	}
	gone := map[string]string{dataRegistrationID: p.ID.String(), dataSubscription: p.ID.Subscription().String(), dataTenant: p.Subscription.TenantID}
	if j.Ask.Operation != bundle.Unregister {
		gone = nil // where the new one will be is journaled when it is there
	}
	if p.Old != nil {
		id := p.Old.ID
		if p.oldLocked {
			p.call(r.Requests.DeleteLock(id), func(ctx context.Context, _ *Outcome) error {
				if err := r.Azure.DeleteLock(ctx, id); err != nil {
					return err
				}
				_, err := r.Ledger.Append("unlocked", j.Trip, map[string]string{dataOld: id.String()})
				return err
			})
		}
		p.call(r.Requests.DeleteRegistration(id), func(ctx context.Context, _ *Outcome) error { return r.delete(ctx, p) })
		p.Steps = append(p.Steps, Step{Purpose: "look until it is gone", Request: ref(r.Requests.Registration(id))})
	}
	p.here(func(_ context.Context, out *Outcome) error {
		data := map[string]string{}
		for k, v := range gone {
			data[k] = v
		}
		t, _ := r.Ledger.Trip(j.Trip)
		out.Removed = t.Data[dataOld] // of an earlier run
		if p.Old != nil {
			out.Removed = p.Old.ID.String()
			data[dataOld] = out.Removed
		}
		_, err := r.Ledger.Append(ledger.Removed, j.Trip, data)
		return err
	}, "write down that the old registration is gone")
}

func ref[T any](v T) *T { return &v }

// delete deletes the old registration. One that Azure will not delete is locked
// again.
func (r *Relay) delete(ctx context.Context, p *Plan) error {
	err := r.Azure.DeleteRegistration(ctx, p.Old.ID)
	if err == nil || !p.oldLocked || fault.KindOf(err) != fault.Permanent {
		return err
	}
	if _, lerr := r.Azure.PutLock(ctx, p.Old.ID); lerr != nil {
		return fault.New(fault.Permanent, "%w; it could not be locked again either: %w", err, lerr)
	}
	_, jerr := r.Ledger.Append("locked", p.Job.Trip, map[string]string{dataReason: ledger.Clean(fmt.Sprintf("not deleted: %v", err))})
	return errors.Join(err, jerr)
}
