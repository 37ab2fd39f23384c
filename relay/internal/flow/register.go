package flow

import (
	"context"
	"fmt"
	"strings"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// Order is where the operator wants the registration, and how. What the request
// expects must agree; what neither says has the official default.
type Order struct {
	Subscription       string // id or display name
	Name               string // "" is what the request expects, else AzureStack-<cloud id>
	Group              string // "" is what the request expects, else azurestack
	Location           string // of a group that must be created; "" is the cloud's default
	NoProviderRegister bool
	NoLock             bool

	// Of renewals only.
	FromSubscription string // where the old registration is, when it is in another one
	NameSuffix       string // a new unique name is made with it, for the capacity rule
	InPlace          bool   // update the registration instead of deleting and making it anew
}

// planRegister plans a registration or a renewal.
func (r *Relay) planRegister(ctx context.Context, p *Plan) error {
	if err := p.checkOrder(); err != nil {
		return err
	}
	if err := r.subscription(ctx, p); err != nil {
		return err
	}
	if err := p.place(p.order); err != nil {
		return err
	}
	if q := p.Subscription.QuotaID; q != "" && !strings.HasPrefix(q, "EnterpriseAgreement") {
		p.warn("subscription %q is of offer %s; disconnected registration is documented for Enterprise Agreement only", p.Subscription.Name, q)
	}
	if err := r.survey(ctx, p, p.order); err != nil {
		return err
	}
	if err := r.elsewhere(ctx, p); err != nil {
		return err
	}
	known := p.Job.Known
	if isRegistered(known.State) && !strings.EqualFold(known.Data[dataRegistrationID], p.ID.String()) {
		return fault.New(fault.NotForUs, "request %s was registered already as %s, not as %s", p.Job.Trip, known.Data[dataRegistrationID], p.ID)
	}
	if err := r.renewal(ctx, p); err != nil {
		return err
	}
	return r.registerSteps(p)
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

func isRegistered(state string) bool {
	return state == ledger.Registered || state == ledger.Answered || state == ledger.Closed
}

// renewing reports whether what Azure holds of the stamp is still the old
// registration. From the state removed on it is the new one.
func (p *Plan) renewing() bool {
	s := p.Job.Known.State
	return p.Job.Ask.Operation == bundle.Renew && (s == "" || s == ledger.Seen || s == ledger.Admitted)
}

// checkOrder refuses orders that only a renewal can follow.
func (p *Plan) checkOrder() error {
	o := p.order
	switch {
	case p.Job.Ask.Operation != bundle.Renew && (o.FromSubscription != "" || o.NameSuffix != "" || o.InPlace):
		return fault.New(fault.Usage, "request %s is no renewal: --from-subscription, --name-suffix-on-renewal and --in-place are for renewals", p.Job.Trip).
			Hint("azs-relay inspect REQUEST   # shows what the request asks for")
	case o.InPlace && (o.FromSubscription != "" || o.NameSuffix != ""):
		return fault.New(fault.Usage, "--in-place keeps name and subscription, --from-subscription and --name-suffix-on-renewal change them")
	}
	return nil
}

// subscription reads the subscription that the order or the request names; one
// that takes no changes is refused.
func (r *Relay) subscription(ctx context.Context, p *Plan) (err error) {
	want := p.order.Subscription
	if want == "" {
		want = p.Job.Ask.ExpectSubscription
	}
	if want == "" {
		return fault.New(fault.Usage, "neither the request nor the command says in which subscription to register").Hint("azs-relay register … --subscription SUBSCRIPTION")
	}
	if p.Subscription, err = r.Azure.Subscription(ctx, want); err != nil {
		return err
	}
	if !p.Subscription.Enabled() {
		return fault.New(fault.Permanent, "subscription %s (%q) is %s and takes no changes", p.Subscription.ID, p.Subscription.Name, p.Subscription.State)
	}
	return nil
}

// place names the registration and refuses what the request does not expect.
func (p *Plan) place(o Order) error {
	ask := p.Job.Ask
	pick := func(what, flag, ordered, expected, standard string) (string, error) {
		switch {
		case ordered == "" && expected == "":
			return standard, nil
		case ordered == "":
			return expected, nil
		case expected != "" && !strings.EqualFold(ordered, expected):
			return "", fault.New(fault.NotForUs, "the request expects %s %q, %s says %q", what, expected, flag, ordered).
				Hint("azs-relay register … without %s, or a new request from the agent", flag)
		}
		return ordered, nil
	}
	sub := p.Subscription.ID
	if want := ask.ExpectSubscription; want != "" && !strings.EqualFold(want, sub.String()) {
		return fault.New(fault.NotForUs, "the request expects subscription %s, --subscription says %s (%q)", want, sub, p.Subscription.Name).
			Hint("azs-relay register … --subscription %s", want)
	}
	standard := ""
	if ask.CloudID != "" {
		standard = "AzureStack-" + ask.CloudID
	}
	name, err := pick("registration", "--name", o.Name, ask.ExpectRegistration, standard)
	if err != nil {
		return err
	}
	if name == "" {
		return fault.New(fault.Usage, "the registration token is opaque, so the registration needs a name").Hint("azs-relay register … --name NAME")
	}
	if o.NameSuffix != "" {
		name += "-" + o.NameSuffix
	}
	group, err := pick("resource group", "--group", o.Group, ask.ExpectResourceGroup, "azurestack")
	if err != nil {
		return err
	}
	g, err := sub.Group(group)
	if err != nil {
		return err
	}
	p.ID, err = g.Registration(name)
	return err
}

// survey reads provider, group and registrations.
func (r *Relay) survey(ctx context.Context, p *Plan, o Order) error {
	sub := p.Subscription.ID
	state, err := r.Azure.Provider(ctx, sub)
	if err != nil {
		return err
	}
	p.waitProvider = !strings.EqualFold(string(state), string(azure.Registered))
	p.registerProvider = p.waitProvider && !strings.EqualFold(string(state), string(azure.Registering))
	if p.registerProvider && o.NoProviderRegister {
		return fault.New(fault.Permanent, "provider Microsoft.AzureStack is %s in subscription %s, and --no-provider-register forbids registering it", state, sub)
	}
	_, there, err := r.Azure.Group(ctx, p.ID.Group())
	if err != nil {
		return err
	}
	if !there {
		p.createGroup = true
		locations, err := r.Azure.Locations(ctx, sub)
		if err != nil {
			return err
		}
		want := o.Location
		if want == "" {
			want = r.Azure.Cloud().DefaultLocation
		}
		if p.location, err = azure.ChooseLocation(locations, want); err != nil {
			return err
		}
	}
	if p.waitProvider {
		return nil // a subscription without the provider holds no registration, and cannot list any
	}
	all, err := r.Azure.Registrations(ctx, sub)
	if err != nil {
		return err
	}
	return p.judge(all)
}

// judge compares with the registrations that stand already. Only a cloud id that
// Azure tells can be that of the stamp: a registration without one is nobody's.
func (p *Plan) judge(all []azure.Registration) error {
	cloudID := p.Job.Ask.CloudID
	for _, reg := range all {
		same := reg.CloudID != "" && strings.EqualFold(reg.CloudID, cloudID)
		here := reg.ID.Same(p.ID)
		switch {
		case here && !same && reg.CloudID != "" && cloudID != "":
			return fault.New(fault.Permanent, "the name %q is that of another stamp: its cloud id is %q, the request is for %q", reg.ID.Name(), reg.CloudID, cloudID).
				Hint("azs-relay register … --name AzureStack-%s", cloudID)
		case here && reg.CloudID == "":
			p.warn("registration %q exists and does not tell its cloud id", reg.ID.Name())
		case same && p.renewing() && p.Old != nil:
			return fault.New(fault.Permanent, "the stamp with cloud id %q is registered twice, as %s and as %s: which one is old cannot be told", cloudID, p.Old.ID, reg.ID).
				Hint("azs-relay unregister --name NAME --group GROUP --subscription %s --force   # of the one that the stamp does not use", p.ID.Subscription())
		case same && p.renewing():
			p.Old = &reg
		case same && !here:
			return fault.New(fault.Permanent, "the stamp with cloud id %q is registered already as %s", cloudID, reg.ID).
				Hint("azs-relay register … --name %s --group %s   (updates it in place), or deactivate the stamp and unregister it first", reg.ID.Name(), reg.ID.Group().Name())
		}
	}
	return nil
}

// elsewhere looks for the old registration of a renewal in another subscription:
// the one that the operator names, else the one of the stamp's last trip.
func (r *Relay) elsewhere(ctx context.Context, p *Plan) error {
	if !p.renewing() || p.Old != nil {
		return nil
	}
	cloudID := p.Job.Ask.CloudID
	if from := p.order.FromSubscription; from != "" {
		sub, err := r.Azure.Subscription(ctx, from)
		if err != nil {
			return err
		}
		all, err := r.Azure.Registrations(ctx, sub.ID)
		if err != nil {
			return err
		}
		for _, reg := range all {
			if reg.CloudID != "" && strings.EqualFold(reg.CloudID, cloudID) {
				p.Old = &reg
				return nil
			}
		}
		p.warn("subscription %s (%q) holds no registration of cloud id %q", sub.ID, sub.Name, cloudID)
		return nil
	}
	last, ok := r.lastPlace(p.Job)
	if !ok || last.Subscription() == p.ID.Subscription() {
		return nil // the list of this subscription did not have it
	}
	reg, there, err := r.Azure.Registration(ctx, last)
	if err != nil || !there {
		return err
	}
	if reg.CloudID == "" || !strings.EqualFold(reg.CloudID, cloudID) {
		p.warn("%s does not say that it is of cloud id %q and is left alone", last, cloudID)
		return nil
	}
	p.Old = &reg
	return nil
}

// lastPlace is where the stamp of a job was registered last, as far as the
// journal knows.
func (r *Relay) lastPlace(j *Job) (id azure.RegistrationID, ok bool) {
	for _, s := range Stamps(r.Ledger) {
		if !strings.EqualFold(s.CloudID, j.Ask.CloudID) || s.RegistrationID == "" {
			continue
		}
		if got, err := azure.ParseRegistrationID(s.RegistrationID); err == nil {
			return got, true
		}
	}
	return id, false
}

// renewal decides how a renewal goes, and says which way it takes. Azure wants a
// new unique name after the yearly term of a Capacity registration, unless the
// expired one was deleted first.
func (r *Relay) renewal(ctx context.Context, p *Plan) (err error) {
	if !p.renewing() {
		return nil
	}
	if p.order.InPlace {
		switch {
		case p.Old == nil:
			return fault.New(fault.Permanent, "no registration of cloud id %q stands as %s, so none can be updated in place", p.Job.Ask.CloudID, p.ID).
				Hint("azs-relay register REQUEST   # without --in-place")
		case !p.Old.ID.Same(p.ID):
			return fault.New(fault.NotForUs, "the stamp is registered as %s and the request is for %s: only the same name and group can be updated in place", p.Old.ID, p.ID).
				Hint("azs-relay register REQUEST   # without --in-place")
		}
		p.note("registration %s is updated in place: its name, group and cloud id are the same", p.ID)
		if strings.EqualFold(p.Job.Ask.BillingModel, "Capacity") {
			p.warn("a Capacity registration whose yearly term has ended cannot be updated in place: it has to be deleted, or to get a new name")
		}
		p.Old = nil
		return nil
	}
	switch {
	case p.Old == nil:
		p.note("no old registration of cloud id %q was found: nothing is deleted", p.Job.Ask.CloudID)
		return nil
	case p.order.NameSuffix != "":
		p.note("the old registration %s is deleted, and the new one gets the unique name %s", p.Old.ID, p.ID.Name())
	case p.Old.ID.Same(p.ID):
		p.note("the old registration is deleted first, so that its name %s may be used again", p.ID.Name())
	default:
		p.note("the old registration %s is deleted first, the new one is %s", p.Old.ID, p.ID)
	}
	if was, is := p.Old.BillingModel, p.Job.Ask.BillingModel; was != "" && is != "" && !strings.EqualFold(was, is) {
		p.note("the billing model changes from %s to %s", was, is)
	}
	if was, is := p.Old.ID.Subscription(), p.ID.Subscription(); was != is {
		p.note("the subscription changes from %s to %s", was, is)
	}
	_, p.oldLocked, err = r.Azure.Lock(ctx, p.Old.ID)
	return err
}

// registerSteps lists what is left to do, in its order: what can fail without
// loss comes before the old registration is deleted.
func (r *Relay) registerSteps(p *Plan) error {
	q, j := r.Requests, p.Job
	if p.registerProvider {
		p.call(q.RegisterProvider(p.Subscription.ID), func(ctx context.Context, _ *Outcome) error {
			_, err := r.Azure.RegisterProvider(ctx, p.Subscription.ID)
			return err
		})
	}
	if p.waitProvider {
		p.here(func(ctx context.Context, _ *Outcome) error { return r.awaitProvider(ctx, p) },
			"wait until provider Microsoft.AzureStack is registered, and look whether the stamp is registered already")
	}
	if p.createGroup {
		p.call(q.CreateGroup(p.ID.Group(), p.location), func(ctx context.Context, _ *Outcome) error {
			_, err := r.Azure.CreateGroup(ctx, p.ID.Group(), p.location)
			return err
		})
	}
	if p.renewing() && !p.order.InPlace {
		r.removeSteps(p)
	}
	if !isRegistered(j.Known.State) {
		p.call(q.PutRegistration(p.ID, j.Token.Text), func(ctx context.Context, _ *Outcome) error { return r.put(ctx, p) })
	}
	if p.lock && j.Known.Data[dataLocked] != "true" {
		p.call(q.PutLock(p.ID), r.locked)
	}
	sealed, err := r.kept(j)
	if err != nil {
		return err
	}
	if sealed != nil {
		p.here(func(_ context.Context, out *Outcome) error { return r.adopt(j, sealed, out) }, "take up the answer that an earlier run has sealed")
		return nil
	}
	p.call(q.ActivationKey(p.ID), func(ctx context.Context, out *Outcome) (err error) {
		out.Key, err = r.PlainKey(ctx, p.ID)
		return err
	})
	var reg azure.Registration
	p.call(q.Registration(p.ID), func(ctx context.Context, _ *Outcome) (err error) {
		reg, err = r.Azure.ReadBack(ctx, p.ID, j.Ask.CloudID)
		return err
	})
	purpose := "check the activation key and write its digest down"
	if j.Peer != nil {
		purpose = fmt.Sprintf("check the activation key and seal it for agent %q", j.Peer.Label())
	}
	p.here(func(_ context.Context, out *Outcome) error {
		if err := r.keyed(p, out.Key); err != nil {
			return err
		}
		out.Warnings = append(out.Warnings, out.Key.Warnings...)
		if j.Peer == nil {
			_, err := r.Ledger.Append(ledger.Answered, j.Trip, nil)
			return err
		}
		content, locked := r.content(p), p.lock && out.Unlocked == nil
		content.BillingModel, content.Locked = reg.BillingModel, &locked
		content.KeyExpires, content.KeySHA256 = out.Key.Claims.ExpiresText, bundle.Digest(out.Key.Digest)
		return r.answer(j, content, []byte(out.Key.Text.Reveal()), answerFile(j), out)
	}, "%s", purpose)
	return nil
}

// awaitProvider waits for the provider, and looks at the registrations that it
// can list from then on.
func (r *Relay) awaitProvider(ctx context.Context, p *Plan) error {
	if err := r.Azure.WaitProvider(ctx, p.Subscription.ID); err != nil {
		return err
	}
	all, err := r.Azure.Registrations(ctx, p.Subscription.ID)
	if err != nil {
		return err
	}
	old := p.Old
	if err := p.judge(all); err != nil {
		return err
	}
	if p.Old != old { // found only now: the plan did not show that it would be deleted
		return fault.New(fault.Permanent, "the stamp with cloud id %q is registered already as %s, which could not be read before", p.Job.Ask.CloudID, p.Old.ID).
			Hint("the same command again: it shows what it will delete")
	}
	return nil
}

// put registers, and journals what a later run must not do again.
func (r *Relay) put(ctx context.Context, p *Plan) error {
	reg, err := r.Azure.PutRegistration(ctx, p.ID, p.Job.Token.Text)
	if err != nil {
		return err
	}
	_, err = r.Ledger.Append(ledger.Registered, p.Job.Trip, map[string]string{
		dataRegistrationID: p.ID.String(), dataSubscription: p.Subscription.ID.String(), dataTenant: p.Subscription.TenantID, dataObjectID: reg.ObjectID,
	})
	return err
}

// Done gives the answer of an earlier run again, if there is one, without asking
// Azure. The registration must lie where the order says.
func (r *Relay) Done(j *Job, o Order) (*Outcome, error) {
	d := j.Known.Data
	if j.Peer == nil || (j.Known.State != ledger.Answered && j.Known.State != ledger.Closed) {
		return nil, nil
	}
	id, err := azure.ParseRegistrationID(d[dataRegistrationID])
	if err != nil {
		return nil, err
	}
	for _, c := range []struct{ flag, got, want string }{
		{"--subscription", o.Subscription, id.Subscription().String()}, {"--group", o.Group, id.Group().Name()}, {"--name", o.Name, id.Name()},
	} {
		// A subscription given by its display name cannot be compared without Azure.
		_, notID := azure.ParseSubscriptionID(c.got)
		if c.got == "" || strings.EqualFold(c.got, c.want) || (c.flag == "--subscription" && notID != nil) || j.Ask.Operation == bundle.Unregister {
			continue
		}
		return nil, fault.New(fault.NotForUs, "request %s was registered already with %s %q, not %q", j.Trip, c.flag, c.want, c.got).
			Hint("azs-relay register … %s %q", c.flag, c.want)
	}
	raw, err := r.Ledger.Kept(d[dataAnswerFile])
	if err != nil {
		return nil, err
	}
	sealed, err := r.ours(raw, j)
	if err != nil {
		return nil, err
	}
	return &Outcome{Trip: j.Trip, Answer: sealed, File: d[dataAnswerFile], ID: id, Removed: d[dataOld], Again: true}, nil
}

// Relock tries to lock the registration of an answered job that has no lock yet.
func (r *Relay) Relock(ctx context.Context, out *Outcome, o Order) error {
	t, _ := r.Ledger.Trip(out.Trip)
	if o.NoLock || t.Data[dataLocked] == "true" {
		return nil
	}
	return r.locked(ctx, out)
}

// Unfinished reports whether an answered trip still lacks its lock.
func (r *Relay) Unfinished(trip string) bool {
	t, _ := r.Ledger.Trip(trip)
	return t.Data[dataLocked] == "false"
}

// locked locks the registration. A lock that fails never loses the registration:
// the reason goes into the outcome and the journal, and the work goes on.
func (r *Relay) locked(ctx context.Context, out *Outcome) error {
	_, err := r.Azure.PutLock(ctx, out.ID)
	switch {
	case err == nil:
		_, err = r.Ledger.Append("locked", out.Trip, map[string]string{dataLocked: "true"})
		return err
	case ctx.Err() != nil:
		return err
	}
	out.Unlocked = err
	_, jerr := r.Ledger.Append("failed", out.Trip, map[string]string{dataLocked: "false", dataReason: ledger.Clean(err.Error())})
	return jerr
}

// Skew tells how far our clock may be ahead of the agent's at the most: the
// request was made before it came.
func Skew(j *Job) string {
	if j.Manifest == nil {
		return ""
	}
	return fmt.Sprintf("the request says it was made on %s; this clock said %s when it came", clock.Format(j.Manifest.Created), clock.Format(j.Received))
}
