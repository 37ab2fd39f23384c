package azure

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Refusal is an answer of Resource Manager that is not a success. Its text is
// what Azure's support asks for; what it means and what to do is in the
// [fault.Error] around it.
type Refusal struct {
	Status    int    // HTTP status
	Code      string // error.code, "" when the answer is not one of Resource Manager
	Message   string // error.message, without the registration token
	RequestID string // x-ms-correlation-request-id, else x-ms-request-id

	codes     []string // Code and those of error.details
	policy    string   // the policy that refused, by name
	challenge string   // claims challenge of a 401
}

// Error returns `Azure answered 403 AuthorizationFailed: "The client …" (request id …)`.
func (r *Refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Azure answered %d", r.Status)
	if r.Code != "" {
		fmt.Fprintf(&b, " %s", r.Code)
	} else if t := http.StatusText(r.Status); t != "" {
		fmt.Fprintf(&b, " %s", t)
	}
	if r.Message != "" {
		fmt.Fprintf(&b, ": %q", r.Message)
	}
	if r.challenge != "" {
		fmt.Fprintf(&b, ", challenge %s", r.challenge)
	}
	if r.RequestID != "" {
		fmt.Fprintf(&b, " (request id %s)", r.RequestID)
	}
	return b.String()
}

func (r *Refusal) has(codes ...string) bool {
	return slices.ContainsFunc(codes, func(want string) bool {
		return slices.ContainsFunc(r.codes, func(got string) bool { return strings.EqualFold(got, want) })
	})
}

// maxMessage is the longest message of Azure that is shown, in bytes.
const maxMessage = 4096

// plainCode is what an error code looks like; anything else is foreign text
// and only shown as part of the message.
var plainCode = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,99}$`)

// newRefusal reads an answer: {"error":{"code","message","details","additionalInfo"}},
// or the same without the outer object. The token, which Azure might quote, is
// taken out of every text.
func newRefusal(resp *http.Response, body []byte, token string) *Refusal {
	r := &Refusal{Status: resp.StatusCode}
	for _, name := range []string{"x-ms-correlation-request-id", "x-ms-request-id"} {
		if id := resp.Header.Get(name); r.RequestID == "" && plainID.MatchString(id) {
			r.RequestID = id
		}
	}
	for _, c := range resp.Header.Values("WWW-Authenticate") {
		if strings.Contains(c, "claims=") {
			r.challenge = scrub(c, token)
		}
	}
	type inner struct {
		Code           string `json:"code"`
		Message        string `json:"message"`
		AdditionalInfo []struct {
			Info struct {
				PolicyDefinitionDisplayName string `json:"policyDefinitionDisplayName"`
				PolicyAssignmentDisplayName string `json:"policyAssignmentDisplayName"`
				PolicyAssignmentName        string `json:"policyAssignmentName"`
			} `json:"info"`
		} `json:"additionalInfo"`
	}
	type full struct {
		inner
		Details []inner `json:"details"`
	}
	var answer struct {
		Error full `json:"error"`
		full
	}
	if json.Unmarshal(body, &answer) != nil {
		return r
	}
	e := answer.Error
	if e.Code == "" {
		e = answer.full
	}
	r.Message = scrub(e.Message, token)
	for _, i := range append([]inner{e.inner}, e.Details...) {
		if plainCode.MatchString(i.Code) {
			r.codes = append(r.codes, i.Code)
		}
		for _, a := range i.AdditionalInfo {
			for _, name := range []string{a.Info.PolicyAssignmentDisplayName, a.Info.PolicyDefinitionDisplayName, a.Info.PolicyAssignmentName} {
				if r.policy == "" {
					r.policy = scrub(name, token)
				}
			}
		}
	}
	if plainCode.MatchString(e.Code) {
		r.Code = e.Code
	}
	return r
}

var plainID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// bearer matches the three parts of a JWS, as access tokens and activation keys
// are; a claims challenge has one part and passes.
var bearer = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?`)

// echo is the shortest piece of the token, in bytes, that is recognised.
const echo = 16

// scrub bounds a foreign text and takes every piece of the token, everything
// shaped like a bearer, and the control characters out of it.
func scrub(s, token string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	if len(token) >= echo {
		var b strings.Builder
		for i := 0; i < len(s); {
			if i+echo > len(s) || !strings.Contains(token, s[i:i+echo]) {
				b.WriteByte(s[i])
				i++
				continue
			}
			for i += echo; i < len(s) && strings.Contains(token, s[i-echo+1:i+1]); {
				i++
			}
			b.WriteString("[redacted]")
		}
		s = b.String()
	} else if token != "" {
		s = strings.ReplaceAll(s, token, "[redacted]")
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return -1
		}
		return r
	}, s)
	return bearer.ReplaceAllString(s, "[redacted]")
}

// meaning is what a refusal means to the operator.
type meaning struct {
	kind     fault.Kind
	sentence string
	hint     string // the next command to paste
}

// rule recognises refusals, first by code and then by message, for the codes of
// the resource provider are not all public.
type rule struct {
	codes   []string
	message *regexp.Regexp
	explain func(*Refusal, Request) meaning
}

// missingProvider are the codes of a provider that the subscription does not
// have, or not yet everywhere.
var missingProvider = []string{"MissingSubscriptionRegistration", "MissingRegistrationForResourceProvider", "SubscriptionNotRegistered"}

// retiredVersion are the codes of an api-version that Azure no longer takes.
var retiredVersion = []string{"NoRegisteredProviderFound", "InvalidApiVersionParameter", "UnsupportedApiVersion"}

var (
	cloudIDInMessage = regexp.MustCompile(`(?i)cloud identifier '?\[?([^\s'\]]+)`)
	action           = regexp.MustCompile(`perform actions?(?:\(s\))? '([^']+)'`)
	linkedAction     = regexp.MustCompile(`does not have permission to perform actions?(?:\(s\))? '([^']+)'`)
	scopeOf          = regexp.MustCompile(`(?:over|on)(?: the)?(?: linked)? scopes?(?:\(s\))? '([^']+)'`)
	linkedScope      = regexp.MustCompile(`on the linked scopes?(?:\(s\))? '([^']+)'`)
	rightTenant      = regexp.MustCompile(`must match (?:one of )?the tenants? '(?:https?://[^/']+/)?([0-9a-fA-F-]{36})`)
	groupLocation    = regexp.MustCompile(`(?i)already exists in location '([^']+)'`)
	regionList       = regexp.MustCompile(`(?i)list of available regions is '([^']+)'`)
	policyName       = regexp.MustCompile(`"policyAssignment":\{"name":"([^"]+)"`)
	lockedScope      = regexp.MustCompile(`(?i)scopes?(?:\(s\))? are locked: '([^']+)'`)
)

// rules is the table of refusals. Order matters only among the messages.
var rules = []rule{
	{[]string{"InvalidRegistrationToken"}, regexp.MustCompile(`(?i)registration token is (malformed|invalid)`), func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, fmt.Sprintf("Azure does not understand the registration token of %d bytes that was sent as it came; the stamp may have made it in a token version that this cloud does not take", q.token.Len()),
			"azs-relay inspect BUNDLE"}
	}},
	{[]string{"CloudIdUpdateNotAllowed"}, regexp.MustCompile(`(?i)already associated with another cloud identifier`), func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, fmt.Sprintf("the name %q belongs to the registration of another stamp; this stamp needs a name of its own", q.place.registration),
			again(q.place.named("")) + " --name AzureStack-CLOUD-ID"}
	}},
	{nil, regexp.MustCompile(`(?i)cloud identifier .*is already registered|reusing cloud identifiers`), func(r *Refusal, q Request) meaning {
		id := "of this stamp"
		if m := cloudIDInMessage.FindStringSubmatch(r.Message); m != nil {
			id = m[1]
		}
		return meaning{fault.Permanent, fmt.Sprintf("cloud id %s is already registered under another name, group or subscription; register it there again, or remove that registration first", id),
			"azs-relay register BUNDLE --subscription ITS-SUBSCRIPTION --group ITS-GROUP --name ITS-NAME"}
	}},
	{missingProvider, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, "the subscription does not have provider Microsoft.AzureStack registered",
			"az provider register --namespace Microsoft.AzureStack --wait --subscription " + q.place.subscription.guid}
	}},
	{[]string{"AuthorizationFailed", "LinkedAuthorizationFailed"}, nil, unauthorized},
	{[]string{"RequestDisallowedByPolicy"}, nil, func(r *Refusal, q Request) meaning {
		name := r.policy
		if m := policyName.FindStringSubmatch(r.Message); name == "" && m != nil {
			name = m[1]
		}
		if name == "" {
			name = "named in the message"
		}
		return meaning{fault.Permanent, fmt.Sprintf("policy %q of the subscription forbids it", name),
			again(q.place) + " --location AN-ALLOWED-LOCATION"}
	}},
	{[]string{"RequestDisallowedByAzure"}, regexp.MustCompile(`(?i)must use MFA|multi-?factor`), func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, "Azure lets users change resources only after multi-factor authentication; service principals are exempt",
			again(q.place) + " --auth browser"}
	}},
	{[]string{"InvalidAuthenticationTokenTenant"}, nil, func(r *Refusal, q Request) meaning {
		tenant := "THE-SUBSCRIPTIONS-TENANT"
		if m := rightTenant.FindStringSubmatch(r.Message); m != nil {
			tenant = m[1]
		}
		return meaning{fault.NotForUs, fmt.Sprintf("the identity belongs to another tenant than subscription %s, whose tenant is %s", q.place.subscription, tenant),
			again(q.place) + " --tenant " + tenant}
	}},
	{[]string{"ExpiredAuthenticationToken"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, "the access token has expired in Azure's eyes; the clock of this machine or of the program that gave the token may be wrong", again(q.place)}
	}},
	{[]string{"InvalidAuthenticationToken", "AuthenticationFailed", "InvalidAuthenticationTokenAudience"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, "Azure does not accept the access token; it may be one of another cloud", again(q.place) + " --cloud " + AzureCloud}
	}},
	{[]string{"SubscriptionNotFound", "InvalidSubscriptionId"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.NotForUs, fmt.Sprintf("subscription %s does not exist in this cloud, or the identity's tenant does not hold it", q.place.subscription),
			again(place{}) + " --subscription SUBSCRIPTION --tenant ITS-TENANT"}
	}},
	{[]string{"ResourceGroupNotFound"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, fmt.Sprintf("resource group %q does not exist in subscription %s", q.place.group, q.place.subscription), again(q.place)}
	}},
	{[]string{"ResourceNotFound", "NotFound"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.NothingYet, fmt.Sprintf("registration %q does not exist in resource group %q of subscription %s", q.place.registration, q.place.group, q.place.subscription), again(q.place)}
	}},
	{[]string{"ScopeLocked"}, nil, func(r *Refusal, q Request) meaning {
		scope := "of the registration, its group or its subscription"
		hint := "az lock list --subscription " + q.place.subscription.guid
		if m := lockedScope.FindStringSubmatch(r.Message); m != nil {
			scope = "at " + m[1]
		}
		return meaning{fault.Permanent, fmt.Sprintf("a lock %s forbids it; a lock for reading only forbids every change, the other kind forbids deletion", scope), hint}
	}},
	{[]string{"InvalidResourceGroupLocation"}, nil, func(r *Refusal, q Request) meaning {
		where := "another location"
		if m := groupLocation.FindStringSubmatch(r.Message); m != nil {
			where = "location " + m[1]
		}
		return meaning{fault.Permanent, fmt.Sprintf("resource group %q exists already, in %s", q.place.group, where), again(q.place)}
	}},
	{[]string{"LocationNotAvailableForResourceGroup"}, nil, func(r *Refusal, q Request) meaning {
		regions, first := "named in the message", "A-LOCATION"
		if m := regionList.FindStringSubmatch(r.Message); m != nil {
			regions = m[1]
			first, _, _ = strings.Cut(regions, ",")
		}
		return meaning{fault.Permanent, "no resource group can be created in that location; those that take one are " + regions, again(q.place) + " --location " + shell(first)}
	}},
	{[]string{"ResourceGroupBeingDeleted"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Unreachable, fmt.Sprintf("resource group %q is being deleted", q.place.group), again(q.place)}
	}},
	{[]string{"ReadOnlyDisabledSubscription", "SubscriptionDisabled", "DisabledSubscription"}, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, fmt.Sprintf("subscription %s is disabled and can only be read until its owner enables it again", q.place.subscription),
			again(place{}) + " --subscription AN-ENABLED-SUBSCRIPTION"}
	}},
	{retiredVersion, nil, func(r *Refusal, q Request) meaning {
		return meaning{fault.Permanent, "Azure no longer takes the api-version of the request " + q.URL, again(q.place) + " --api-version " + NewestRegistrationsVersion}
	}},
}

// classify gives a refusal of a request its meaning: by code, then by message,
// then by status.
func classify(r *Refusal, q Request) error {
	m := mean(r, q)
	return fault.New(m.kind, "cannot %s: %s: %w", q.Purpose, m.sentence, r).Hint("%s", m.hint)
}

func mean(r *Refusal, q Request) meaning {
	for _, rule := range rules {
		if r.has(rule.codes...) {
			return rule.explain(r, q)
		}
	}
	// Throttling and failures of Azure never say anything about the request.
	if slices.Contains(patient, r.Status) || r.Status >= 500 {
		sentence := "Azure cannot answer now"
		if r.Status == http.StatusTooManyRequests {
			sentence = "Azure asks for fewer requests at a time"
		}
		return meaning{fault.Unreachable, sentence, "azs-relay next"}
	}
	for _, rule := range rules {
		if rule.message != nil && rule.message.MatchString(r.Message) {
			return rule.explain(r, q)
		}
	}
	switch {
	case r.Status == http.StatusUnauthorized && r.challenge != "":
		return meaning{fault.Permanent, "Azure asks for a stronger sign-in than this credential can give", again(q.place) + " --auth browser"}
	case r.Status == http.StatusUnauthorized:
		return meaning{fault.Permanent, "Azure does not accept the identity", again(q.place)}
	case r.Status == http.StatusForbidden && r.Code != "":
		return meaning{fault.Permanent, "Azure forbids it to this identity", again(q.place)}
	case r.Code == "":
		return meaning{fault.Permanent, fmt.Sprintf("the answer is not one of Resource Manager; a proxy, or something else at %s, may have given it", hostOf(q.URL)), again(q.place)}
	}
	return meaning{fault.Permanent, "Azure refused", again(q.place)}
}

func unauthorized(r *Refusal, q Request) meaning {
	find := func(res ...*regexp.Regexp) string {
		for _, re := range res {
			if m := re.FindStringSubmatch(r.Message); m != nil {
				return m[1]
			}
		}
		return ""
	}
	missing, scope := find(linkedAction, action), find(linkedScope, scopeOf)
	if scope == "" && q.place.subscription.guid != "" {
		scope = q.place.subscription.Path()
	}
	if missing == "" {
		missing = "that the message names"
	}
	return meaning{fault.Permanent, fmt.Sprintf("the identity lacks the action %s at scope %s", missing, scope), roleCommand(missing, q.place)}
}

// again returns the register command for a place, as far as it is known.
func again(p place) string {
	s := "azs-relay register BUNDLE"
	for _, f := range []struct{ flag, value string }{{"subscription", p.subscription.guid}, {"group", p.group}, {"name", p.registration}} {
		if f.value != "" {
			s += " --" + f.flag + " " + shell(f.value)
		}
	}
	return s
}

// named returns the place with another registration name.
func (p place) named(name string) place {
	p.registration = name
	return p
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@-]+$`)

// shell quotes a word for a command line of one line.
func shell(s string) string {
	s = strings.ReplaceAll(s, "\n", " ")
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
