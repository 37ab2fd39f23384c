package azuretest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// When says at which side of the act a fault strikes.
type When string

// The two sides of the act. The difference is what a client must survive: after
// AfterActing the registration exists although nobody was told.
const (
	BeforeActing When = "before"
	AfterActing  When = "after"
)

// Fault is a failure to come. It strikes requests that match Method and Path,
// after letting After of them pass, Times times. Of several that match, the one
// added first strikes.
type Fault struct {
	// Method is an HTTP method; "" or "*" is any.
	Method string `json:"method,omitempty"`
	// Path is a pattern for the whole path without the query: * stands for any
	// run of characters, letters match without case, "" is any path.
	Path string `json:"path,omitempty"`
	// After is how many matching requests pass first.
	After int `json:"skip,omitempty"`
	// Times is how many requests are struck; 0 is every one until
	// [Server.ClearFaults].
	Times int `json:"times,omitempty"`

	// Status and Code make the answer {"error":{"code":…,"message":…}}, in
	// Entra's form on Entra's paths. One of both is enough when the code is one
	// of [Documented]; so is the message, which then names the action, the
	// scope and the caller as Azure's does.
	Status  int    `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Header is added to the answer, for example Retry-After.
	Header map[string]string `json:"header,omitempty"`
	// Acted answers the failure although the call acted.
	Acted bool `json:"acted,omitempty"`

	// Drop closes the connection without an answer.
	Drop When `json:"drop,omitempty"`
	// Hold gives no answer until [Server.Release], or until the client leaves.
	// A call held before acting never acts when the client leaves. Released, it
	// goes on with the rest of the fault.
	Hold When `json:"hold,omitempty"`

	number, seen, struck int
}

// documented error: the status and the text that go with a code.
type documentedError struct {
	status int
	header map[string]string
	text   func(s *Server, c *call) string
}

func text(format string) func(*Server, *call) string {
	return func(*Server, *call) string { return format }
}

var documented = map[string]documentedError{
	"AuthorizationFailed": {403, nil, func(s *Server, c *call) string { return s.authorizationText(c) }},
	"LinkedAuthorizationFailed": {403, nil, func(s *Server, c *call) string {
		name, oid := s.caller(c)
		return fmt.Sprintf("The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action(s) 'Microsoft.Authorization/locks/write' on the linked scope(s) '%s' or the linked scope(s) are invalid.",
			name, oid, c.action(), c.scope(), c.scope())
	}},
	"RequestDisallowedByPolicy": {403, nil, func(s *Server, c *call) string {
		name := c.URL.Path[strings.LastIndexByte(c.URL.Path, '/')+1:]
		return fmt.Sprintf("Resource '%s' was disallowed by policy. Policy identifiers: '[{\"policyAssignment\":{\"name\":\"Allowed locations\",\"id\":\"/subscriptions/%s/providers/Microsoft.Authorization/policyAssignments/allowed-locations\"}}]'.",
			name, or(c.params["subscription"], s.Subscription))
	}},
	"ReadOnlyDisabledSubscription": {409, nil, func(s *Server, c *call) string {
		return readOnlyText(or(c.params["subscription"], s.Subscription))
	}},
	"MissingSubscriptionRegistration": {409, nil, text(notRegisteredText)},
	"MissingRegistrationForResourceProvider": {409, nil, func(s *Server, c *call) string {
		return fmt.Sprintf("The subscription '%s' is not registered for the resource provider 'Microsoft.AzureStack'.", or(c.params["subscription"], s.Subscription))
	}},
	"SubscriptionNotRegistered": {409, nil, text("The subscription is not registered.")},
	"ScopeLocked": {409, nil, func(_ *Server, c *call) string {
		verb := "write"
		if c.Method == http.MethodDelete {
			verb = "delete"
		}
		return lockedText(c.scope(), verb, c.scope())
	}},
	"SubscriptionNotFound": {404, nil, func(s *Server, c *call) string {
		return fmt.Sprintf("The subscription '%s' could not be found.", or(c.params["subscription"], s.Subscription))
	}},
	"ResourceGroupNotFound": {404, nil, func(_ *Server, c *call) string {
		return fmt.Sprintf("Resource group '%s' could not be found.", c.params["group"])
	}},
	"ResourceNotFound":              {404, nil, func(_ *Server, c *call) string { return notFoundText(c) }},
	"InvalidRegistrationToken":      {400, nil, text(malformedText)},
	CodeCloudIDRegistered:           {409, nil, func(_ *Server, c *call) string { return cloudIDText(guidOf(c.URL.Path)) }},
	"CloudIdUpdateNotAllowed":       {400, nil, func(_ *Server, c *call) string { return cloudIDUpdateText(c.params["registration"]) }},
	"NoRegisteredProviderFound":     {400, nil, func(_ *Server, c *call) string { return versionText(c) }},
	"InvalidApiVersionParameter":    {400, nil, func(_ *Server, c *call) string { return versionText(c) }},
	"InvalidResourceGroupLocation":  {409, nil, text("Invalid resource group location. The Resource group already exists in another location.")},
	"SubscriptionRequestsThrottled": {429, map[string]string{"Retry-After": "17"}, text(throttledText)},
	"TooManyRequests":               {429, map[string]string{"Retry-After": "17"}, text("The request is being throttled.")},
	"InternalServerError":           {500, nil, text("Encountered internal server error. Diagnostic information: timestamp '20260101T000000Z', tracking id '00000000-0000-0000-0000-000000000000'.")},
	"BadGateway":                    {502, nil, text("The upstream service answered with an error.")},
	"ServiceUnavailable":            {503, nil, text("The service is unavailable now, retry the request later. If issue persists please contact support.")},
	"ServerTimeout":                 {503, nil, text("The request timed out.")},
	"GatewayTimeout":                {504, nil, text("The gateway did not receive a response from 'Microsoft.AzureStack' within the specified time period.")},
	"ExpiredAuthenticationToken":    {401, nil, text("The access token has expired.")},
	"InvalidAuthenticationToken":    {401, nil, text("The access token is invalid.")},
	"InvalidAuthenticationTokenTenant": {401, nil, func(s *Server, c *call) string {
		return wrongTenantText(s.Tenant, guidOf(s.Tenant))
	}},
}

// Documented returns the status that Azure documents for an error code, or 0
// for a code that is none of those that a registration can meet.
func Documented(code string) int { return documented[code].status }

// Fail adds a fault. It panics on one that can do nothing, see [Fault.Valid].
func (s *Server) Fail(f Fault) {
	if err := f.Valid(); err != nil {
		panic("azuretest: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultCount++
	f.number = s.faultCount
	s.faults = append(s.faults, &f)
}

// ClearFaults removes every fault. Calls that are held stay held until
// [Server.Release].
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Valid reports what is wrong with a fault: it does nothing, or names a side of
// the act that is neither before nor after, or has no status for its code.
func (f *Fault) Valid() error {
	for _, w := range []When{f.Drop, f.Hold} {
		if w != "" && w != BeforeActing && w != AfterActing {
			return fmt.Errorf("fault: %q is neither %q nor %q", w, BeforeActing, AfterActing)
		}
	}
	switch {
	case f.Status == 0 && f.Code == "" && f.Drop == "" && f.Hold == "":
		return errors.New("fault: needs a status, a code, drop or hold")
	case f.Status == 0 && f.Code != "" && Documented(f.Code) == 0:
		return fmt.Errorf("fault: code %q is not a documented one and needs a status", f.Code)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("fault: status %d is not from 200 to 599", f.Status)
	case f.After < 0 || f.Times < 0:
		return fmt.Errorf("fault: skip %d and times %d must not be negative", f.After, f.Times)
	}
	return nil
}

// Throttle is a fault that answers 429 with Retry-After.
func Throttle(method, path string, retryAfterSeconds, times int) Fault {
	return Fault{Method: method, Path: path, Times: times, Code: "SubscriptionRequestsThrottled",
		Header: map[string]string{"Retry-After": fmt.Sprint(retryAfterSeconds)}}
}

// ClaimsChallenge is a fault that answers once with the 401 of continuous
// access evaluation: the caller must fetch a bearer with these claims.
func ClaimsChallenge(method, path string) Fault {
	return Fault{Method: method, Path: path, Times: 1, Status: 401, Code: "TokenIssuedBeforeRevocationTimestamp",
		Message: "The user's authentication token was issued before the revocation timestamp.",
		Header:  map[string]string{"Www-Authenticate": `Bearer realm="", authorization_uri="https://login.azuretest.invalid/common/oauth2/authorize", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ=="`}}
}

func (f *Fault) fails() bool       { return f.Status != 0 || f.Code != "" }
func (f *Fault) holds(w When) bool { return f != nil && f.Hold == w }
func (f *Fault) drops(w When) bool { return f != nil && f.Drop == w }

// takeFault returns a copy of the fault that strikes the call, or nil.
func (s *Server) takeFault(c *call) *Fault {
	for _, f := range s.faults {
		if f.Times > 0 && f.struck >= f.Times || !matches(f.Method, f.Path, c.Method, c.URL.Path) {
			continue
		}
		f.seen++
		if f.seen <= f.After {
			continue
		}
		f.struck++
		hit := *f
		return &hit
	}
	return nil
}

// failure is the answer of a fault.
func (s *Server) failure(f *Fault, c *call) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := documented[f.Code]
	status, message := f.Status, f.Message
	if status == 0 {
		status = doc.status
	}
	code := or(f.Code, strings.ReplaceAll(http.StatusText(status), " ", ""))
	if c.who == nil {
		c.who, _ = s.authenticate(c)
	}
	if message == "" {
		message = http.StatusText(status) + "."
		if doc.text != nil {
			message = doc.text(s, c)
		}
	}
	a := fail(status, code, "%s", message)
	if _, _, ok := entraPath(c.URL.Path); ok {
		a = s.entraError(status, code, 90033, "%s", message)
	}
	a.header = map[string]string{}
	if status == http.StatusUnauthorized {
		a.header["Www-Authenticate"] = s.challenge(s.Tenant, "invalid_token", message)
	}
	for _, h := range []map[string]string{doc.header, f.Header} {
		for k, v := range h {
			a.header[http.CanonicalHeaderKey(k)] = v
		}
	}
	if f.Code == "" && f.Message == "" && status < 300 {
		a.body = nil
	}
	return a
}
