package azuretest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const (
	subPath   = "/subscriptions/{subscription}"
	groupPath = subPath + "/resourcegroups/{group}"
	regPath   = groupPath + "/providers/microsoft.azurestack/registrations/{registration}"
	lockPath  = "/providers/microsoft.authorization/locks"
)

// The api-versions of each resource type. Those of registrations are all that
// were published; the others are those that clients of a registration use.
var (
	versionsMetadata      = []string{"2015-01-01", "2022-09-01"}
	versionsSubscriptions = []string{"2016-06-01", "2018-02-01", "2019-06-01", "2020-01-01", "2021-01-01", "2022-12-01"}
	versionsResources     = []string{"2016-09-01", "2018-02-01", "2018-05-01", "2019-10-01", "2020-06-01", "2021-04-01", "2022-09-01", "2025-04-01"}
	versionsRegistrations = []string{"2016-01-01", "2017-06-01", "2020-06-01-preview", "2022-03-01", "2022-06-01"}
	versionsLocks         = []string{"2016-09-01", "2017-04-01", "2020-05-01"}
	versionsPermissions   = []string{"2015-07-01", "2018-01-01-preview", "2018-07-01", "2022-04-01"}
)

// operation is one call of Resource Manager.
type operation struct {
	method, path string // literal segments of path are compared without case
	action       string // what the caller's role must cover; "" is nothing
	versions     []string
	serve        func(*Server, *call) answer
	anonymous    bool
}

var operations = []operation{
	{"GET", "/metadata/endpoints", "", versionsMetadata, (*Server).metadata, true},
	{"GET", "/providers/microsoft.azurestack/cloudmanifestfiles/{version}", "", versionsRegistrations, (*Server).cloudManifest, false},

	{"GET", "/subscriptions", "", versionsSubscriptions, (*Server).listSubscriptions, false},
	{"GET", subPath, "Microsoft.Resources/subscriptions/read", versionsSubscriptions, (*Server).getSubscription, false},
	{"GET", subPath + "/locations", "Microsoft.Resources/subscriptions/locations/read", versionsSubscriptions, (*Server).listLocations, false},
	{"GET", subPath + "/providers/microsoft.azurestack", "Microsoft.Resources/subscriptions/providers/read", versionsResources, (*Server).getProvider, false},
	{"POST", subPath + "/providers/microsoft.azurestack/register", "Microsoft.AzureStack/register/action", versionsResources, (*Server).registerProvider, false},

	{"GET", groupPath, "Microsoft.Resources/subscriptions/resourceGroups/read", versionsResources, (*Server).getGroup, false},
	{"PUT", groupPath, "Microsoft.Resources/subscriptions/resourceGroups/write", versionsResources, (*Server).putGroup, false},

	{"DELETE", groupPath, "Microsoft.Resources/subscriptions/resourceGroups/delete", versionsResources, (*Server).deleteGroup, false},
	{"POST", groupPath + "/validatemoveresources", "Microsoft.Resources/subscriptions/resourceGroups/validateMoveResources/action", versionsResources, (*Server).validateMove, false},
	{"POST", groupPath + "/moveresources", "Microsoft.Resources/subscriptions/resourceGroups/moveResources/action", versionsResources, (*Server).moveResources, false},
	{"GET", subPath + "/operationresults/{operation}", "", versionsResources, (*Server).operationResult, false},

	{"GET", subPath + "/providers/microsoft.azurestack/registrations", "Microsoft.AzureStack/registrations/read", versionsRegistrations, (*Server).listRegistrations, false},
	{"GET", groupPath + "/providers/microsoft.azurestack/registrations", "Microsoft.AzureStack/registrations/read", versionsRegistrations, (*Server).listRegistrations, false},
	{"GET", regPath, "Microsoft.AzureStack/registrations/read", versionsRegistrations, (*Server).getRegistration, false},
	{"PUT", regPath, "Microsoft.AzureStack/registrations/write", versionsRegistrations, (*Server).putRegistration, false},
	{"PATCH", regPath, "Microsoft.AzureStack/registrations/write", versionsRegistrations, (*Server).patchRegistration, false},
	{"DELETE", regPath, "Microsoft.AzureStack/registrations/delete", versionsRegistrations, (*Server).deleteRegistration, false},
	{"POST", regPath + "/getactivationkey", "Microsoft.AzureStack/registrations/getActivationKey/action", versionsRegistrations, (*Server).getActivationKey, false},
	{"POST", regPath + "/enableremotemanagement", "Microsoft.AzureStack/registrations/enableRemoteManagement/action", versionsRegistrations, (*Server).enableRemoteManagement, false},

	{"GET", subPath + lockPath, "Microsoft.Authorization/locks/read", versionsLocks, (*Server).listLocks, false},
	{"GET", groupPath + lockPath, "Microsoft.Authorization/locks/read", versionsLocks, (*Server).listLocks, false},
	{"GET", regPath + lockPath, "Microsoft.Authorization/locks/read", versionsLocks, (*Server).listLocks, false},
	{"GET", subPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/read", versionsLocks, (*Server).getLock, false},
	{"GET", groupPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/read", versionsLocks, (*Server).getLock, false},
	{"GET", regPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/read", versionsLocks, (*Server).getLock, false},
	{"PUT", subPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/write", versionsLocks, (*Server).putLock, false},
	{"PUT", groupPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/write", versionsLocks, (*Server).putLock, false},
	{"PUT", regPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/write", versionsLocks, (*Server).putLock, false},
	{"DELETE", subPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/delete", versionsLocks, (*Server).deleteLock, false},
	{"DELETE", groupPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/delete", versionsLocks, (*Server).deleteLock, false},
	{"DELETE", regPath + lockPath + "/{lock}", "Microsoft.Authorization/locks/delete", versionsLocks, (*Server).deleteLock, false},

	{"GET", groupPath + "/providers/microsoft.authorization/permissions", "Microsoft.Authorization/permissions/read", versionsPermissions, (*Server).listPermissions, false},
	{"GET", regPath + "/providers/microsoft.authorization/permissions", "Microsoft.Authorization/permissions/read", versionsPermissions, (*Server).listPermissions, false},
}

// route finds the operation of a path and the path's {names}. A path that is
// known for other methods only gives nil with params.
func route(method, path string) (*operation, map[string]string) {
	var known map[string]string
	have := strings.Split(strings.Trim(path, "/"), "/")
	for i := range operations {
		op := &operations[i]
		if params, ok := match(op.path, have); ok {
			if op.method == method {
				return op, params
			}
			known = params
		}
	}
	return nil, known
}

func match(pattern string, have []string) (map[string]string, bool) {
	want := strings.Split(pattern[1:], "/")
	if len(want) != len(have) {
		return nil, false
	}
	params := map[string]string{}
	for i, w := range want {
		if name, ok := strings.CutPrefix(w, "{"); ok && have[i] != "" {
			params[name[:len(name)-1]] = have[i]
		} else if !strings.EqualFold(w, have[i]) {
			return nil, false
		}
	}
	return params, true
}

// isLock reports whether the operation is on locks, which no lock stops.
func (o *operation) isLock() bool { return strings.Contains(o.path, lockPath) }

// scope is the resource that a call is about: its path without the name of an
// action.
func (c *call) scope() string {
	path := strings.TrimRight(c.URL.Path, "/")
	if c.Method == http.MethodPost {
		return path[:max(0, strings.LastIndexByte(path, '/'))]
	}
	return path
}

// action is what a role must cover for the call.
func (c *call) action() string {
	if c.op == nil {
		return ""
	}
	return c.op.action
}

// arm answers a call of Resource Manager. The order of the checks is that of
// the real one: who, which version, which subscription, may they, how often,
// and only then the state of things.
func (s *Server) arm(c *call) answer {
	if c.op == nil {
		if c.params != nil {
			return fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "The request method '%s' is not allowed for '%s'.", c.Method, c.URL.Path)
		}
		return fail(http.StatusNotFound, "InvalidResourceType", "The resource type could not be found for the path '%s'.", c.URL.Path)
	}
	if !c.op.anonymous {
		who, refused := s.authenticate(c)
		if who == nil {
			return refused
		}
		c.who = who
	}
	version := c.URL.Query().Get("api-version")
	if version == "" {
		return fail(400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	if !slices.Contains(c.op.versions, fold(version)) {
		return fail(400, versionCode(c.op), "%s", versionText(c))
	}
	if c.op.anonymous {
		return c.op.serve(s, c)
	}
	name, left, refused := s.throttle(c)
	if refused != nil {
		return *refused
	}
	a := s.checked(c)
	if a.header == nil {
		a.header = map[string]string{}
	}
	a.header[http.CanonicalHeaderKey(name)] = left
	return a
}

// checked serves a call of an authenticated caller after every check that does
// not depend on the operation.
func (s *Server) checked(c *call) answer {
	id, inSub := c.params["subscription"]
	if !inSub {
		return c.op.serve(s, c)
	}
	if !isGUID(id) {
		return fail(400, "InvalidSubscriptionId", "The provided subscription identifier '%s' is malformed or invalid.", id)
	}
	sub := s.subs[fold(id)]
	if sub == nil || sub.State == "Deleted" {
		return fail(404, "SubscriptionNotFound", "The subscription '%s' could not be found.", id)
	}
	if !strings.EqualFold(sub.TenantID, c.who.TID) {
		a := fail(401, "InvalidAuthenticationTokenTenant", "%s", wrongTenantText(s.issuer(c.who.TID), s.issuer(sub.TenantID)))
		a.header = map[string]string{"Www-Authenticate": s.challenge(sub.TenantID, "invalid_token", "The access token is from the wrong issuer")}
		return a
	}
	if c.op.action != "" && !c.who.may(c.op.action) {
		return fail(403, "AuthorizationFailed", "%s", s.authorizationText(c))
	}
	if a, ok := s.strongEnough(c); !ok {
		return a
	}
	write := c.Method != http.MethodGet && c.Method != http.MethodDelete
	if write && (sub.State == "Disabled" || sub.State == "Warned") {
		return fail(409, "ReadOnlyDisabledSubscription", "%s", readOnlyText(sub.ID))
	}
	inRP := strings.Contains(c.op.path, "/providers/microsoft.azurestack/registrations")
	if inRP && sub.Provider != "Registered" {
		return fail(409, "MissingSubscriptionRegistration", notRegisteredText)
	}
	if strings.HasPrefix(c.op.path, groupPath+"/") && s.groups[fold(groupID(sub.ID, c.params["group"]))] == nil {
		return fail(404, "ResourceGroupNotFound", "Resource group '%s' could not be found.", c.params["group"])
	}
	if strings.HasPrefix(c.op.path, regPath+"/") && s.registration(c) == nil {
		return fail(404, "ResourceNotFound", "%s", notFoundText(c))
	}
	if a, locked := s.locked(c); locked {
		return a
	}
	return c.op.serve(s, c)
}

// locked refuses what a lock on the resource, its group or its subscription
// stops: ReadOnly every write and delete, CanNotDelete every delete.
func (s *Server) locked(c *call) (answer, bool) {
	if c.Method == http.MethodGet || c.op.isLock() || c.params["group"] == "" {
		return answer{}, false
	}
	if strings.HasSuffix(c.op.path, "/validatemoveresources") || strings.HasSuffix(c.op.path, "/moveresources") {
		return answer{}, false // planMove knows what stops a move
	}
	group := groupID(c.params["subscription"], c.params["group"])
	id, verb := group, "write"
	if name := c.params["registration"]; name != "" {
		id = registrationID(c.params["subscription"], c.params["group"], name)
	}
	if c.Method == http.MethodDelete {
		verb = "delete"
	}
	if l := s.lockOver(id, verb == "delete"); l != nil {
		return fail(409, "ScopeLocked", "%s", lockedText(c.scope(), verb, l.scope)), true
	}
	return s.busy(group)
}

// versionCode: a resource provider's own types answer NoRegisteredProviderFound,
// Resource Manager's InvalidApiVersionParameter.
func versionCode(op *operation) string {
	if strings.HasPrefix(op.action, "Microsoft.AzureStack/registrations/") {
		return "NoRegisteredProviderFound"
	}
	return "InvalidApiVersionParameter"
}

func versionText(c *call) string {
	version := c.URL.Query().Get("api-version")
	if c.op == nil {
		return fmt.Sprintf("The api-version '%s' is invalid.", version)
	}
	if versionCode(c.op) == "NoRegisteredProviderFound" {
		return fmt.Sprintf("No registered resource provider found for location 'global' and API version '%s' for type 'registrations'. The supported api-versions are '%s'. The supported locations are 'global'.",
			version, strings.Join(c.op.versions, ", "))
	}
	return fmt.Sprintf("The api-version '%s' is invalid. The supported versions are '%s'.", version, strings.Join(c.op.versions, ","))
}

// The texts of errors that have more than one origin.

const notRegisteredText = "The subscription is not registered to use namespace 'Microsoft.AzureStack'. See https://aka.ms/rps-not-found for how to register subscriptions."

const malformedText = "The registration token is malformed."

// CodeCloudIDRegistered is the server's own name for the error whose code
// nobody published: "Cloud identifier [GUID] is already registered. Reusing
// cloud identifiers isn't allowed." Recognise it by that text.
const CodeCloudIDRegistered = "CloudIdAlreadyRegistered"

func cloudIDText(id string) string {
	return fmt.Sprintf("Cloud identifier [%s] is already registered. Reusing cloud identifiers isn't allowed.", id)
}

func cloudIDUpdateText(name string) string {
	return fmt.Sprintf("The registration '%s' is already associated with another Cloud identifier. Changing cloud identifiers is not allowed.", name)
}

func readOnlyText(subscription string) string {
	return fmt.Sprintf("The subscription '%s' is disabled and therefore marked as read only. You cannot perform any write actions on this subscription until it is re-enabled.", subscription)
}

func lockedText(scope, verb, lockedScope string) string {
	return fmt.Sprintf("The scope '%s' cannot perform %s operation because following scope(s) are locked: '%s'. Please remove the lock and try again.", scope, verb, lockedScope)
}

func notFoundText(c *call) string {
	return fmt.Sprintf("The Resource 'Microsoft.AzureStack/registrations/%s' under resource group '%s' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix", c.params["registration"], c.params["group"])
}

func wrongTenantText(have, want string) string {
	return fmt.Sprintf("The access token is from the wrong issuer '%s'. It must match the tenant '%s' associated with this subscription. Please use the authority (URL) '%s' to get the token. Note, if the subscription is transferred to another tenant there is no impact to the services, but information about new tenant could take time to propagate (up to an hour). If you just transferred your subscription and see this error message, please try back later.", have, want, want)
}

func (s *Server) authorizationText(c *call) string {
	name, oid := s.caller(c)
	return fmt.Sprintf("The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		name, oid, c.action(), c.scope())
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		if hyphen := i == 8 || i == 13 || i == 18 || i == 23; hyphen != (r == '-') || !hyphen && !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}
