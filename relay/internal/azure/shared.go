package azure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/azs-courier/azs-courier/shared/secret"
)

// Shared is a client for many stamps at once: what is the same for all of them
// is asked once and remembered: the subscription, its provider, its locations,
// its groups, its registrations and the identity's rights. What the client itself
// changes is remembered as changed. It may be used by several goroutines at once;
// of those that ask the same, one asks and the others wait.
//
// Limit: what others change in Azure after it was asked is not seen. Azure
// refuses what contradicts it, and the next run asks again.
type Shared struct {
	*Client

	subscriptions memo[string, Subscription]
	providers     memo[SubscriptionID, ProviderState]
	registering   memo[SubscriptionID, ProviderState]
	waiting       memo[SubscriptionID, struct{}]
	locations     memo[SubscriptionID, []Location]
	groups        memo[string, foundGroup]
	creating      memo[string, Group]
	permissions   memo[string, told]

	registrations memo[SubscriptionID, *registry]
}

// told is what Azure tells of the rights in a group.
type told struct {
	permissions []Permission
	unchecked   string
}

type foundGroup struct {
	Group
	there bool
}

// registry is the list of a subscription's registrations, kept true by what the
// client does.
type registry struct {
	mu  sync.Mutex
	all []Registration
}

// Shared returns a view of the client that asks once what is asked for many.
func (c *Client) Shared() *Shared { return &Shared{Client: c} }

// Subscription is [Client.Subscription], once for each id or name.
func (s *Shared) Subscription(ctx context.Context, idOrName string) (Subscription, error) {
	return s.subscriptions.get(ctx, strings.ToLower(idOrName), func() (Subscription, error) { return s.Client.Subscription(ctx, idOrName) })
}

// Provider is [Client.Provider], once for each subscription.
func (s *Shared) Provider(ctx context.Context, sub SubscriptionID) (ProviderState, error) {
	return s.providers.get(ctx, sub, func() (ProviderState, error) { return s.Client.Provider(ctx, sub) })
}

// RegisterProvider is [Client.RegisterProvider], once for each subscription.
func (s *Shared) RegisterProvider(ctx context.Context, sub SubscriptionID) (ProviderState, error) {
	return s.registering.get(ctx, sub, func() (ProviderState, error) { return s.Client.RegisterProvider(ctx, sub) })
}

// WaitProvider is [Client.WaitProvider], once for each subscription.
func (s *Shared) WaitProvider(ctx context.Context, sub SubscriptionID) error {
	_, err := s.waiting.get(ctx, sub, func() (struct{}, error) { return struct{}{}, s.Client.WaitProvider(ctx, sub) })
	if err == nil {
		s.providers.set(sub, Registered)
	}
	return err
}

// Locations is [Client.Locations], once for each subscription.
func (s *Shared) Locations(ctx context.Context, sub SubscriptionID) ([]Location, error) {
	return s.locations.get(ctx, sub, func() ([]Location, error) { return s.Client.Locations(ctx, sub) })
}

// Group is [Client.Group], once for each group.
func (s *Shared) Group(ctx context.Context, g GroupID) (Group, bool, error) {
	found, err := s.groups.get(ctx, strings.ToLower(g.String()), func() (foundGroup, error) {
		group, there, err := s.Client.Group(ctx, g)
		return foundGroup{group, there}, err
	})
	return found.Group, found.there, err
}

// CreateGroup is [Client.CreateGroup], once for each group, so that of several
// stamps that miss it none clears the tags of what another just made.
func (s *Shared) CreateGroup(ctx context.Context, g GroupID, location string) (Group, error) {
	key := strings.ToLower(g.String())
	made, err := s.creating.get(ctx, key, func() (Group, error) { return s.Client.CreateGroup(ctx, g, location) })
	if err == nil {
		s.groups.set(key, foundGroup{made, true})
	}
	return made, err
}

// CheckWrites is [Client.CheckWrites]; the permissions are read once for each group.
func (s *Shared) CheckWrites(ctx context.Context, writes []Request) error {
	return s.checkWrites(ctx, writes, func(ctx context.Context, g GroupID) ([]Permission, string, error) {
		p, err := s.permissions.get(ctx, strings.ToLower(g.String()), func() (told, error) {
			all, unchecked, err := s.effective(ctx, g)
			return told{all, unchecked}, err
		})
		return p.permissions, p.unchecked, err
	})
}

// Registrations is [Client.Registrations], once for each subscription; what this
// view put, deleted and moved since stands in it.
func (s *Shared) Registrations(ctx context.Context, sub SubscriptionID) ([]Registration, error) {
	r, err := s.registrations.get(ctx, sub, func() (*registry, error) {
		all, err := s.Client.Registrations(ctx, sub)
		return &registry{all: all}, err
	})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all), nil
}

// note replaces a registration in the list of its subscription, or takes it out,
// if the list was read.
func (s *Shared) note(id RegistrationID, now *Registration) {
	r, ok := s.registrations.peek(id.Subscription())
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(x Registration) bool { return x.ID.Same(id) })
	if now != nil {
		r.all = append(r.all, *now)
	}
}

// PutRegistration is [Client.PutRegistration].
func (s *Shared) PutRegistration(ctx context.Context, id RegistrationID, token secret.Text) (Registration, error) {
	r, err := s.Client.PutRegistration(ctx, id, token)
	if err == nil {
		s.note(id, &r)
	}
	return r, err
}

// DeleteRegistration is [Client.DeleteRegistration].
func (s *Shared) DeleteRegistration(ctx context.Context, id RegistrationID) error {
	err := s.Client.DeleteRegistration(ctx, id)
	if err == nil {
		s.note(id, nil)
	}
	return err
}

// Move is [Client.Move].
func (s *Shared) Move(ctx context.Context, id RegistrationID, target GroupID) (RegistrationID, error) {
	moved, err := s.Client.Move(ctx, id, target)
	if err == nil {
		s.note(id, nil)
		s.registrations.drop(moved.Subscription()) // its cloud id is read again
	}
	return moved, err
}

// memo asks once for each key. An error is not remembered: those that waited for
// the answer get it, and the next one asks again. The zero value is ready.
type memo[K comparable, V any] struct {
	mu    sync.Mutex
	cells map[K]*cell[V]
}

type cell[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// get returns the value of the key, from ask when nobody asked before. A caller
// that waits for another's answer stops with its own context, and asks itself
// when the other's context ended first.
func (m *memo[K, V]) get(ctx context.Context, key K, ask func() (V, error)) (V, error) {
	for {
		m.mu.Lock()
		c, asked := m.cells[key]
		if !asked {
			c = &cell[V]{done: make(chan struct{})}
			if m.cells == nil {
				m.cells = map[K]*cell[V]{}
			}
			m.cells[key] = c
		}
		m.mu.Unlock()
		if !asked {
			c.value, c.err = ask()
			if c.err != nil {
				m.mu.Lock()
				if m.cells[key] == c {
					delete(m.cells, key)
				}
				m.mu.Unlock()
			}
			close(c.done)
			return c.value, c.err
		}
		select {
		case <-c.done:
			if c.err != nil && ctx.Err() == nil && (errors.Is(c.err, context.Canceled) || errors.Is(c.err, context.DeadlineExceeded)) {
				continue
			}
			return c.value, c.err
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
	}
}

// set replaces what is remembered.
func (m *memo[K, V]) set(key K, value V) {
	c := &cell[V]{done: make(chan struct{}), value: value}
	close(c.done)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cells == nil {
		m.cells = map[K]*cell[V]{}
	}
	m.cells[key] = c
}

// peek returns what is remembered, if it is there now.
func (m *memo[K, V]) peek(key K) (V, bool) {
	m.mu.Lock()
	c := m.cells[key]
	m.mu.Unlock()
	if c != nil {
		select {
		case <-c.done:
			return c.value, c.err == nil
		default:
		}
	}
	var none V
	return none, false
}

func (m *memo[K, V]) drop(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cells, key)
}
