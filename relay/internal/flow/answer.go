package flow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// answerFile names the answer to a request: after the request, so that there is
// never a second one.
func answerFile(j *Job) string {
	return medium.Name(string(bundle.KindAnswer), j.Manifest.Bundle.String())
}

// ours checks that a kept bundle is our answer to the job.
func (r *Relay) ours(raw []byte, j *Job) (*bundle.Bundle, error) {
	sealed, err := bundle.Split(raw)
	if err != nil {
		return nil, err
	}
	v, err := sealed.Verify(bundle.Expect{Signer: j.Peer.Own.Key, Pair: j.Peer.Pair,
		To: bundle.RecipientsFingerprint(j.Peer.Card.Recipients), Kinds: []bundle.Kind{bundle.KindAnswer}})
	if err != nil {
		return nil, err
	}
	if v.Manifest.Re != j.Digest {
		return nil, fault.New(fault.Refused, "kept answer %s is not for request %s", v.Manifest.Bundle, j.Trip)
	}
	return sealed, nil
}

// kept finds an answer that an earlier run had sealed and kept when it was
// killed, before it could journal it; nil when there is none.
func (r *Relay) kept(j *Job) (*bundle.Bundle, error) {
	if j.Peer == nil {
		return nil, nil
	}
	raw, err := r.Ledger.Kept(answerFile(j))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.ours(raw, j)
}

// adopt takes such an answer up.
func (r *Relay) adopt(j *Job, sealed *bundle.Bundle, out *Outcome) error {
	m, err := sealed.Peek()
	if err != nil {
		return err
	}
	out.Answer, out.File, out.Again = sealed, answerFile(j), true
	return r.answered(j, m, sealed, out.File)
}

// checkKey reads the activation key of a registration.
func checkKey(text secret.Text, id azure.RegistrationID) (*official.Key, error) {
	key, err := official.ReadKey([]byte(text.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("activation key of %s: %w", id, err)
	}
	return key, nil
}

// keyed compares the activation key with what was registered, and journals its
// digest and expiry before an answer is sealed, so that the journal knows the key
// of an answer that the next run finds.
func (r *Relay) keyed(p *Plan, key *official.Key) error {
	ask := p.Job.Ask
	if err := key.Check(official.Want{
		CloudID: ask.CloudID, RegistrationName: p.ID.Name(), ResourceGroup: p.ID.Group().Name(), SubscriptionID: p.ID.Subscription().String(),
		BillingModel: ask.BillingModel, UsageReporting: ask.UsageReporting, MarketplaceSyndication: ask.MarketplaceSyndication,
	}, r.Clock.Now()); err != nil {
		return err
	}
	return r.NoteKey(p.Job.Trip, key)
}

// NoteKey journals digest and expiry of a key that was fetched for a trip.
func (r *Relay) NoteKey(trip string, key *official.Key) error {
	_, err := r.Ledger.Append("key-fetched", trip, map[string]string{
		dataKey: bundle.Digest(key.Digest).String(), dataKeyExpires: key.Claims.ExpiresText,
	})
	return err
}

// content is what every answer says.
func (r *Relay) content(p *Plan) *bundle.Answer {
	j := p.Job
	return &bundle.Answer{
		Label: r.Identity.Card.Label, Operation: j.Ask.Operation, CloudID: j.Ask.CloudID,
		Cloud: r.Azure.Cloud().Name, Tenant: p.Subscription.TenantID, Subscription: p.ID.Subscription().String(),
		ResourceGroup: p.ID.Group().Name(), Registration: p.ID.Name(), RegistrationID: p.ID.String(),
		RequestCreated: j.Manifest.Created, RequestExpires: j.Manifest.Expires, Received: j.Received,
	}
}

// answer seals what was done, and the key, to the agent, and keeps it under a
// name of its own, or under its own id when file is "".
func (r *Relay) answer(j *Job, content *bundle.Answer, payload []byte, file string, out *Outcome) error {
	id, err := bundle.NewID(r.Rand)
	if err != nil {
		return err
	}
	seq, err := r.Ledger.AppendNext("sealing", j.Trip, j.Manifest.Pair.String(), nil)
	if err != nil {
		return err
	}
	out.Content = content
	sealed, err := r.Identity.Seal(*j.Peer, bundle.Draft{
		Bundle: id, Seq: seq, Re: j.Digest, Created: r.Clock.Now(), Expires: j.Manifest.Expires,
		Content: out.Content, Payload: payload,
	}, r.Rand)
	if err != nil {
		return err
	}
	m, err := sealed.Peek()
	if err != nil {
		return err
	}
	if file == "" {
		file = medium.Name(string(bundle.KindAnswer), id.String())
	}
	out.Answer, out.File = sealed, file
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
func (r *Relay) PlainKey(ctx context.Context, id azure.RegistrationID) (*official.Key, error) {
	text, err := r.Azure.ActivationKey(ctx, id)
	if err != nil {
		return nil, err
	}
	return checkKey(text, id)
}
