package azure

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/azs-courier/azs-courier/shared/secret"
)

// The api-versions. Registrations are pinned to the version of the official
// cmdlets and of all recorded traffic; the newest one is the way out on the day
// on which Azure retires it.
const (
	RegistrationsVersion       = "2017-06-01"
	NewestRegistrationsVersion = "2022-06-01"
	resourcesVersion           = "2021-04-01"
	subscriptionsVersion       = "2022-12-01"
	locksVersion               = "2016-09-01"
	permissionsVersion         = "2022-04-01"
)

// LockName is the name that the official scripts give to a registration's lock.
const LockName = "RegistrationResourceLock"

// Request is one call as a value: made once, then sent or printed.
type Request struct {
	Purpose string // what the call is for, as in "cannot ‹purpose›"
	Method  string
	URL     string // absolute, with its api-version
	Action  string // of a write: the action of role-based access control that it needs

	body       func(token string) any // nil when there is none
	token      secret.Text            // what body is given
	place      place
	azureStack bool // a call of Microsoft.AzureStack, which needs its provider registered
	long       bool // may be answered with 202 and a Location to ask for the end
}

// place is where a request acts, as far as it is that narrow; hints are made
// from it.
type place struct {
	subscription SubscriptionID
	group        string
	registration string
}

// payload returns the body as it is sent, nil when there is none.
func (r Request) payload() []byte {
	if r.body == nil {
		return nil
	}
	return encode(r.body(r.token.Reveal()))
}

// shown returns the body as it may be seen: made by the same function as
// payload, given the token's length and digest instead of the token.
func (r Request) shown() []byte {
	if r.body == nil {
		return nil
	}
	return encode(r.body(fmt.Sprintf("<registration token: %d bytes, sha256 %x>", r.token.Len(), sha256.Sum256([]byte(r.token.Reveal())))))
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // only maps of strings are given
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Print writes the request in the manner of HTTP: a "#" line with the purpose,
// method and URL, and the JSON body, indented, with the registration token
// replaced by "<registration token: N bytes, sha256 …>".
func (r Request) Print(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n%s %s\n", r.Purpose, r.Method, r.URL)
	if body := r.shown(); body != nil {
		b.WriteString("Content-Type: application/json\n\n")
		if err := json.Indent(&b, body, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// String returns method and URL, which hold no secret.
func (r Request) String() string { return r.Method + " " + r.URL }

// Format writes what String returns for every verb, so that no verb reaches
// the body.
func (r Request) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, r.String()) }

// MarshalJSON returns {"purpose","method","url","body"}, the token replaced as
// in [Request.Print].
func (r Request) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Purpose string          `json:"purpose"`
		Method  string          `json:"method"`
		URL     string          `json:"url"`
		Body    json.RawMessage `json:"body,omitempty"`
	}{r.Purpose, r.Method, r.URL, r.shown()})
}

// withVersion returns the same request with another api-version.
func (r Request) withVersion(version string) Request {
	if u, err := url.Parse(r.URL); err == nil {
		q := u.Query()
		q.Set("api-version", version)
		u.RawQuery = q.Encode()
		r.URL = u.String()
	}
	return r
}

// Requests makes the requests of one Resource Manager endpoint. It needs no
// credential and no network, so that --dry-run works before anybody signs in.
type Requests struct {
	Endpoint   string // "https://management.azure.com", no slash at the end
	APIVersion string // of registrations; RegistrationsVersion when ""
}

func (q Requests) make(method, path, version, purpose string, at place) Request {
	return Request{Purpose: purpose, Method: method, URL: q.Endpoint + path + "?api-version=" + url.QueryEscape(version), place: at}
}

func (q Requests) stack(method, path, purpose string, at place) Request {
	version := q.APIVersion
	if version == "" {
		version = RegistrationsVersion
	}
	r := q.make(method, path, version, purpose, at)
	r.azureStack = true
	return r
}

func (r Request) needs(action string) Request {
	r.Action = action
	return r
}

func inSubscription(s SubscriptionID) place { return place{subscription: s} }
func inGroup(g GroupID) place               { return place{subscription: g.subscription, group: g.name} }
func at(id RegistrationID) place {
	return place{subscription: id.Subscription(), group: id.group.name, registration: id.name}
}

// Subscriptions lists the subscriptions that the identity sees.
func (q Requests) Subscriptions() Request {
	return q.make("GET", "/subscriptions", subscriptionsVersion, "list the subscriptions", place{})
}

// Subscription reads name, tenant, state and offer of a subscription.
func (q Requests) Subscription(s SubscriptionID) Request {
	return q.make("GET", s.Path(), subscriptionsVersion, "read subscription "+s.guid, inSubscription(s))
}

// Provider reads whether the subscription has Microsoft.AzureStack registered.
func (q Requests) Provider(s SubscriptionID) Request {
	return q.make("GET", s.Path()+"/providers/Microsoft.AzureStack", resourcesVersion,
		"read the state of provider Microsoft.AzureStack in subscription "+s.guid, inSubscription(s))
}

// RegisterProvider starts the registration of Microsoft.AzureStack.
func (q Requests) RegisterProvider(s SubscriptionID) Request {
	return q.make("POST", s.Path()+"/providers/Microsoft.AzureStack/register", resourcesVersion,
		"register provider Microsoft.AzureStack in subscription "+s.guid, inSubscription(s)).needs("Microsoft.AzureStack/register/action")
}

// Locations lists the places in which a resource group can be created.
func (q Requests) Locations(s SubscriptionID) Request {
	return q.make("GET", s.Path()+"/locations", subscriptionsVersion, "list the locations of subscription "+s.guid, inSubscription(s))
}

// Group looks for a resource group.
func (q Requests) Group(g GroupID) Request {
	return q.make("GET", g.path(), resourcesVersion, fmt.Sprintf("read resource group %q", g.name), inGroup(g))
}

// CreateGroup creates a resource group. It must only be sent after
// [Requests.Group] found none: on an existing group it would clear the tags.
func (q Requests) CreateGroup(g GroupID, location string) Request {
	r := q.make("PUT", g.path(), resourcesVersion, fmt.Sprintf("create resource group %q in %s", g.name, location), inGroup(g)).
		needs("Microsoft.Resources/subscriptions/resourceGroups/write")
	r.body = func(string) any { return map[string]string{"location": location} }
	return r
}

// Registrations lists all registrations of a subscription.
func (q Requests) Registrations(s SubscriptionID) Request {
	return q.stack("GET", s.Path()+"/providers/Microsoft.AzureStack/registrations",
		"list the registrations of subscription "+s.guid, inSubscription(s))
}

// Registration reads one registration.
func (q Requests) Registration(id RegistrationID) Request {
	return q.stack("GET", id.path(), fmt.Sprintf("read registration %q", id.name), at(id))
}

// PutRegistration creates a registration, or updates it in place. The token is
// sent exactly as given.
func (q Requests) PutRegistration(id RegistrationID, token secret.Text) Request {
	r := q.stack("PUT", id.path(), fmt.Sprintf("put registration %q into resource group %q", id.name, id.group.name), at(id)).
		needs("Microsoft.AzureStack/registrations/write")
	r.token = token
	r.body = func(token string) any {
		return map[string]any{"location": "global", "properties": map[string]string{"registrationToken": token}}
	}
	return r
}

// DeleteRegistration deletes a registration.
func (q Requests) DeleteRegistration(id RegistrationID) Request {
	return q.stack("DELETE", id.path(), fmt.Sprintf("delete registration %q", id.name), at(id)).
		needs("Microsoft.AzureStack/registrations/delete")
}

// ActivationKey asks for the activation key of a registration. It changes
// nothing, though Azure counts it as a write.
func (q Requests) ActivationKey(id RegistrationID) Request {
	return q.stack("POST", id.path()+"/getActivationKey", fmt.Sprintf("get the activation key of registration %q", id.name), at(id)).
		needs("Microsoft.AzureStack/registrations/getActivationKey/action")
}

func (q Requests) lock(method, verb string, id RegistrationID) Request {
	return q.make(method, id.path()+"/providers/Microsoft.Authorization/locks/"+LockName, locksVersion,
		fmt.Sprintf("%s the lock of registration %q", verb, id.name), at(id))
}

// Lock reads the lock of a registration.
func (q Requests) Lock(id RegistrationID) Request { return q.lock("GET", "read", id) }

// PutLock sets the lock CanNotDelete on a registration, with the notes of the
// official scripts.
func (q Requests) PutLock(id RegistrationID) Request {
	r := q.lock("PUT", "set", id).needs("Microsoft.Authorization/locks/write")
	notes := "Registration resource " + id.name + " is needed for syndication. Placing resource lock to prevent accidental deletion."
	r.body = func(string) any {
		return map[string]any{"properties": map[string]string{"level": "CanNotDelete", "notes": notes}}
	}
	return r
}

// DeleteLock removes the lock of a registration.
func (q Requests) DeleteLock(id RegistrationID) Request {
	return q.lock("DELETE", "remove", id).needs("Microsoft.Authorization/locks/delete")
}

// follow makes the request for a link of an answer: the next page of the same
// list, or the end of a long operation. The link comes
// from the answer and the bearer goes where it points, so it must stay on the
// endpoint's own scheme and host.
func (r Request) follow(link string) (Request, error) {
	here, err := url.Parse(r.URL)
	if err != nil {
		return r, err
	}
	next, err := url.Parse(link)
	if err != nil {
		return r, fmt.Errorf("the link that follows cannot be read")
	}
	if next.Scheme != "https" || !strings.EqualFold(next.Host, here.Host) || next.User != nil {
		return r, fmt.Errorf("the link that follows leads to %q, away from %q", next.Scheme+"://"+next.Host, here.Scheme+"://"+here.Host)
	}
	r.URL = link
	return r, nil
}
