package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official"
)

// Plan is what is left to do for a job, after everything that can be read has
// been read. Making one changes nothing, here or there; carrying one out may be
// repeated after any failure or crash, and what is done is no longer in the next
// one.
type Plan struct {
	Job          *Job
	Subscription azure.Subscription
	ID           azure.RegistrationID  // what is registered, or of a removal what is removed
	Old          *azure.Registration   // what is removed, or moved; nil when there is nothing
	To           *azure.RegistrationID // where a move ends
	Steps        []Step
	Notes        []string // what was decided, and why
	Warnings     []string

	registerProvider, waitProvider, createGroup, lock bool
	oldLocked                                         bool
	order                                             Order
	location                                          string
}

// Step is one line of a plan: a call, or something that is done here.
type Step struct {
	Purpose string
	Request *azure.Request // nil for what is done here

	run func(context.Context, *Outcome) error // nil when the step before does it
}

// MarshalJSON returns {"purpose","request"}.
func (s Step) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Purpose string         `json:"purpose"`
		Request *azure.Request `json:"request,omitempty"`
	}{s.Purpose, s.Request})
}

// call adds a request to the plan, and do what sends it.
func (p *Plan) call(q azure.Request, do func(context.Context, *Outcome) error) {
	p.Steps = append(p.Steps, Step{q.Purpose, &q, do})
}

// here adds what is done without Azure, or what waits for it.
func (p *Plan) here(do func(context.Context, *Outcome) error, format string, args ...any) {
	p.Steps = append(p.Steps, Step{Purpose: fmt.Sprintf(format, args...), run: do})
}

// Writes are the calls of the plan that are no reads, in their order.
func (p *Plan) Writes() (all []azure.Request) {
	for _, s := range p.Steps {
		if s.Request != nil && s.Request.Method != "GET" {
			all = append(all, *s.Request)
		}
	}
	return all
}

// Print writes the plan as a numbered list, with every request as it will be
// sent but for the registration token, which is shown as its length and digest.
func (p *Plan) Print(w io.Writer) error {
	var b strings.Builder
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "# note: %s\n", n)
	}
	for i, s := range p.Steps {
		if s.Request == nil {
			fmt.Fprintf(&b, "# %d. %s\n", i+1, s.Purpose)
			continue
		}
		var text strings.Builder
		if err := s.Request.Print(&text); err != nil {
			return err
		}
		_, request, _ := strings.Cut(text.String(), "\n") // behind the purpose
		fmt.Fprintf(&b, "# %d. %s\n%s", i+1, s.Purpose, request)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Outcome is what a job led to.
type Outcome struct {
	Trip     string
	Content  *bundle.Answer // nil when an earlier answer is given again
	Answer   *bundle.Bundle // nil where no agent waits for one
	File     string         // the answer's name on a medium
	Key      *official.Key  // nil when an earlier answer is given again, and for a removal
	ID       azure.RegistrationID
	Removed  string // the id of the registration that was removed, "" when there was none
	Again    bool   // the answer was made by an earlier run
	Unlocked error  // why the registration has no lock; the rest is done
	Warnings []string
}

// Plan reads what stands in Azure and decides what is left to do. What the identity
// may not do of it is refused here, before anything is changed.
func (r *Relay) Plan(ctx context.Context, j *Job, o Order) (*Plan, error) {
	p := &Plan{Job: j, lock: !o.NoLock, order: o}
	plan := r.planRegister
	switch j.Ask.Operation {
	case bundle.Unregister:
		plan = r.planUnregister
	case operationMove:
		plan = r.planMove
	}
	if err := plan(ctx, p); err != nil {
		return nil, err
	}
	if err := r.Azure.CheckWrites(ctx, p.Writes()); err != nil {
		return nil, err
	}
	return p, nil
}

// Run carries a plan out. It may be called again, with a new plan, after any
// failure or crash.
func (r *Relay) Run(ctx context.Context, p *Plan) (*Outcome, error) {
	j := p.Job
	if err := r.admit(p); err != nil {
		return nil, err
	}
	out := &Outcome{Trip: j.Trip, ID: p.ID, Warnings: p.Warnings}
	var err error
	for i, s := range p.Steps {
		if s.run == nil {
			continue
		}
		r.Say("%d of %d: %s", i+1, len(p.Steps), s.Purpose)
		if err = s.run(ctx, out); err != nil {
			break
		}
	}
	if err == nil {
		return out, nil
	}
	if fault.KindOf(err) == fault.Permanent {
		if _, jerr := r.Ledger.Append("failed", j.Trip, map[string]string{dataReason: ledger.Clean(err.Error())}); jerr != nil {
			return nil, errors.Join(err, jerr)
		}
	}
	return nil, err
}

// Claim makes this run the only one at work on a job's trip and stamp, of all
// goroutines and of all hosts that share the state, and takes up what another one
// did meanwhile. What too few have approved is refused here, where doing begins. The work is done under the context that it returns; release is
// called with its error, which becomes the reason when the claim was lost.
func (r *Relay) Claim(ctx context.Context, j *Job) (held context.Context, release func(*error), err error) {
	keys := []string{"trip " + j.Trip}
	if j.Ask.CloudID != "" {
		keys = append(keys, "stamp "+strings.ToLower(j.Ask.CloudID))
	}
	held, free, err := r.Ledger.Claim(ctx, keys...)
	if err != nil {
		return nil, nil, err
	}
	if t, ok := r.Ledger.Trip(j.Trip); ok {
		j.Known = t
	}
	if j.Manifest != nil {
		err = r.current(j)
	}
	if err == nil {
		err = j.Unapproved
	}
	if err != nil {
		free()
		return nil, nil, err
	}
	return held, func(err *error) {
		if *err != nil && held.Err() != nil && ctx.Err() == nil {
			*err = context.Cause(held)
		}
		free()
	}, nil
}

// Handle does everything for a job: it gives an earlier answer again, or plans,
// asks approve (nil is yes) and runs. Many jobs may be handled at once through
// one relay, with one ledger and one client, and by several hosts that share
// their state.
func (r *Relay) Handle(ctx context.Context, j *Job, o Order, approve func(*Plan) error) (out *Outcome, err error) {
	ctx, release, err := r.Claim(ctx, j)
	if err != nil {
		return nil, err
	}
	defer release(&err)
	out, err = r.Done(j, o)
	if err != nil {
		return nil, err
	}
	if out != nil {
		if r.Unfinished(out.Trip) && r.Azure != nil {
			err = r.Relock(ctx, out, o)
		}
		return out, err
	}
	p, err := r.Plan(ctx, j, o)
	if err != nil {
		return nil, err
	}
	if approve != nil {
		if err := approve(p); err != nil {
			return nil, err
		}
	}
	return r.Run(ctx, p)
}
