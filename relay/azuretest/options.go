package azuretest

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// An Option changes what the server holds when it starts.
type Option func(*Server)

// Subscription is one Azure subscription. Empty fields get defaults.
type Subscription struct {
	ID       string // GUID; default made by the server
	Name     string // displayName; default "Rehearsal"
	TenantID string // default the server's tenant
	// State is Enabled (default), Warned, PastDue, Disabled or Deleted. Warned
	// and Disabled refuse writes with 409 ReadOnlyDisabledSubscription.
	State   string
	QuotaID string // default EnterpriseAgreement_2014-09-01
	// PartnerID is the partner of a CSP subscription, whose QuotaID begins with
	// CSP_; see [Moves].
	PartnerID string
	// Provider is the registrationState of Microsoft.AzureStack: Registered
	// (default), NotRegistered, Registering, Unregistering or Unregistered.
	Provider string
	// ProviderPolls is how many GETs of the provider still say Registering
	// after it was registered.
	ProviderPolls int
}

// Client is an application that Entra knows, with its role in every
// subscription. Empty fields get defaults.
type Client struct {
	ID            string // application (client) id; default made by the server
	ObjectID      string // object id of the service principal; default made by the server
	Secret        string // none when empty
	SecretExpires time.Time
	Certificates  []*x509.Certificate // RSA certificates whose assertions are accepted
	// Federated are assertions of another issuer that are accepted as they are,
	// as those of a cluster or a pipeline; Entra would ask their issuer for the
	// key.
	Federated []string
	// Actions and NotActions are the role, with * as wildcard; no Actions at
	// all means "*". What the role does not cover is refused with 403
	// AuthorizationFailed.
	Actions, NotActions []string
}

// User is the person who grants device code requests.
type User struct {
	Name                string // user principal name
	ObjectID            string
	Actions, NotActions []string
}

// Group is a resource group that exists at the start.
type Group struct {
	Subscription string // default the first subscription
	Name         string
	Location     string // default the first location
	Tags         map[string]string
}

// Registration is a registration that exists at the start. Its group is made
// when it does not exist.
type Registration struct {
	Subscription string // default the first subscription
	Group        string // default "azurestack"
	Name         string
	// Token is the registration token; when it is empty the other fields are
	// taken as they are, and an empty CloudID gives a registration without a
	// cloud id, as the published examples show some to be.
	Token               string
	CloudID, ObjectID   string
	BillingModel        string // default Development
	Tags                map[string]string
	LockName, LockLevel string // no lock when LockLevel is empty
	LockNotes           string
}

// WithTenant makes id one of the tenants. The first is the server's tenant;
// further ones are for tokens from the wrong tenant. names are domains that
// mean the same tenant in Entra's paths.
func WithTenant(id string, names ...string) Option {
	return func(s *Server) {
		s.tenants = append(s.tenants, id)
		for _, n := range append(names, id) {
			s.tenantNames[fold(n)] = id
		}
	}
}

// WithSubscription adds a subscription. The first one is [Server].Subscription.
func WithSubscription(sub Subscription) Option {
	return func(s *Server) { s.seedSubs = append(s.seedSubs, sub) }
}

// WithClient adds an application. The first one is [Server].ClientID.
func WithClient(c Client) Option {
	return func(s *Server) { s.clients = append(s.clients, &c) }
}

// WithUser sets who grants device code requests.
func WithUser(u User) Option { return func(s *Server) { s.user = u } }

// WithGroup adds a resource group.
func WithGroup(g Group) Option {
	return func(s *Server) { s.seedGroups = append(s.seedGroups, g) }
}

// WithRegistration adds a registration.
func WithRegistration(r Registration) Option {
	return func(s *Server) { s.seedRegs = append(s.seedRegs, r) }
}

// WithTakenCloudID makes a cloud id one that is registered where the caller
// cannot see it.
func WithTakenCloudID(id string) Option {
	return func(s *Server) { s.taken[fold(id)] = true }
}

// WithLocations sets the locations of every subscription, by display name
// ("West Central US") or name ("westcentralus").
func WithLocations(names ...string) Option {
	return func(s *Server) { s.locations = names }
}

// WithClock sets the clock for tokens, keys, faults and throttling. TLS and
// client assertions are made by others with their own clock.
func WithClock(c interface{ Now() time.Time }) Option {
	return func(s *Server) { s.now = c.Now }
}

// WithPageSize sets how many registrations a list answers before it gives a
// nextLink. The default is 100.
func WithPageSize(n int) Option { return func(s *Server) { s.pageSize = n } }

// WithTokenLifetime sets how long a bearer is good. The default is an hour.
func WithTokenLifetime(d time.Duration) Option {
	return func(s *Server) { s.tokenLifetime = d }
}

// WithDevicePolls sets how many polls of a device code are answered with
// authorization_pending before the user grants it. The default is 1.
func WithDevicePolls(n int) Option { return func(s *Server) { s.devicePolls = n } }

// WithKeyExpires sets the expires claim of every activation key. Without it a
// Development key lasts until 9999-12-30T23:59:59.9999999Z and every other key
// for a year from its registration.
func WithKeyExpires(t time.Time) Option { return func(s *Server) { s.keyExpires = t } }

// WithOpaqueTokens accepts registration tokens that are one line of base64 or
// JWS characters but not base64 of a JSON object, and takes each to belong to
// the stamp cloudID.
func WithOpaqueTokens(cloudID string) Option {
	return func(s *Server) { s.opaqueCloudID = cloudID }
}

// WithMetadataList answers /metadata/endpoints of 2022-09-01 with a list, as
// Azure Stack Hub does, instead of one object.
func WithMetadataList() Option { return func(s *Server) { s.metadataList = true } }

// WithThrottling refuses with 429 what exceeds the limits.
func WithThrottling(l Limits) Option { return func(s *Server) { s.limits = &l } }

// WithSpeed lets the clock of the throttling run that many times faster than the
// server's, so that buckets refill the faster and Retry-After is the shorter.
// Tokens and keys keep the server's clock.
func WithSpeed(times float64) Option { return func(s *Server) { s.speed = times } }

// WithMandatoryMFA asks a person, not an application, for multi-factor
// authentication before the first change: a bearer without it is refused with
// 401 and a claims challenge, as Azure does since October 2025.
func WithMandatoryMFA() Option { return func(s *Server) { s.mandatoryMFA = true } }

func (s *Server) defaults() error {
	if err := s.trouble.valid(); err != nil {
		return err
	}
	if s.speed <= 0 || s.moves.Polls < 0 || s.moves.RetryAfter < 0 {
		return fmt.Errorf("speed %g, polls %d and retry after %d must not be negative, nor the speed zero", s.speed, s.moves.Polls, s.moves.RetryAfter)
	}
	if len(s.tenants) == 0 {
		WithTenant(newGUID(), "contoso.onmicrosoft.example")(s)
	}
	if len(s.seedSubs) == 0 {
		s.seedSubs = []Subscription{{}}
	}
	if len(s.clients) == 0 {
		s.clients = []*Client{{Secret: newGUID() + "~" + newGUID()}}
	}
	if len(s.locations) == 0 {
		s.locations = []string{"West Central US", "East US", "West Europe", "North Europe"}
	}
	if s.now == nil {
		s.now = func() time.Time { return time.Now().UTC() }
	}
	undrifted := s.now
	s.now = func() time.Time { return undrifted().Add(time.Duration(s.drift.Load())) }
	s.began = s.now()
	for _, c := range s.clients {
		c.ID, c.ObjectID = or(c.ID, newGUID()), or(c.ObjectID, newGUID())
	}
	s.user.Name, s.user.ObjectID = or(s.user.Name, "operator@contoso.onmicrosoft.example"), or(s.user.ObjectID, newGUID())
	s.Tenant, s.ClientID, s.ClientSecret = s.tenants[0], s.clients[0].ID, s.clients[0].Secret

	for _, sub := range s.seedSubs {
		sub.ID, sub.Name, sub.TenantID = or(sub.ID, newGUID()), or(sub.Name, "Rehearsal"), or(sub.TenantID, s.Tenant)
		sub.State, sub.QuotaID = or(sub.State, "Enabled"), or(sub.QuotaID, "EnterpriseAgreement_2014-09-01")
		sub.Provider = or(sub.Provider, "Registered")
		if !isGUID(sub.ID) {
			return fmt.Errorf("subscription %q is not a GUID", sub.ID)
		}
		if !slices.Contains([]string{"Enabled", "Warned", "PastDue", "Disabled", "Deleted"}, sub.State) {
			return fmt.Errorf("subscription %s: state %q is none that Azure has", sub.ID, sub.State)
		}
		if !slices.Contains([]string{"Registered", "NotRegistered", "Registering", "Unregistering", "Unregistered"}, sub.Provider) {
			return fmt.Errorf("subscription %s: provider state %q is none that Azure has", sub.ID, sub.Provider)
		}
		if s.tenantNames[fold(sub.TenantID)] == "" {
			WithTenant(sub.TenantID)(s)
		}
		s.subs[fold(sub.ID)] = &subscription{Subscription: sub, polls: sub.ProviderPolls}
		s.Subscription = or(s.Subscription, sub.ID)
	}
	for _, g := range s.seedGroups {
		sub := or(g.Subscription, s.Subscription)
		if s.subs[fold(sub)] == nil {
			return fmt.Errorf("group %q: no subscription %q", g.Name, sub)
		}
		s.groups[fold(groupID(sub, g.Name))] = &group{ID: groupID(sub, g.Name), Name: g.Name,
			Location: or(g.Location, locationName(s.locations[0])), Tags: g.Tags}
	}
	for _, r := range s.seedRegs {
		if err := s.seed(r); err != nil {
			return fmt.Errorf("registration %q: %w", r.Name, err)
		}
	}
	return nil
}

func (s *Server) seed(r Registration) error {
	sub, name := or(r.Subscription, s.Subscription), or(r.Group, "azurestack")
	if s.subs[fold(sub)] == nil {
		return fmt.Errorf("no subscription %q", sub)
	}
	gid := groupID(sub, name)
	g := s.groups[fold(gid)]
	if g == nil {
		g = &group{ID: gid, Name: name, Location: locationName(s.locations[0])}
		s.groups[fold(gid)] = g
	}
	reg := &registration{sub: s.subs[fold(sub)].ID, group: g.Name, name: r.Name, tags: r.Tags, since: s.now()}
	reg.token = stampToken{CloudID: r.CloudID, ObjectID: or(r.ObjectID, guidOf(r.Name)), BillingModel: or(r.BillingModel, "Development")}
	if r.Token != "" {
		t, ok := s.readToken(r.Token)
		if !ok {
			return fmt.Errorf("token of %d characters is malformed", len(r.Token))
		}
		reg.token = t
	}
	reg.etag = newETag()
	s.regs[fold(reg.id())] = reg
	if r.LockLevel != "" {
		s.setLock(reg.id(), or(r.LockName, "RegistrationResourceLock"), r.LockLevel, r.LockNotes)
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

var _ http.Handler = (*Server)(nil)
