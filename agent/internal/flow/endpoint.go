package flow

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/pep"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Endpoint is the privileged endpoint as [Source] and [Sink]. It opens one session
// when it needs one; Close ends it.
type Endpoint struct {
	Options    pep.Options
	Parameters pep.TokenParameters // of a token; validated before a session is opened
	Wait       time.Duration       // how long to wait for a stamp that is busy; 0 is not at all
	Assume     string              // what became of an activation whose end nobody saw: "", "applied", "failed"
	Tell       func(sentence string)

	session *pep.Session
	stamp   pep.Stamp
}

// Session opens the session and asks the stamp who it is, once.
func (e *Endpoint) Session(ctx context.Context) (*pep.Session, pep.Stamp, error) {
	var err error
	if e.session == nil {
		if e.session, err = pep.Open(ctx, e.Options); err != nil {
			return nil, pep.Stamp{}, err
		}
	}
	if e.stamp.CloudID == "" {
		e.stamp, err = e.session.Stamp(ctx)
	}
	return e.session, e.stamp, err
}

// Close ends the session, if there is one.
func (e *Endpoint) Close(ctx context.Context) {
	if e.session == nil {
		return
	}
	if err := e.session.Close(ctx); err != nil && e.Tell != nil {
		e.Tell("the session could not be ended and times out on the endpoint within an hour: " + err.Error())
	}
	e.session = nil
}

// Token makes a registration token on the stamp.
func (e *Endpoint) Token(ctx context.Context) (*official.Token, Stamp, error) {
	if err := e.Parameters.Validate(); err != nil {
		return nil, Stamp{}, err
	}
	s, st, err := e.Session(ctx)
	if err != nil {
		return nil, Stamp{}, err
	}
	if err := e.patiently(ctx, func() error { return s.SetKeyPair(ctx, st) }); err != nil {
		return nil, Stamp{}, err
	}
	var text secret.Text
	var version string
	err = e.patiently(ctx, func() (err error) { text, version, err = s.NewToken(ctx, st, e.Parameters); return })
	if err != nil {
		return nil, Stamp{}, err
	}
	t, err := official.ReadToken([]byte(text.Reveal()))
	return t, Stamp{CloudID: st.CloudID, Version: st.Version.String(), Nodes: st.Nodes, TokenVersion: version}, err
}

// Check asks the stamp who it is: the key must be for it.
func (e *Endpoint) Check(ctx context.Context, cloudID string, _ secret.Text) error {
	_, st, err := e.Session(ctx)
	if err != nil {
		return err
	}
	if !strings.EqualFold(st.CloudID, cloudID) {
		return fault.New(fault.NotForUs, "the activation key is for the stamp with cloud id %q, the privileged endpoint is that of %q", cloudID, st.CloudID).
			Hint("azs-agent info --pep …   shows the stamp")
	}
	return nil
}

// Apply activates the stamp. An activation that an earlier run began and lost is
// taken up first; if its end cannot be learned, nothing is activated until the
// operator says what became of it.
func (e *Endpoint) Apply(ctx context.Context, key secret.Text, past Past) (string, error) {
	if past.Outcome == bundle.OutcomeApplied {
		return bundle.OutcomeApplied, nil
	}
	if past.Attempt != nil {
		applied, err := e.recover(ctx, past)
		if err != nil || applied {
			return bundle.OutcomeApplied, err
		}
	}
	s, _, err := e.Session(ctx)
	if err != nil {
		return "", err
	}
	err = e.patiently(ctx, func() error {
		err := s.NewActivation(ctx, key, pep.Watch{Progress: e.Tell, Begin: func(a pep.Attempt) error {
			return past.Note(map[string]string{"address": a.Address, "session": a.Session, "shell": a.Shell, "pool": a.Pool, "pipeline": a.Pipeline})
		}})
		if err == nil || pep.OutcomeUnknown(err) {
			return err
		}
		if jerr := past.Note(nil); jerr != nil { // it failed, and that is known
			return jerr
		}
		return err
	})
	if pep.OutcomeUnknown(err) {
		// Not wrapped: also where the operator stopped it, that is what he must know.
		return "", fault.New(fault.Unreachable, "it is not known whether the stamp was activated: %v", err).
			Hint("the same command again: it asks the endpoint first")
	}
	return bundle.OutcomeApplied, err
}

// recover learns what became of an activation that an earlier run began.
func (e *Endpoint) recover(ctx context.Context, past Past) (applied bool, err error) {
	a := pep.Attempt{Address: past.Attempt["address"], Session: past.Attempt["session"], Shell: past.Attempt["shell"], Pool: past.Attempt["pool"], Pipeline: past.Attempt["pipeline"]}
	switch e.Assume {
	case "applied":
		pep.Discard(ctx, e.Options, a)
		return true, nil
	case "failed":
		pep.Discard(ctx, e.Options, a)
		return false, past.Note(nil)
	}
	e.tell("an earlier run began an activation on " + a.Address + " and did not see its end: taking it up")
	err = pep.Follow(ctx, e.Options, a, "New-AzureStackActivation", pep.Watch{Progress: e.Tell})
	switch {
	case err == nil:
		// It came to its end without an error that this run could see; an error that
		// the lost run was already sent is the one thing that is not known.
		e.tell("that activation has come to its end")
	case ctx.Err() != nil:
		return false, err
	case pep.IsRemote(err) && !pep.OutcomeUnknown(err):
		e.tell("that activation failed: " + err.Error())
		return false, past.Note(nil)
	}
	reason := "its session has ended with nothing more to read"
	if err != nil {
		reason = err.Error()
	}
	return false, fault.New(fault.Unreachable, "it is not known whether the stamp was activated by the earlier run: %s", reason).
		Hint("look at Region management > Properties in the administrator portal, then the same command with --assume applied or --assume failed")
}

func (e *Endpoint) tell(sentence string) {
	if e.Tell != nil {
		e.Tell(sentence)
	}
}

// busyPause is how long a busy stamp is left alone at most before the next attempt.
const busyPause = time.Minute

// patiently repeats f while the stamp is busy, as long as the operator allows.
func (e *Endpoint) patiently(ctx context.Context, f func() error) error {
	for left := e.Wait; ; {
		err := f()
		if err == nil || !pep.Busy(err) || left <= 0 {
			return err
		}
		pause := min(busyPause, left)
		left -= pause
		e.tell("the stamp is busy with another action; next attempt in " + pause.String())
		if err := e.Options.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// Remembered is what the last registration of a stamp was made with.
func Remembered(l *ledger.Ledger, cloudID string) (TokenOrder, pep.TokenParameters, bool) {
	var o TokenOrder
	var p pep.TokenParameters
	found := false
	for _, t := range l.Trips() {
		d := t.Data
		if (t.State != ledger.Applied && t.State != ledger.Confirmed) || d[dataOperation] == bundle.Unregister ||
			(cloudID != "" && !strings.EqualFold(d[dataCloudID], cloudID)) {
			continue
		}
		found = true
		usage := d[dataUsage] == "true"
		o = TokenOrder{CloudID: d[dataCloudID], Registration: d[dataRegistration], ResourceGroup: d[dataGroup], ExpectSubscription: d[dataSubscription]}
		p = pep.TokenParameters{BillingModel: d[dataBilling], AgreementNumber: d[dataAgreement], UsageReporting: usage, MsAssetTag: d[dataAssetTag]}
	}
	return o, p, found
}

// Grown compares what the stamp last told with what it was registered with. It
// returns a sentence when the stamp must be registered anew, or "".
func Grown(l *ledger.Ledger, t ledger.Trip) string {
	registered, _ := strconv.Atoi(t.Data[dataNodes])
	if (t.State != ledger.Applied && t.State != ledger.Confirmed) || registered == 0 || t.Data[dataOperation] == bundle.Unregister {
		return ""
	}
	now := 0
	for _, e := range l.Entries() {
		if e.Event == "stamp-info" && strings.EqualFold(e.Data[dataCloudID], t.Data[dataCloudID]) {
			now, _ = strconv.Atoi(e.Data[dataNodes])
		}
	}
	if now == 0 || now == registered {
		return ""
	}
	return "registered with " + strconv.Itoa(registered) + " nodes and has " + strconv.Itoa(now) + " now: azs-agent renew --pep …"
}

// NoteStamp journals what the stamp told about itself.
func NoteStamp(l *ledger.Ledger, st pep.Stamp) error {
	_, err := l.Append("stamp-info", "", map[string]string{dataCloudID: ledger.Clean(st.CloudID), dataVersion: st.Version.String(), dataNodes: strconv.Itoa(st.Nodes)})
	return err
}

// deactivated reports whether the journal says that the stamp's activation was
// removed after the last time that one was applied.
func deactivated(l *ledger.Ledger, cloudID string) bool {
	removed := false
	for _, e := range l.Entries() {
		switch {
		case e.Event == "deactivated" && strings.EqualFold(e.Data[dataCloudID], cloudID):
			removed = true
		case e.Event == ledger.Applied:
			if t, _ := l.Trip(e.Trip); strings.EqualFold(t.Data[dataCloudID], cloudID) && t.Data[dataOperation] != bundle.Unregister {
				removed = false
			}
		}
	}
	return removed
}

// remove removes the activation from the stamp, unless the journal says that an
// earlier run did.
func (a *Agent) remove(ctx context.Context, e *Endpoint) (pep.Stamp, error) {
	s, st, err := e.Session(ctx)
	if err != nil || deactivated(a.Ledger, st.CloudID) {
		return st, err
	}
	if err := e.patiently(ctx, func() error { return s.RemoveActivation(ctx, pep.Watch{Progress: e.Tell}) }); err != nil {
		return st, err
	}
	_, err = a.Ledger.Append("deactivated", "", map[string]string{dataCloudID: st.CloudID})
	return st, err
}

// Deactivate removes the stamp's activation and makes the request that lets the
// relay delete the registration.
func (a *Agent) Deactivate(ctx context.Context, e *Endpoint, o TokenOrder) (*Request, error) {
	peer, err := a.relay(o.Relay)
	if err != nil {
		return nil, err
	}
	st, err := a.remove(ctx, e)
	if err != nil {
		return nil, err
	}
	known, params, _ := Remembered(a.Ledger, st.CloudID)
	return a.request(peer, &bundle.Request{
		Operation: bundle.Unregister, CloudID: st.CloudID, StampVersion: st.Version.String(), Nodes: st.Nodes, BillingModel: params.BillingModel,
		ExpectSubscription:  strings.ToLower(first(o.ExpectSubscription, known.ExpectSubscription)),
		ExpectResourceGroup: first(o.ResourceGroup, known.ResourceGroup, "azurestack"),
		ExpectRegistration:  first(o.Registration, known.Registration, "AzureStack-"+st.CloudID),
		Note:                o.Note,
	}, nil, o)
}

// Renew removes the stamp's activation and makes a request with a new token, with
// the values of the last registration where the order has none.
func (a *Agent) Renew(ctx context.Context, e *Endpoint, o TokenOrder) (*Request, error) {
	if _, err := a.relay(o.Relay); err != nil {
		return nil, err
	}
	known, params, ok := Remembered(a.Ledger, o.CloudID)
	if !ok && e.Parameters.BillingModel == "" {
		return nil, fault.New(fault.Usage, "no earlier registration of this stamp is remembered").
			Hint("azs-agent renew --pep … --billing-model Capacity --agreement-number NUMBER")
	}
	e.Parameters.BillingModel = first(e.Parameters.BillingModel, params.BillingModel)
	if o.UsageReporting == nil && strings.EqualFold(e.Parameters.BillingModel, params.BillingModel) {
		e.Parameters.UsageReporting = params.UsageReporting // which another model may not allow
	}
	e.Parameters.AgreementNumber = first(e.Parameters.AgreementNumber, params.AgreementNumber)
	e.Parameters.MsAssetTag = first(e.Parameters.MsAssetTag, params.MsAssetTag)
	if err := e.Parameters.Validate(); err != nil {
		return nil, err
	}
	if _, err := a.remove(ctx, e); err != nil {
		return nil, err
	}
	o.Operation = bundle.Renew
	o.Registration = first(o.Registration, known.Registration)
	o.ResourceGroup = first(o.ResourceGroup, known.ResourceGroup)
	o.ExpectSubscription = first(o.ExpectSubscription, known.ExpectSubscription)
	return a.Token(ctx, e, o)
}

// ActivateKey hands a plain key file of the official scripts to the endpoint. There
// is no request to compare it with: the key must be for the stamp, and not
// expired.
func (a *Agent) ActivateKey(ctx context.Context, raw []byte, e *Endpoint) (*official.Key, error) {
	if err := a.Policy.CheckNone("azs-agent", "the activation with a plain key"); err != nil {
		return nil, err
	}
	key, err := official.ReadKey(raw)
	if err != nil {
		return nil, err
	}
	_, st, err := e.Session(ctx)
	if err != nil {
		return nil, err
	}
	if err := key.Check(official.Want{CloudID: st.CloudID}, a.Clock.Now()); err != nil {
		return nil, err
	}
	digest := bundle.Digest(key.Digest).String()
	var past Past
	for _, entry := range a.Ledger.Entries() {
		if entry.Event != "activating" || entry.Trip != "" || entry.Data[dataKey] != digest {
			continue
		}
		past.Outcome, past.Attempt = entry.Data[dataOutcome], nil
		if entry.Data[dataAttempt] == "open" {
			past.Attempt = attempt(entry.Data)
		}
	}
	note := func(data map[string]string) error {
		data[dataKey], data[dataCloudID] = digest, st.CloudID
		_, err := a.Ledger.Append("activating", "", data)
		return err
	}
	past.Note = func(attempt map[string]string) error { return note(attemptData(attempt)) }
	outcome, err := e.Apply(ctx, key.Text, past)
	if err != nil {
		return nil, err
	}
	return key, note(map[string]string{dataAttempt: "ended", dataOutcome: outcome})
}

// attemptData spells an attempt for the journal; nil is one that ended.
func attemptData(attempt map[string]string) map[string]string {
	data := map[string]string{dataAttempt: "ended"}
	if attempt != nil {
		data[dataAttempt] = "open"
	}
	for k, v := range attempt {
		data[dataAttempt+"-"+k] = v
	}
	return data
}

// attempt reads what attemptData wrote.
func attempt(data map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range data {
		if name, ok := strings.CutPrefix(k, dataAttempt+"-"); ok {
			out[name] = v
		}
	}
	return out
}
