package azuretest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Moves says how long the long operations take and who may move a registration
// into another subscription.
type Moves struct {
	// Polls is how many answers of 202 the caller gets at the Location before
	// the end. Nothing here takes time: polls, and calls that the operation
	// stands in the way of, let it go on.
	Polls int
	// RetryAfter is the Retry-After of a 202 in seconds; the default is 15,
	// Resource Manager's own.
	RetryAfter int
	// AcrossSubscriptions lets every pair of subscriptions of one tenant
	// exchange registrations. Without it both must be CSP subscriptions
	// (quotaId CSP_…) with the same PartnerID, the published rule of Azure
	// Stack Hub.
	AcrossSubscriptions bool
}

// WithMoves sets how moves behave; without it they end at the first poll.
func WithMoves(m Moves) Option { return func(s *Server) { s.moves = m } }

// longRun is an operation that was accepted and not ended yet, or has ended and
// keeps its answer.
type longRun struct {
	id     string
	polls  int
	groups []string // folded ids of the groups that take no changes meanwhile
	finish func() answer
	end    *answer // nil until it ended
}

// accept begins a long operation: 202 with a Location.
func (s *Server) accept(c *call, groups []string, finish func() answer) answer {
	for i := range groups {
		groups[i] = fold(groups[i])
	}
	run := &longRun{id: newGUID(), polls: s.moves.Polls, groups: groups, finish: finish}
	s.runs[run.id] = run
	return s.accepted(c.params["subscription"], run.id)
}

func (s *Server) accepted(subscription, id string) answer {
	wait := s.moves.RetryAfter
	if wait == 0 {
		wait = 15
	}
	q := url.Values{"api-version": {"2021-04-01"}}
	return answer{status: http.StatusAccepted, header: map[string]string{
		"Location":    s.URL + "/subscriptions/" + subscription + "/operationresults/" + id + "?" + q.Encode(),
		"Retry-After": strconv.Itoa(wait)}}
}

// proceed is one step of a long operation, told by a poll.
func (r *longRun) proceed() {
	switch {
	case r.end != nil:
	case r.polls > 0:
		r.polls--
	default:
		a := r.finish()
		r.end = &a
	}
}

func (s *Server) operationResult(c *call) answer {
	run := s.runs[fold(c.params["operation"])]
	if run == nil {
		return fail(404, "OperationNotFound", "The operation '%s' could not be found.", c.params["operation"])
	}
	if run.proceed(); run.end == nil {
		return s.accepted(c.params["subscription"], run.id)
	}
	return *run.end
}

// busy refuses a change in a group in which a long operation works. That both
// groups of a move take no changes is documented; the code of the refusal is
// not, and a guess.
func (s *Server) busy(ids ...string) (answer, bool) {
	for _, run := range s.runs {
		for _, id := range ids {
			for _, g := range run.groups {
				if run.end != nil || g != fold(id) {
					continue
				}
				if run.proceed(); run.end == nil {
					return fail(409, "Conflict", "The resource group '%s' is locked by another operation that moves or deletes resources. Please try again when it has ended.", id[strings.LastIndexByte(id, '/')+1:]), true
				}
			}
		}
	}
	return answer{}, false
}

// plannedMove is the body of both calls, checked.
type plannedMove struct {
	regs   []*registration
	target *group
	sub    string // of the target
}

// planMove makes the checks that are made before 202 is answered.
func (s *Server) planMove(c *call) (plannedMove, answer, bool) {
	var p plannedMove
	var in struct {
		Resources           []string
		TargetResourceGroup string
	}
	if a, ok := c.decode(&in); !ok {
		return p, a, false
	}
	refuse := func(a answer) (plannedMove, answer, bool) { return p, a, false }
	target := strings.Split(strings.Trim(in.TargetResourceGroup, "/"), "/")
	if len(target) != 4 || fold(target[0]) != "subscriptions" || fold(target[2]) != "resourcegroups" || len(in.Resources) == 0 {
		return refuse(fail(400, "InvalidResourceMoveRequest", "The move request names no resources, or the target resource group '%s' is not a resource group.", in.TargetResourceGroup))
	}
	to := s.subs[fold(target[1])]
	if to == nil {
		return refuse(fail(404, "SubscriptionNotFound", "The subscription '%s' could not be found.", target[1]))
	}
	if !c.who.may("Microsoft.Resources/subscriptions/resourceGroups/write") {
		name, oid := s.caller(c)
		return refuse(fail(403, "LinkedAuthorizationFailed", "The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action(s) 'Microsoft.Resources/subscriptions/resourceGroups/write' on the linked scope(s) '%s' or the linked scope(s) are invalid.",
			name, oid, c.action(), c.scope(), in.TargetResourceGroup))
	}
	p.sub = to.ID
	if p.target = s.groups[fold(groupID(to.ID, target[3]))]; p.target == nil {
		return refuse(fail(404, "ResourceGroupNotFound", "Resource group '%s' could not be found.", target[3]))
	}
	source := groupID(c.params["subscription"], c.params["group"])
	if strings.EqualFold(source, p.target.ID) {
		return refuse(fail(400, "InvalidResourceMoveRequest", "The source and the target resource group are the same."))
	}
	for _, id := range in.Resources {
		r := s.regs[fold(id)]
		if r == nil || !strings.HasPrefix(fold(id), fold(source)+"/") {
			return refuse(fail(404, "ResourceNotFound", "The Resource '%s' was not found in resource group '%s'.", id, c.params["group"]))
		}
		// A move takes the resource away from its place: both levels stop it
		// there, and above it. At the target only ReadOnly does.
		if l := s.lockOver(r.id(), true); l != nil {
			return refuse(fail(409, "ScopeLocked", "%s", lockedText(r.id(), "move", l.scope)))
		}
		p.regs = append(p.regs, r)
	}
	if l := s.lockOver(p.target.ID, false); l != nil {
		return refuse(fail(409, "ScopeLocked", "%s", lockedText(p.target.ID, "write", l.scope)))
	}
	if a, locked := s.busy(source, p.target.ID); locked {
		return refuse(a)
	}
	return p, answer{}, true
}

// check makes the checks of the resource provider, whose result stands at the
// Location.
func (s *Server) check(p plannedMove) (answer, bool) {
	refuse := func(format string, args ...any) (answer, bool) {
		a := fail(409, "ResourceMoveProviderValidationFailed", "Resource move validation failed. Please see details. "+format, args...)
		return a, false
	}
	to := s.subs[fold(p.sub)]
	for _, r := range p.regs {
		from := s.subs[fold(r.sub)]
		switch {
		case s.regs[fold(r.id())] != r:
			return fail(404, "ResourceNotFound", "The Resource '%s' was not found.", r.id()), false
		case s.regs[fold(registrationID(p.sub, p.target.Name, r.name))] != nil:
			return refuse("A resource with the name '%s' exists in the target resource group '%s'.", r.name, p.target.Name)
		case from == to:
		case !strings.EqualFold(from.TenantID, to.TenantID):
			return refuse("The source subscription '%s' and the target subscription '%s' are not in the same tenant.", from.ID, to.ID)
		case to.Provider != "Registered":
			return fail(409, "MissingSubscriptionRegistration", notRegisteredText), false
		case !s.moves.AcrossSubscriptions && !(strings.HasPrefix(from.QuotaID, "CSP_") && strings.HasPrefix(to.QuotaID, "CSP_") && from.PartnerID == to.PartnerID):
			return refuse("Registrations move between subscriptions only when both belong to the same Cloud Solution Provider partner.")
		}
	}
	return answer{}, true
}

func (s *Server) validateMove(c *call) answer {
	p, a, ok := s.planMove(c)
	if !ok {
		return a
	}
	return s.accept(c, nil, func() answer {
		if a, ok := s.check(p); !ok {
			return a
		}
		return answer{status: http.StatusNoContent}
	})
}

func (s *Server) moveResources(c *call) answer {
	p, a, ok := s.planMove(c)
	if !ok {
		return a
	}
	return s.accept(c, []string{groupID(c.params["subscription"], c.params["group"]), p.target.ID}, func() answer {
		if a, ok := s.check(p); !ok {
			return a
		}
		for _, r := range p.regs {
			delete(s.regs, fold(r.id()))
			r.sub, r.group, r.etag = p.sub, p.target.Name, newETag()
			s.regs[fold(r.id())] = r
		}
		return answer{status: http.StatusNoContent}
	})
}

// deleteGroup deletes a group with everything in it, unless a lock on it or on
// something in it stops that.
func (s *Server) deleteGroup(c *call) answer {
	id := groupID(c.params["subscription"], c.params["group"])
	g := s.groups[fold(id)]
	if g == nil {
		return fail(404, "ResourceGroupNotFound", "Resource group '%s' could not be found.", c.params["group"])
	}
	for _, l := range s.sortedLocks() {
		if strings.HasPrefix(fold(l.scope), fold(id)+"/") {
			return fail(409, "ScopeLocked", "%s", lockedText(g.ID, "delete", l.scope))
		}
	}
	return s.accept(c, []string{g.ID}, func() answer {
		for key, r := range s.regs {
			if strings.HasPrefix(key, fold(id)+"/") {
				delete(s.regs, fold(r.id()))
			}
		}
		delete(s.groups, fold(id))
		return answer{status: http.StatusOK}
	})
}

// lockOver returns the lock that stops a change of the resource id, or of
// something in it, by standing on it or above it: ReadOnly always, CanNotDelete
// when the change takes the resource away.
func (s *Server) lockOver(id string, removal bool) *lock {
	var found *lock
	for _, l := range s.locks {
		on := fold(l.scope)
		if (on == fold(id) || strings.HasPrefix(fold(id), on+"/")) && (l.level == "ReadOnly" || l.level == "CanNotDelete" && removal) &&
			(found == nil || fold(l.id()) < fold(found.id())) {
			found = l
		}
	}
	return found
}
