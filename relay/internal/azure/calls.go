package azure

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Subscription is what Resource Manager tells about a subscription.
type Subscription struct {
	ID       SubscriptionID
	Name     string
	TenantID string
	State    string // Enabled, Warned, PastDue, Disabled, Deleted
	QuotaID  string // such as EnterpriseAgreement_2014-09-01: the only hint of the kind of offer
}

// Enabled reports whether the subscription takes changes. Disabled and deleted
// ones can only be read; an unknown state is left to Azure to judge.
func (s Subscription) Enabled() bool {
	return !strings.EqualFold(s.State, "Disabled") && !strings.EqualFold(s.State, "Deleted")
}

// wireSubscription is the swagger's Subscription.
type wireSubscription struct {
	SubscriptionID string `json:"subscriptionId"`
	DisplayName    string `json:"displayName"`
	TenantID       string `json:"tenantId"`
	State          string `json:"state"`
	Policies       struct {
		QuotaID string `json:"quotaId"`
	} `json:"subscriptionPolicies"`
}

func (w wireSubscription) read() (Subscription, error) {
	id, err := ParseSubscriptionID(w.SubscriptionID)
	if err != nil {
		return Subscription{}, fault.New(fault.Refused, "the answer of Azure: %w", err)
	}
	return Subscription{id, w.DisplayName, w.TenantID, w.State, w.Policies.QuotaID}, nil
}

// Subscriptions lists the subscriptions that the identity sees.
func (c *Client) Subscriptions(ctx context.Context) ([]Subscription, error) {
	found, err := list[wireSubscription](ctx, c, c.Requests.Subscriptions())
	if err != nil {
		return nil, err
	}
	var all []Subscription
	for _, w := range found {
		s, err := w.read()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Subscription finds a subscription by id, or by display name without regard to
// letter case. A name that no subscription or more than one has is a
// [fault.NotForUs] or a [fault.Usage] that lists the ids.
func (c *Client) Subscription(ctx context.Context, idOrName string) (Subscription, error) {
	if id, err := ParseSubscriptionID(idOrName); err == nil {
		var w wireSubscription
		if err := c.do(ctx, c.Requests.Subscription(id), &w); err != nil {
			return Subscription{}, err
		}
		s, err := w.read()
		if err == nil && s.ID != id {
			err = fault.New(fault.NotForUs, "Azure was asked for subscription %s and answered with %s", id, s.ID)
		}
		return s, err
	}
	all, err := c.Subscriptions(ctx)
	if err != nil {
		return Subscription{}, err
	}
	var hits []Subscription
	var names, ids []string
	for _, s := range all {
		names = append(names, fmt.Sprintf("%q", s.Name))
		if strings.EqualFold(s.Name, idOrName) {
			hits = append(hits, s)
			ids = append(ids, s.ID.String())
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		if len(names) == 0 {
			names = []string{"none"}
		}
		return Subscription{}, fault.New(fault.NotForUs, "subscription %q is not among those that the identity sees: %s", idOrName, strings.Join(names, ", ")).
			Hint("azs-relay register BUNDLE --subscription SUBSCRIPTION --tenant ITS-TENANT")
	}
	return Subscription{}, fault.New(fault.Usage, "subscription name %q is that of %s", idOrName, strings.Join(ids, " and of ")).
		Hint("azs-relay register BUNDLE --subscription %s", ids[0])
}

// ProviderState is the registration state of Microsoft.AzureStack in a
// subscription.
type ProviderState string

// The states that Resource Manager names.
const (
	NotRegistered ProviderState = "NotRegistered"
	Registering   ProviderState = "Registering"
	Registered    ProviderState = "Registered"
	Unregistering ProviderState = "Unregistering"
	Unregistered  ProviderState = "Unregistered"
)

type wireProvider struct {
	State ProviderState `json:"registrationState"`
}

// Provider reads the state of Microsoft.AzureStack.
func (c *Client) Provider(ctx context.Context, s SubscriptionID) (ProviderState, error) {
	var w wireProvider
	err := c.do(ctx, c.Requests.Provider(s), &w)
	return w.State, err
}

// RegisterProvider starts the registration of Microsoft.AzureStack and returns
// the state that Azure answers, usually [Registering]; [Client.WaitProvider]
// waits for the end.
func (c *Client) RegisterProvider(ctx context.Context, s SubscriptionID) (ProviderState, error) {
	var w wireProvider
	err := c.do(ctx, c.Requests.RegisterProvider(s), &w)
	return w.State, err
}

// WaitProvider polls until Microsoft.AzureStack is [Registered], up to ten
// minutes; then it is a [fault.Unreachable]. A provider that nobody is
// registering is a [fault.Permanent].
func (c *Client) WaitProvider(ctx context.Context, s SubscriptionID) error {
	var state ProviderState
	ok, err := c.retry.poll(ctx, providerPoll, providerWait, "provider Microsoft.AzureStack is being registered in subscription "+s.guid, func() (bool, error) {
		var err error
		if state, err = c.Provider(ctx, s); err != nil {
			return false, err
		}
		switch {
		case strings.EqualFold(string(state), string(NotRegistered)), strings.EqualFold(string(state), string(Unregistered)):
			return false, fault.New(fault.Permanent, "provider Microsoft.AzureStack is %s in subscription %s", state, s).
				Hint("az provider register --namespace Microsoft.AzureStack --wait --subscription %s", s)
		}
		return strings.EqualFold(string(state), string(Registered)), nil
	})
	if err == nil && !ok {
		return fault.New(fault.Unreachable, "provider Microsoft.AzureStack is still %s in subscription %s after %s", state, s, providerWait).
			Hint("azs-relay next")
	}
	return err
}

// Location is a place in which a resource group can be.
type Location struct {
	Name        string `json:"name"`        // "westcentralus"
	DisplayName string `json:"displayName"` // "West Central US"
}

// Locations lists the places that a subscription may use.
func (c *Client) Locations(ctx context.Context, s SubscriptionID) ([]Location, error) {
	return list[Location](ctx, c, c.Requests.Locations(s))
}

// ChooseLocation finds want among the locations by name or display name,
// without regard to letter case, as the official default "ChinaEast" is listed
// as "chinaeast". An empty want takes the first one. An unknown one is a
// [fault.Usage] that lists them.
func ChooseLocation(locations []Location, want string) (string, error) {
	var names []string
	for _, l := range locations {
		if want == "" || strings.EqualFold(l.Name, want) || strings.EqualFold(l.DisplayName, want) {
			return l.Name, nil
		}
		names = append(names, l.Name)
	}
	if len(names) == 0 {
		return "", fault.New(fault.Permanent, "the subscription lists no location in which a resource group could be created")
	}
	return "", fault.New(fault.Usage, "location %q is unknown to the subscription, which lists %s", want, strings.Join(names, ", ")).
		Hint("azs-relay register BUNDLE --location %s", names[0])
}

// Group is a resource group.
type Group struct {
	ID       GroupID
	Location string
}

type wireGroup struct {
	Location string `json:"location"`
}

// Group looks for a resource group and reports whether there is one.
func (c *Client) Group(ctx context.Context, g GroupID) (Group, bool, error) {
	var w wireGroup
	ok, err := c.find(ctx, c.Requests.Group(g), &w, "ResourceGroupNotFound")
	return Group{g, w.Location}, ok, err
}

// CreateGroup creates a resource group that [Client.Group] did not find. It is
// never to be called for an existing one: Azure would clear its tags.
func (c *Client) CreateGroup(ctx context.Context, g GroupID, location string) (Group, error) {
	var w wireGroup
	err := c.do(ctx, c.Requests.CreateGroup(g, location), &w)
	return Group{g, w.Location}, err
}

// Registration is the resource that stands for a stamp.
type Registration struct {
	ID           RegistrationID
	ETag         string
	CloudID      string // "" when Azure does not tell it, which is no mismatch
	ObjectID     string // identity of the stamp's bridge
	BillingModel string
}

// wireRegistration is the swagger's Registration. Its name is not read: the
// published examples disagree with their own ids.
type wireRegistration struct {
	ID         string `json:"id"`
	ETag       string `json:"etag"`
	Properties struct {
		CloudID      string `json:"cloudId"`
		ObjectID     string `json:"objectId"`
		BillingModel string `json:"billingModel"`
	} `json:"properties"`
}

func (w wireRegistration) read() (Registration, error) {
	id, err := ParseRegistrationID(w.ID)
	if err != nil {
		return Registration{}, fmt.Errorf("the answer of Azure: %w", err)
	}
	return Registration{id, w.ETag, w.Properties.CloudID, w.Properties.ObjectID, w.Properties.BillingModel}, nil
}

// about reads the answer of a call for one registration, which must be about it.
func (w wireRegistration) about(id RegistrationID) (Registration, error) {
	r, err := w.read()
	if err == nil && !r.ID.Same(id) {
		err = fault.New(fault.NotForUs, "Azure was asked for %s and answered with %s", id, r.ID)
	}
	return r, err
}

// Registrations lists all registrations of a subscription.
func (c *Client) Registrations(ctx context.Context, s SubscriptionID) ([]Registration, error) {
	found, err := list[wireRegistration](ctx, c, c.Requests.Registrations(s))
	if err != nil {
		return nil, err
	}
	var all []Registration
	for _, w := range found {
		r, err := w.read()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// Registration looks for a registration and reports whether there is one.
func (c *Client) Registration(ctx context.Context, id RegistrationID) (Registration, bool, error) {
	var w wireRegistration
	ok, err := c.find(ctx, c.Requests.Registration(id), &w, "ResourceNotFound", "NotFound", "ResourceGroupNotFound")
	if !ok {
		return Registration{}, false, err
	}
	r, err := w.about(id)
	return r, err == nil, err
}

// PutRegistration creates a registration, or updates it in place when name,
// group and stamp are the same. Sent twice, it ends in the same one.
func (c *Client) PutRegistration(ctx context.Context, id RegistrationID, token secret.Text) (Registration, error) {
	if token.Empty() || !utf8.ValidString(token.Reveal()) {
		return Registration{}, fault.New(fault.Refused, "the registration token of %d bytes is empty or not text", token.Len())
	}
	var w wireRegistration
	if err := c.do(ctx, c.Requests.PutRegistration(id, token), &w); err != nil {
		return Registration{}, err
	}
	return w.about(id)
}

// ReadBack reads a registration that was just put and compares it: another
// cloud id than wanted is a [fault.NotForUs]. A cloud id that Azure does not
// tell, or an empty cloudID, cannot be compared. Azure may need a while until a
// new registration can be read everywhere; after two minutes it is a
// [fault.Unreachable].
func (c *Client) ReadBack(ctx context.Context, id RegistrationID, cloudID string) (Registration, error) {
	var w wireRegistration
	if err := c.replicated(ctx, c.Requests.Registration(id), &w); err != nil {
		return Registration{}, err
	}
	r, err := w.about(id)
	if err == nil && r.CloudID != "" && cloudID != "" && !strings.EqualFold(r.CloudID, cloudID) {
		err = fault.New(fault.NotForUs, "registration %q is that of cloud id %q, and the request is of cloud id %q", id.name, r.CloudID, cloudID).
			Hint("%s --name AzureStack-CLOUD-ID", again(at(id).named("")))
	}
	return r, err
}

// replicated is do for a resource that was just made: 404 ResourceNotFound
// means not yet here, for two minutes.
func (c *Client) replicated(ctx context.Context, q Request, out any) error {
	var last error
	ok, err := c.retry.poll(ctx, replicaPoll, replicaWait, fmt.Sprintf("registration %q is not known everywhere yet", q.place.registration), func() (bool, error) {
		last = c.do(ctx, q, out)
		if isAbsent(last, "ResourceNotFound", "NotFound") {
			return false, nil
		}
		return last == nil, last
	})
	if err == nil && !ok {
		return fault.New(fault.Unreachable, "Azure still denies, %s after it was put, that registration %q exists: %w", replicaWait, q.place.registration, last).
			Hint("azs-relay next")
	}
	return err
}

// ActivationKey fetches the activation key of a registration that exists. Right
// after the registration Azure may answer that there is none; that is waited
// out for two minutes and is a [fault.Unreachable] then.
func (c *Client) ActivationKey(ctx context.Context, id RegistrationID) (secret.Text, error) {
	var w struct {
		ActivationKey string `json:"activationKey"`
	}
	if err := c.replicated(ctx, c.Requests.ActivationKey(id), &w); err != nil {
		return secret.Text{}, err
	}
	if w.ActivationKey == "" {
		return secret.Text{}, fault.New(fault.Refused, "cannot %s: the answer holds no key", c.Requests.ActivationKey(id).Purpose)
	}
	return secret.New(w.ActivationKey), nil
}

// DeleteRegistration deletes a registration and waits until it is gone, because
// Azure has been seen to report a deletion that it had not done. One that does
// not exist is deleted already.
func (c *Client) DeleteRegistration(ctx context.Context, id RegistrationID) error {
	if _, err := c.find(ctx, c.Requests.DeleteRegistration(id), nil, "ResourceNotFound", "NotFound", "ResourceGroupNotFound"); err != nil {
		return err
	}
	gone, err := c.retry.poll(ctx, replicaPoll, replicaWait, fmt.Sprintf("registration %q is still there", id.name), func() (bool, error) {
		_, there, err := c.Registration(ctx, id)
		return !there, err
	})
	if err == nil && !gone {
		return fault.New(fault.Unreachable, "Azure reported registration %q deleted, and it is still there %s later", id.name, replicaWait).
			Hint("azs-relay next")
	}
	return err
}

// Lock is a management lock of a registration.
type Lock struct {
	Level string // CanNotDelete or ReadOnly
	Notes string
}

type wireLock struct {
	Properties struct {
		Level string `json:"level"`
		Notes string `json:"notes"`
	} `json:"properties"`
}

// Lock looks for the lock named [LockName] on a registration and reports
// whether there is one. A missing right to read locks is an error, not an
// absence.
func (c *Client) Lock(ctx context.Context, id RegistrationID) (Lock, bool, error) {
	var w wireLock
	ok, err := c.find(ctx, c.Requests.Lock(id), &w, "LockNotFound", "ResourceNotFound", "NotFound")
	return Lock(w.Properties), ok, err
}

// PutLock sets the lock CanNotDelete. An existing lock of the same name is
// replaced, whatever its level.
func (c *Client) PutLock(ctx context.Context, id RegistrationID) (Lock, error) {
	var w wireLock
	err := c.do(ctx, c.Requests.PutLock(id), &w)
	return Lock(w.Properties), err
}

// DeleteLock removes the lock. One that does not exist is removed already.
func (c *Client) DeleteLock(ctx context.Context, id RegistrationID) error {
	_, err := c.find(ctx, c.Requests.DeleteLock(id), nil, "LockNotFound", "ResourceNotFound", "NotFound")
	return err
}
