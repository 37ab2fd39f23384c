package flow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Order is where the operator wants the registration. What the request expects
// must agree; what neither says has the official default.
type Order struct {
	Subscription       string // id or display name
	Name               string // "" is what the request expects, else AzureStack-<cloud id>
	Group              string // "" is what the request expects, else azurestack
	Location           string // of a group that must be created; "" is the cloud's default
	NoProviderRegister bool
	NoLock             bool
}

// Plan is where a job goes and what has to be sent for it, after everything that
// can be read has been read.
type Plan struct {
	Job          *Job
	Subscription azure.Subscription
	ID           azure.RegistrationID
	Writes       []azure.Request // exactly what Run will send
	Warnings     []string

	registerProvider, waitProvider, createGroup, lock bool
	location                                          string
}

// Plan reads what stands in Azure and decides what to send. It changes nothing,
// here or there.
func (r *Relay) Plan(ctx context.Context, j *Job, o Order) (*Plan, error) {
	want := o.Subscription
	if want == "" {
		want = j.Ask.ExpectSubscription
	}
	if want == "" {
		return nil, fault.New(fault.Usage, "neither the request nor the command says in which subscription to register").Hint("azs-relay register … --subscription SUBSCRIPTION")
	}
	p := &Plan{Job: j, lock: !o.NoLock}
	var err error
	if p.Subscription, err = r.Azure.Subscription(ctx, want); err != nil {
		return nil, err
	}
	if err := p.place(o); err != nil {
		return nil, err
	}
	if !p.Subscription.Enabled() {
		return nil, fault.New(fault.Permanent, "subscription %s (%q) is %s and takes no changes", p.Subscription.ID, p.Subscription.Name, p.Subscription.State)
	}
	if q := p.Subscription.QuotaID; q != "" && !strings.HasPrefix(q, "EnterpriseAgreement") {
		p.Warnings = append(p.Warnings, fmt.Sprintf("subscription %q is of offer %s; disconnected registration is documented for Enterprise Agreement only", p.Subscription.Name, q))
	}
	if err := r.survey(ctx, p, o); err != nil {
		return nil, err
	}
	p.write(r.Requests)
	return p, nil
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

// judge compares with the registrations that stand already.
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
			p.Warnings = append(p.Warnings, fmt.Sprintf("registration %q exists and does not tell its cloud id", reg.ID.Name()))
		case same && !here:
			return fault.New(fault.Permanent, "the stamp with cloud id %q is registered already as %s", cloudID, reg.ID).
				Hint("azs-relay register … --name %s --group %s   (updates it in place), or deactivate the stamp and unregister it first", reg.ID.Name(), reg.ID.Group().Name())
		}
	}
	return nil
}

// write lists the requests that Run sends, in its order.
func (p *Plan) write(q azure.Requests) {
	if p.registerProvider {
		p.Writes = append(p.Writes, q.RegisterProvider(p.Subscription.ID))
	}
	if p.createGroup {
		p.Writes = append(p.Writes, q.CreateGroup(p.ID.Group(), p.location))
	}
	p.Writes = append(p.Writes, q.PutRegistration(p.ID, p.Job.Token.Text))
	if p.lock {
		p.Writes = append(p.Writes, q.PutLock(p.ID))
	}
	p.Writes = append(p.Writes, q.ActivationKey(p.ID))
}

// Outcome is what a job led to.
type Outcome struct {
	Trip     string
	Content  *bundle.Answer // nil when an earlier answer is given again
	Answer   *bundle.Bundle // nil for a plain token file
	File     string         // the answer's name on a medium
	Key      *official.Key  // nil when an earlier answer is given again
	ID       azure.RegistrationID
	Again    bool  // the answer was made by an earlier run
	Unlocked error // why the registration has no lock; the rest is done
	Warnings []string
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
		if c.got == "" || strings.EqualFold(c.got, c.want) || (c.flag == "--subscription" && notID != nil) {
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
	return &Outcome{Trip: j.Trip, Answer: sealed, File: d[dataAnswerFile], ID: id, Again: true}, nil
}

// ours checks that a kept bundle is our answer to the job.
func (r *Relay) ours(raw []byte, j *Job) (*bundle.Bundle, error) {
	sealed, err := bundle.Split(raw)
	if err != nil {
		return nil, err
	}
	v, err := sealed.Verify(bundle.Expect{Signer: r.Identity.Card.Key, Pair: j.Peer.Pair,
		To: bundle.RecipientsFingerprint(j.Peer.Card.Recipients), Kinds: []bundle.Kind{bundle.KindAnswer}})
	if err != nil {
		return nil, err
	}
	if v.Manifest.Re != j.Digest {
		return nil, fault.New(fault.Refused, "kept answer %s is not for request %s", v.Manifest.Bundle, j.Trip)
	}
	return sealed, nil
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

// Run carries a plan out. It may be called again after any failure or crash.
func (r *Relay) Run(ctx context.Context, p *Plan) (*Outcome, error) {
	j := p.Job
	if err := r.admit(j); err != nil {
		return nil, err
	}
	out := &Outcome{Trip: j.Trip, ID: p.ID, Warnings: p.Warnings}
	if err := r.run(ctx, p, out); err != nil {
		if fault.KindOf(err) == fault.Permanent {
			if _, jerr := r.Ledger.Append("failed", j.Trip, map[string]string{dataReason: ledger.Clean(err.Error())}); jerr != nil {
				return nil, errors.Join(err, jerr)
			}
		}
		return nil, err
	}
	return out, nil
}

func (r *Relay) run(ctx context.Context, p *Plan, out *Outcome) error {
	j := p.Job
	if p.registerProvider {
		r.Say("register provider Microsoft.AzureStack in subscription %s", p.Subscription.ID)
		if _, err := r.Azure.RegisterProvider(ctx, p.Subscription.ID); err != nil {
			return err
		}
	}
	if p.waitProvider {
		r.Say("wait until provider Microsoft.AzureStack is registered")
		if err := r.Azure.WaitProvider(ctx, p.Subscription.ID); err != nil {
			return err
		}
		all, err := r.Azure.Registrations(ctx, p.Subscription.ID)
		if err != nil {
			return err
		}
		if err := p.judge(all); err != nil {
			return err
		}
	}
	if p.createGroup {
		r.Say("create resource group %s in %s", p.ID.Group().Name(), p.location)
		if _, err := r.Azure.CreateGroup(ctx, p.ID.Group(), p.location); err != nil {
			return err
		}
	}
	if err := r.put(ctx, p); err != nil {
		return err
	}
	if p.lock {
		if err := r.locked(ctx, out); err != nil {
			return err
		}
	}
	if adopted, err := r.adopt(j, out); adopted || err != nil {
		return err
	}
	r.Say("fetch the activation key")
	text, err := r.Azure.ActivationKey(ctx, p.ID)
	if err != nil {
		return err
	}
	r.Say("read the registration back")
	reg, err := r.Azure.ReadBack(ctx, p.ID, j.Ask.CloudID)
	if err != nil {
		return err
	}
	if out.Key, err = checkKey(text, p); err != nil {
		return err
	}
	out.Warnings = append(out.Warnings, out.Key.Warnings...)
	return r.answer(p, reg, out)
}

// put registers, unless the journal says that an earlier run did.
func (r *Relay) put(ctx context.Context, p *Plan) error {
	known := p.Job.Known
	if known.State == ledger.Registered || known.State == ledger.Answered || known.State == ledger.Closed {
		if !strings.EqualFold(known.Data[dataRegistrationID], p.ID.String()) {
			return fault.New(fault.NotForUs, "request %s was registered already as %s, not as %s", p.Job.Trip, known.Data[dataRegistrationID], p.ID)
		}
		return nil
	}
	r.Say("register %s in resource group %s of subscription %s (%q)", p.ID.Name(), p.ID.Group().Name(), p.Subscription.ID, p.Subscription.Name)
	reg, err := r.Azure.PutRegistration(ctx, p.ID, p.Job.Token.Text)
	if err != nil {
		return err
	}
	_, err = r.Ledger.Append(ledger.Registered, p.Job.Trip, map[string]string{
		dataRegistrationID: p.ID.String(), dataSubscription: p.Subscription.ID.String(), dataTenant: p.Subscription.TenantID, dataObjectID: reg.ObjectID,
	})
	return err
}

// locked locks the registration. A lock that fails never loses the registration:
// the reason goes into the outcome and the journal, and the work goes on.
func (r *Relay) locked(ctx context.Context, out *Outcome) error {
	r.Say("lock the registration against deletion")
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

// adopt takes up an answer that an earlier run had sealed and kept when it was
// killed, before it could journal it.
func (r *Relay) adopt(j *Job, out *Outcome) (bool, error) {
	if j.Peer == nil {
		return false, nil
	}
	name := answerFile(j)
	raw, err := r.Ledger.Kept(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sealed, err := r.ours(raw, j)
	if err != nil {
		return false, err
	}
	m, err := sealed.Peek()
	if err != nil {
		return false, err
	}
	out.Answer, out.File, out.Again = sealed, name, true
	return true, r.answered(j, m, sealed, name)
}

// answerFile names the answer to a request: after the request, so that there is
// never a second one.
func answerFile(j *Job) string {
	return medium.Name(string(bundle.KindAnswer), j.Manifest.Bundle.String())
}

// checkKey compares the activation key with what was registered.
func checkKey(text secret.Text, p *Plan) (*official.Key, error) {
	key, err := official.ReadKey([]byte(text.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("activation key of %s: %w", p.ID, err)
	}
	return key, nil
}

// answer seals what was done and the key to the agent.
func (r *Relay) answer(p *Plan, reg azure.Registration, out *Outcome) error {
	j, key := p.Job, out.Key
	now := r.Clock.Now()
	if err := key.Check(official.Want{
		CloudID: j.Ask.CloudID, RegistrationName: p.ID.Name(), ResourceGroup: p.ID.Group().Name(), SubscriptionID: p.Subscription.ID.String(),
		BillingModel: j.Ask.BillingModel, UsageReporting: j.Ask.UsageReporting, MarketplaceSyndication: j.Ask.MarketplaceSyndication,
	}, now); err != nil {
		return err
	}
	locked := p.lock && out.Unlocked == nil
	// Before the answer is sealed, so that the journal knows the key of an answer
	// that the next run finds.
	if _, err := r.Ledger.Append("key-fetched", j.Trip, map[string]string{
		dataKey: bundle.Digest(key.Digest).String(), dataKeyExpires: key.Claims.ExpiresText,
	}); err != nil {
		return err
	}
	if j.Peer == nil {
		_, err := r.Ledger.Append(ledger.Answered, j.Trip, nil)
		return err
	}
	id, err := bundle.NewID(r.Rand)
	if err != nil {
		return err
	}
	out.Content = &bundle.Answer{
		Label: r.Identity.Card.Label, Operation: j.Ask.Operation, CloudID: j.Ask.CloudID,
		Cloud: r.Azure.Cloud().Name, Tenant: p.Subscription.TenantID, Subscription: p.Subscription.ID.String(),
		ResourceGroup: p.ID.Group().Name(), Registration: p.ID.Name(), RegistrationID: p.ID.String(), BillingModel: reg.BillingModel,
		KeyExpires: key.Claims.ExpiresText, KeySHA256: bundle.Digest(key.Digest), Locked: &locked,
		RequestCreated: j.Manifest.Created, RequestExpires: j.Manifest.Expires, Received: j.Received,
	}
	sealed, err := r.Identity.Seal(*j.Peer, bundle.Draft{
		Bundle: id, Seq: r.Ledger.NextSeq(j.Manifest.Pair.String()), Re: j.Digest, Created: now, Expires: j.Manifest.Expires,
		Content: out.Content, Payload: []byte(key.Text.Reveal()),
	}, r.Rand)
	if err != nil {
		return err
	}
	m, err := sealed.Peek()
	if err != nil {
		return err
	}
	out.Answer, out.File = sealed, answerFile(j)
	if err := r.Ledger.Keep(out.File, sealed.Text()); err != nil {
		return err
	}
	return r.answered(j, m, sealed, out.File)
}

func (r *Relay) answered(j *Job, m *bundle.Manifest, sealed *bundle.Bundle, file string) error {
	_, err := r.Ledger.Append(ledger.Answered, j.Trip, map[string]string{
		dataAnswer: m.Bundle.String(), dataAnswerDigest: sealed.Digest().String(), dataAnswerFile: file,
		dataPair: m.Pair.String(), dataSeqOut: strconv.FormatUint(m.Seq, 10),
	})
	return err
}

// PlainKey gives the activation key once more for a plain file, after an earlier
// run answered.
func (r *Relay) PlainKey(ctx context.Context, p *Plan) (*official.Key, error) {
	text, err := r.Azure.ActivationKey(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	return checkKey(text, p)
}

// Skew tells how far our clock may be ahead of the agent's at the most: the
// request was made before it came.
func Skew(j *Job) string {
	if j.Manifest == nil {
		return ""
	}
	return fmt.Sprintf("the request says it was made on %s; this clock said %s when it came", clock.Format(j.Manifest.Created), clock.Format(j.Received))
}
