package azure

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

// Scope is where a lock can be: a [SubscriptionID], a [GroupID] or a
// [RegistrationID].
type Scope interface {
	String() string
	scope() (path, words string, at place)
}

func (s SubscriptionID) scope() (path, words string, at place) {
	return s.Path(), "subscription " + s.guid, inSubscription(s)
}

func (g GroupID) scope() (path, words string, at place) {
	return g.path(), fmt.Sprintf("resource group %q", g.name), inGroup(g)
}

func (r RegistrationID) scope() (path, words string, in place) {
	return r.path(), fmt.Sprintf("registration %q", r.name), at(r)
}

// Locks lists the locks of a scope and of everything in it.
func (q Requests) Locks(s Scope) Request {
	path, words, at := s.scope()
	return q.make("GET", path+"/providers/Microsoft.Authorization/locks", locksVersion, "list the locks of "+words, at)
}

// Permissions reads what the identity may do in a resource group.
func (q Requests) Permissions(g GroupID) Request {
	return q.make("GET", g.path()+"/providers/Microsoft.Authorization/permissions", permissionsVersion,
		fmt.Sprintf("read what the identity may do in resource group %q", g.name), inGroup(g))
}

// PlacedLock is a lock with the place that it is on.
type PlacedLock struct {
	Lock
	Name  string
	Scope string // "/subscriptions/…", without a slash at the end
}

// On reports whether the lock stands on the registration, its group or its
// subscription, and so acts on the registration.
func (l PlacedLock) On(id RegistrationID) bool {
	scope, all := strings.ToLower(l.Scope), strings.ToLower(id.String())
	return scope != "" && (scope == all || strings.HasPrefix(all, scope+"/"))
}

// Locks lists the locks of a scope and of everything in it; those of the
// subscription are therefore all that can act on any registration in it.
func (c *Client) Locks(ctx context.Context, s Scope) ([]PlacedLock, error) {
	type wire struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		wireLock
	}
	found, err := list[wire](ctx, c, c.Requests.Locks(s))
	if err != nil {
		return nil, err
	}
	var all []PlacedLock
	for _, w := range found {
		i := strings.LastIndex(strings.ToLower(w.ID), "/providers/microsoft.authorization/locks/")
		if i < 0 {
			continue // a lock of another shape is none that stands on a resource
		}
		scope := w.ID[:i]
		if plain, err := url.PathUnescape(scope); err == nil {
			scope = plain
		}
		all = append(all, PlacedLock{Lock(w.Properties), w.Name, scope})
	}
	return all, nil
}

// Permission is one role that the identity holds at a scope, or above it: it may
// do what one of the Actions covers and none of the NotActions does, where * is
// any run of characters. Roles add up.
type Permission struct {
	Actions    []string `json:"actions"`
	NotActions []string `json:"notActions"`
}

// Allows reports whether the permission covers an action, without regard to
// letter case.
func (p Permission) Allows(action string) bool {
	covers := func(patterns []string) bool {
		for _, pattern := range patterns {
			if glob(strings.ToLower(pattern), strings.ToLower(action)) {
				return true
			}
		}
		return false
	}
	return covers(p.Actions) && !covers(p.NotActions)
}

// glob reports whether s is of the pattern, in which * is any run of characters.
func glob(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, head)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	last := parts[len(parts)-1]
	for _, part := range parts[:len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, last)
}

// Permissions reads what the identity may do in a resource group that exists.
// Azure tells it for groups and resources only, not for a subscription.
func (c *Client) Permissions(ctx context.Context, g GroupID) ([]Permission, error) {
	return list[Permission](ctx, c, c.Requests.Permissions(g))
}
