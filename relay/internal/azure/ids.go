package azure

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/fault"
)

var (
	guid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	// groupName is Resource Manager's own rule for resource groups but for the length,
	// which a repetition of 90 would turn into 15 ms at every start.
	groupName = regexp.MustCompile(`^[-\p{L}\p{N}_.()]+$`)
)

// SubscriptionID is the id of a subscription, a GUID in lower case. Only
// [ParseSubscriptionID] makes one.
type SubscriptionID struct{ guid string }

// ParseSubscriptionID reads a GUID such as
// "dd8597b4-8739-4467-8b10-f8679f62bfbf". Everything else is a [fault.Usage].
func ParseSubscriptionID(s string) (SubscriptionID, error) {
	if !guid.MatchString(s) {
		return SubscriptionID{}, fault.New(fault.Usage, "subscription id %q is not a GUID", s)
	}
	return SubscriptionID{strings.ToLower(s)}, nil
}

// String returns the GUID.
func (s SubscriptionID) String() string { return s.guid }

// MarshalText returns the GUID.
func (s SubscriptionID) MarshalText() ([]byte, error) { return []byte(s.guid), nil }

// Path returns "/subscriptions/{guid}".
func (s SubscriptionID) Path() string { return "/subscriptions/" + s.guid }

// Group names a resource group of the subscription. A name that Resource
// Manager would not take (1 to 90 letters, digits, "-_.()", no full stop at the
// end) is a [fault.Usage].
func (s SubscriptionID) Group(name string) (GroupID, error) {
	if !groupName.MatchString(name) || utf8.RuneCountInString(name) > 90 || strings.HasSuffix(name, ".") {
		return GroupID{}, fault.New(fault.Usage, "resource group name %q is not 1 to 90 letters, digits and -_.() without a full stop at its end", name)
	}
	return GroupID{s, name}, nil
}

// GroupID is the place of a resource group. Only [SubscriptionID.Group] makes
// one.
type GroupID struct {
	subscription SubscriptionID
	name         string
}

// Subscription returns the subscription that holds the group.
func (g GroupID) Subscription() SubscriptionID { return g.subscription }

// Name returns the group's name.
func (g GroupID) Name() string { return g.name }

// String returns "/subscriptions/{guid}/resourceGroups/{name}".
func (g GroupID) String() string { return g.subscription.Path() + "/resourceGroups/" + g.name }

// MarshalText returns what String returns.
func (g GroupID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

func (g GroupID) path() string {
	return g.subscription.Path() + "/resourceGroups/" + url.PathEscape(g.name)
}

// Registration names a registration in the group. The name follows Resource
// Manager's rule for resource names: up to 260 characters, none of
// <>*%&:?/\#+ and no control character, no full stop or blank at the end; a
// name outside it is a [fault.Usage].
func (g GroupID) Registration(name string) (RegistrationID, error) {
	bad := name == "" || utf8.RuneCountInString(name) > 260 || !utf8.ValidString(name) ||
		strings.ContainsAny(name, `<>*%&:?/\#+`) || strings.IndexFunc(name, unicode.IsControl) >= 0 ||
		strings.TrimSpace(name) != name || strings.HasSuffix(name, ".")
	if bad {
		return RegistrationID{}, fault.New(fault.Usage, `registration name %q is not 1 to 260 characters without <>*%%&:?/\#+, control characters, or a full stop or blank at its end`, name)
	}
	return RegistrationID{g, name}, nil
}

// RegistrationID is the place of a registration. Only [GroupID.Registration]
// and [ParseRegistrationID] make one.
type RegistrationID struct {
	group GroupID
	name  string
}

var registrationPath = regexp.MustCompile(`(?i)^/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.AzureStack/registrations/([^/]+)$`)

// ParseRegistrationID reads a resource id as Resource Manager and the stamp
// write it, in any letter case of its fixed parts. Everything else is a
// [fault.Refused].
func ParseRegistrationID(s string) (RegistrationID, error) {
	m := registrationPath.FindStringSubmatch(s)
	if m == nil {
		return RegistrationID{}, fault.New(fault.Refused, "resource id %q is not that of a Microsoft.AzureStack registration", s)
	}
	sub, err := ParseSubscriptionID(m[1])
	if err != nil {
		return RegistrationID{}, fault.New(fault.Refused, "resource id %q: %w", s, err)
	}
	group, err := sub.Group(m[2])
	if err != nil {
		return RegistrationID{}, fault.New(fault.Refused, "resource id %q: %w", s, err)
	}
	id, err := group.Registration(m[3])
	if err != nil {
		return RegistrationID{}, fault.New(fault.Refused, "resource id %q: %w", s, err)
	}
	return id, nil
}

// Group returns the group that holds the registration.
func (r RegistrationID) Group() GroupID { return r.group }

// Subscription returns the subscription that holds the registration.
func (r RegistrationID) Subscription() SubscriptionID { return r.group.subscription }

// Name returns the registration's name.
func (r RegistrationID) Name() string { return r.name }

// String returns the resource id,
// "/subscriptions/{guid}/resourceGroups/{group}/providers/Microsoft.AzureStack/registrations/{name}".
func (r RegistrationID) String() string {
	return r.group.String() + "/providers/Microsoft.AzureStack/registrations/" + r.name
}

// MarshalText returns what String returns.
func (r RegistrationID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Same reports whether both are the same resource; Azure compares names
// without letter case.
func (r RegistrationID) Same(other RegistrationID) bool {
	return strings.EqualFold(r.String(), other.String())
}

func (r RegistrationID) path() string {
	return r.group.path() + "/providers/Microsoft.AzureStack/registrations/" + url.PathEscape(r.name)
}
