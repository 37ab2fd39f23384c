package flow

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// Target is where a registration moves.
type Target struct {
	Group        string
	Subscription string // id or name; "" is the one that it is in
}

// Move makes a job of the operator's wish to move a registration. A move of the
// same registration that was begun and not finished is taken up.
func (r *Relay) Move(o Order, to Target) (*Job, error) {
	if o.Name == "" || o.Subscription == "" || to.Group == "" {
		return nil, fault.New(fault.Usage, "move needs --name, --subscription and --to-group")
	}
	j := &Job{Received: r.Clock.Now(), To: to, Unapproved: r.Policy.CheckNone("azs-relay", "a move"), Ask: &bundle.Request{Operation: operationMove, ExpectRegistration: o.Name}}
	for _, t := range r.Ledger.Trips() {
		from, err := azure.ParseRegistrationID(t.Data[dataRegistrationID])
		if t.State != ledger.Moving || err != nil || !strings.EqualFold(from.Name(), o.Name) {
			continue
		}
		if o.Group == "" || strings.EqualFold(from.Group().Name(), o.Group) {
			j.Trip, j.Known, j.Ask.CloudID = t.ID, t, t.Data[dataCloudID]
			return j, nil
		}
	}
	id, err := bundle.NewID(r.Rand)
	j.Trip = id.String()
	return j, err
}

// planMove plans a move: validate, unlock, move, lock. What is unlocked is locked
// again in every outcome.
func (r *Relay) planMove(ctx context.Context, p *Plan) error {
	j := p.Job
	if err := r.subscription(ctx, p); err != nil {
		return err
	}
	if err := r.placeMove(ctx, p); err != nil {
		return err
	}
	if _, there, err := r.Azure.Group(ctx, p.To.Group()); err != nil {
		return err
	} else if !there {
		return fault.New(fault.Permanent, "resource group %q does not exist in subscription %s", p.To.Group().Name(), p.To.Subscription()).
			Hint("az group create --name %s --subscription %s --location LOCATION", p.To.Group().Name(), p.To.Subscription())
	}
	reg, there, err := r.Azure.Registration(ctx, p.ID)
	if err != nil {
		return err
	}
	if !there {
		if reg, there, err = r.Azure.Registration(ctx, *p.To); err != nil {
			return err
		}
		if !there || j.Known.State == "" {
			return fault.New(fault.Permanent, "there is no registration %s", p.ID).Hint("azs-relay list --subscription %s", p.ID.Subscription())
		}
		p.note("the move was done by an earlier run")
	}
	p.Old, j.Ask.CloudID = &reg, reg.CloudID
	if was, is := p.ID.Subscription(), p.To.Subscription(); was != is {
		p.warn("registrations move between subscriptions of the Cloud Solution Provider programme and of one partner only, by the documentation")
	}
	p.warn("the key that the stamp holds names the old place: it needs a new one after the move")
	if reg.ID.Same(p.ID) {
		if _, p.oldLocked, err = r.Azure.Lock(ctx, p.ID); err != nil {
			return err
		}
		r.moveSteps(p)
	}
	if p.lock {
		p.call(r.Requests.PutLock(*p.To), func(ctx context.Context, out *Outcome) error {
			out.ID = *p.To
			return r.locked(ctx, out)
		})
	}
	p.here(func(_ context.Context, out *Outcome) error {
		out.ID = *p.To
		if out.Unlocked != nil {
			return nil // the next run locks it
		}
		return r.endMove(p, true)
	}, "write down that registration %s is at %s", p.To.Name(), p.To.Group())
	return nil
}

// placeMove names both ends. Those of a move that was begun stay what they were.
func (r *Relay) placeMove(ctx context.Context, p *Plan) error {
	j := p.Job
	from, err := p.Subscription.ID.Group(orDefault(p.order.Group, "azurestack"))
	if err != nil {
		return err
	}
	if p.ID, err = from.Registration(j.Ask.ExpectRegistration); err != nil {
		return err
	}
	into := p.Subscription.ID
	if j.To.Subscription != "" {
		sub, err := r.Azure.Subscription(ctx, j.To.Subscription)
		if err != nil {
			return err
		}
		into = sub.ID
	}
	group, err := into.Group(j.To.Group)
	if err != nil {
		return err
	}
	to, err := group.Registration(p.ID.Name())
	if err != nil {
		return err
	}
	p.To = &to
	if d := j.Known.Data; j.Known.State != "" {
		if p.ID, err = azure.ParseRegistrationID(d[dataRegistrationID]); err != nil {
			return err
		}
		if !strings.EqualFold(d[dataMoveTo], to.String()) {
			return fault.New(fault.NotForUs, "a move of %s to %s was begun and not finished, and this one goes to %s", p.ID, d[dataMoveTo], to).
				Hint("azs-relay next")
		}
	}
	if p.ID.Same(to) {
		return fault.New(fault.Usage, "registration %s is where it should move", to)
	}
	return nil
}

func orDefault(s, standard string) string {
	if s == "" {
		return standard
	}
	return s
}

// moveSteps lists the steps of a move that has not come to its end. Azure may
// refuse to validate while the lock stands, which is what is taken off next: then
// it is asked again behind that.
func (r *Relay) moveSteps(p *Plan) {
	q, again := r.Requests, false
	validate := func(ctx context.Context) error { return r.Azure.ValidateMove(ctx, p.ID, p.To.Group()) }
	p.call(q.ValidateMove(p.ID, p.To.Group()), func(ctx context.Context, _ *Outcome) error {
		err := validate(ctx)
		var no *azure.Refusal
		switch {
		case err == nil:
			return nil
		case p.oldLocked && errors.As(err, &no) && strings.EqualFold(no.Code, "ScopeLocked"):
			again = true
			return nil
		case !p.oldLocked && p.Job.Known.Data[dataLocked] == "false":
			return r.relockAfter(ctx, p, err) // an earlier run had unlocked it
		case fault.KindOf(err) == fault.Permanent:
			return errors.Join(err, r.endMove(p, false))
		}
		return err
	})
	if p.oldLocked {
		p.call(q.DeleteLock(p.ID), func(ctx context.Context, _ *Outcome) error {
			// Before, not after: a run that is killed between the two has to be known.
			if _, err := r.Ledger.Append("unlocked", p.Job.Trip, map[string]string{dataLocked: "false"}); err != nil {
				return err
			}
			err := r.Azure.DeleteLock(ctx, p.ID)
			if err == nil && again {
				err = validate(ctx)
			}
			if err != nil {
				return r.relockAfter(ctx, p, err)
			}
			return nil
		})
	}
	p.call(q.Move(p.ID, p.To.Group()), func(ctx context.Context, _ *Outcome) error {
		if _, err := r.Azure.Move(ctx, p.ID, p.To.Group()); err != nil {
			return r.relockAfter(ctx, p, err)
		}
		_, err := r.Ledger.Append("moved", p.Job.Trip, map[string]string{dataMoved: "true"})
		return err
	})
}

// relockTime is how long a move that failed, or was stopped, tries to lock the
// registration again.
const relockTime = time.Minute

// relockAfter locks the registration again, wherever it is, after a move that did
// not come to its end, also when the operator stopped it.
func (r *Relay) relockAfter(ctx context.Context, p *Plan, cause error) error {
	if !p.lock {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relockTime)
	defer cancel()
	lock := func() error {
		at := p.ID
		if _, there, err := r.Azure.Registration(ctx, at); err != nil {
			return err
		} else if !there {
			at = *p.To
		}
		r.Say("lock %s again", at)
		_, err := r.Azure.PutLock(ctx, at)
		return err
	}
	if err := lock(); err != nil {
		return fault.New(fault.KindOf(cause), "%w; and the registration has no lock: %w", cause, err).
			Hint("the same command again: it locks the registration")
	}
	if _, err := r.Ledger.Append("locked", p.Job.Trip, map[string]string{dataLocked: "true"}); err != nil {
		return errors.Join(cause, err)
	}
	if fault.KindOf(cause) == fault.Permanent {
		return errors.Join(cause, r.endMove(p, false))
	}
	return cause
}

// endMove closes the trip of a move.
func (r *Relay) endMove(p *Plan, moved bool) error {
	data := map[string]string{dataMoved: "false"}
	if moved {
		data = map[string]string{dataMoved: "true"}
	}
	_, err := r.Ledger.Append(ledger.Closed, p.Job.Trip, data)
	return err
}
