package azure

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const oid = "11111111-2222-3333-4444-555555555555"

// Every row of the table of refusals: the kind, a word of the sentence, and the
// whole hint.
func TestClassify(t *testing.T) {
	const (
		sub = "/subscriptions/" + testSub
		reg = "azs-relay register BUNDLE --subscription " + testSub + " --group azurestack --name stamp"
	)
	tests := []struct {
		status        int
		code, message string
		kind          fault.Kind
		sentence      string
		hint          string
	}{
		{400, "InvalidRegistrationToken", "The registration token is malformed.", fault.Permanent, "does not understand the registration token of 64 bytes", "azs-relay inspect BUNDLE"},
		{400, "BadRequest", "The registration token is malformed.", fault.Permanent, "does not understand the registration token", "azs-relay inspect BUNDLE"},
		{400, "CloudIdUpdateNotAllowed", "The registration 'stamp' is already associated with another Cloud identifier. Changing cloud identifiers is not allowed.",
			fault.Permanent, `the name "stamp" belongs to the registration of another stamp`, "azs-relay register BUNDLE --subscription " + testSub + " --group azurestack --name AzureStack-CLOUD-ID"},
		{409, "Conflict", "The registration 'stamp' is already associated with another Cloud identifier. Changing cloud identifiers is not allowed.",
			fault.Permanent, `the name "stamp" belongs`, "azs-relay register BUNDLE --subscription " + testSub + " --group azurestack --name AzureStack-CLOUD-ID"},
		{409, "WhateverItIs", "Cloud identifier [" + oid + "] is already registered. Reusing cloud identifiers isn't allowed.",
			fault.Permanent, "cloud id " + oid + " is already registered", "azs-relay register BUNDLE --subscription ITS-SUBSCRIPTION --group ITS-GROUP --name ITS-NAME"},
		{409, "MissingSubscriptionRegistration", "The subscription is not registered to use namespace 'Microsoft.AzureStack'.",
			fault.Permanent, "does not have provider Microsoft.AzureStack", "az provider register --namespace Microsoft.AzureStack --wait --subscription " + testSub},
		{409, "MissingRegistrationForResourceProvider", "x", fault.Permanent, "provider", "az provider register --namespace Microsoft.AzureStack --wait --subscription " + testSub},
		{409, "SubscriptionNotRegistered", "x", fault.Permanent, "provider", "az provider register --namespace Microsoft.AzureStack --wait --subscription " + testSub},
		{403, "AuthorizationFailed", "The client 'me' with object id '" + oid + "' does not have authorization to perform action 'Microsoft.AzureStack/registrations/write' over scope '" + sub + "' or the scope is invalid.",
			fault.Permanent, "lacks the action Microsoft.AzureStack/registrations/write at scope " + sub, "azs-relay role --for register --subscription " + testSub},
		{403, "AuthorizationFailed", "The client 'me' with object id '" + oid + "' does not have authorization to perform action 'Microsoft.Authorization/locks/write' over scope '" + sub + "/resourceGroups/my (rg)' or the scope is invalid.",
			fault.Permanent, "lacks the action Microsoft.Authorization/locks/write", "azs-relay role --for register --subscription " + testSub},
		{403, "AuthorizationFailed", "", fault.Permanent, "lacks the action that the message names at scope " + sub, "azs-relay role --for register --subscription " + testSub},
		{403, "LinkedAuthorizationFailed", "The client 'me' with object id '" + oid + "' has permission to perform action 'A/write' on scope '/s1'; however, it does not have permission to perform action(s) 'B/join/action' on the linked scope(s) '/s2' or the linked scope(s) are invalid.",
			fault.Permanent, "lacks the action B/join/action at scope /s2", "azs-relay role --for register --subscription " + testSub},
		{403, "RequestDisallowedByPolicy", `Resource 'azurestack' was disallowed by policy. Policy identifiers: '[{"policyAssignment":{"name":"Allowed locations","id":"/x"}}]'.`,
			fault.Permanent, `policy "Allowed locations"`, reg + " --location AN-ALLOWED-LOCATION"},
		{403, "RequestDisallowedByAzure", "Resource 'x' was disallowed by Azure: Users must use MFA for Create operation.", fault.Permanent, "multi-factor", reg + " --auth browser"},
		{401, "InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer 'https://sts.windows.net/a/'. It must match the tenant 'https://sts.windows.net/" + oid + "/' associated with this subscription.",
			fault.NotForUs, "whose tenant is " + oid, reg + " --tenant " + oid},
		{401, "ExpiredAuthenticationToken", "The access token has expired.", fault.Permanent, "clock", reg},
		{401, "InvalidAuthenticationToken", "The access token is invalid.", fault.Permanent, "does not accept the access token", reg + " --cloud AzureCloud"},
		{404, "SubscriptionNotFound", "The subscription could not be found.", fault.NotForUs, "subscription " + testSub + " does not exist", "azs-relay register BUNDLE --subscription SUBSCRIPTION --tenant ITS-TENANT"},
		{400, "InvalidSubscriptionId", "x", fault.NotForUs, "does not exist", "azs-relay register BUNDLE --subscription SUBSCRIPTION --tenant ITS-TENANT"},
		{404, "ResourceGroupNotFound", "x", fault.Permanent, `resource group "azurestack" does not exist`, reg},
		{404, "ResourceNotFound", "x", fault.NothingYet, `registration "stamp" does not exist`, reg},
		{409, "ScopeLocked", "The scope '/a' cannot perform delete operation because following scope(s) are locked: '/b'. Please remove the lock and try again.",
			fault.Permanent, "a lock at /b", "az lock list --subscription " + testSub},
		{409, "InvalidResourceGroupLocation", "Invalid resource group location 'x'. The Resource group already exists in location 'west us'.", fault.Permanent, "in location west us", reg},
		{409, "InvalidResourceGroupLocation", "x", fault.Permanent, "in another location", reg},
		{400, "LocationNotAvailableForResourceGroup", "The provided location 'x' is not available for resource group. List of available regions is 'westus,eastus'.", fault.Permanent, "westus,eastus", reg + " --location westus"},
		{409, "ResourceGroupBeingDeleted", "x", fault.Unreachable, "being deleted", reg},
		{409, "ReadOnlyDisabledSubscription", "x", fault.Permanent, "is disabled", "azs-relay register BUNDLE --subscription AN-ENABLED-SUBSCRIPTION"},
		{400, "NoRegisteredProviderFound", "x", fault.Permanent, "api-version", reg + " --api-version 2022-06-01"},
		{400, "InvalidApiVersionParameter", "x", fault.Permanent, "api-version", reg + " --api-version 2022-06-01"},
		{429, "SubscriptionRequestsThrottled", "x", fault.Unreachable, "fewer requests", "azs-relay next"},
		{429, "", "", fault.Unreachable, "fewer requests", "azs-relay next"},
		{500, "InternalServerError", "x", fault.Unreachable, "cannot answer now", "azs-relay next"},
		{502, "", "", fault.Unreachable, "cannot answer now", "azs-relay next"},
		{503, "ServerTimeout", "x", fault.Unreachable, "cannot answer now", "azs-relay next"},
		{507, "Odd", "x", fault.Unreachable, "cannot answer now", "azs-relay next"},
		// A failure of Azure that mentions a token says nothing about the token.
		{500, "Odd", "The registration token is malformed.", fault.Unreachable, "cannot answer now", "azs-relay next"},
		{401, "Odd", "x", fault.Permanent, "does not accept the identity", reg},
		{403, "Odd", "x", fault.Permanent, "forbids it", reg},
		{404, "", "", fault.Permanent, "proxy", reg},
		{302, "", "", fault.Permanent, "proxy", reg},
		{418, "Odd", "x", fault.Permanent, "Azure refused", reg},
	}
	q := Requests{Endpoint: "https://management.azure.com"}.PutRegistration(mustID(t, "azurestack", "stamp"), secret.New(canary))
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.status, " ", tt.code), func(t *testing.T) {
			body := "<html>"
			if tt.code != "" {
				body = fmt.Sprintf(`{"error":{"code":%q,"message":%q}}`, tt.code, tt.message)
			}
			resp := &http.Response{StatusCode: tt.status, Header: http.Header{"X-Ms-Request-Id": {"req-1"}, "X-Ms-Correlation-Request-Id": {"cor-1"}}}
			err := classify(newRefusal(resp, []byte(body), canary), q)
			if k := fault.KindOf(err); k != tt.kind {
				t.Errorf("kind %s, want %s", k, tt.kind)
			}
			if !strings.Contains(err.Error(), tt.sentence) {
				t.Errorf("%q does not say %q", err, tt.sentence)
			}
			if h := fault.HintOf(err); h != tt.hint {
				t.Errorf("hint %q\nwant %q", h, tt.hint)
			}
			for _, want := range []string{fmt.Sprint(tt.status), tt.code, "request id cor-1", q.Purpose} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestRefusalReadsEveryShape(t *testing.T) {
	q := Requests{Endpoint: "https://h"}.Provider(mustID(t, "g", "n").Subscription())
	read := func(body string, h http.Header) *Refusal {
		return newRefusal(&http.Response{StatusCode: 403, Header: h}, []byte(body), "")
	}
	flat := read(`{"code":"AuthorizationFailed","message":"m"}`, http.Header{})
	if flat.Code != "AuthorizationFailed" || flat.Message != "m" {
		t.Errorf("flat %+v", flat)
	}
	deep := read(`{"error":{"code":"InvalidTemplateDeployment","message":"see details","details":[{"code":"RequestDisallowedByPolicy","message":"m","additionalInfo":[{"type":"PolicyViolation","info":{"policyDefinitionDisplayName":"No stamps"}}]}]}}`, http.Header{})
	if err := classify(deep, q); !strings.Contains(err.Error(), `policy "No stamps"`) {
		t.Errorf("deep: %v", err)
	}
	odd := read(`{"error":{"code":"x y\n","message":"m"}}`, http.Header{"X-Ms-Request-Id": {"\x1b[31m"}})
	if odd.Code != "" || odd.RequestID != "" {
		t.Errorf("odd %+v", odd)
	}
	const claims = `Bearer authorization_uri="https://login.example/", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoicDEifX19"`
	mfa := read(`{"error":{"code":"Odd","message":"m"}}`, http.Header{"Www-Authenticate": {claims}})
	mfa.Status = 401
	if err := classify(mfa, q); !strings.Contains(err.Error(), claims) || !strings.Contains(fault.HintOf(err), "--auth browser") {
		t.Errorf("claims challenge: %v", err)
	}
	if long := read(`{"error":{"code":"Odd","message":"`+strings.Repeat("ä", maxMessage)+`"}}`, http.Header{}); len(long.Message) > maxMessage+3 {
		t.Errorf("message of %d bytes", len(long.Message))
	}
}

// Azure's words are foreign: they may quote the token, whole or in part.
func TestScrub(t *testing.T) {
	const jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJvaWQiOiIxIn0.c2lnbmF0dXJl"
	tests := []struct{ in, token, want string }{
		{"plain", canary, "plain"},
		{"token '" + canary + "' is bad", canary, "token '[redacted]' is bad"},
		{"starts with " + canary[:echo] + "…", canary, "starts with [redacted]…"},
		{"middle " + canary[20:50] + " and " + canary[5:30], canary, "middle [redacted] and [redacted]"},
		{"short tokenvalue here", "tokenvalue", "short [redacted] here"},
		{"bearer " + jwt, "", "bearer [redacted]"},
		{"az login --claims-challenge eyJhY2Nlc3NfdG9rZW4iOnt9fQ==", "", "az login --claims-challenge eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="},
		{"esc\x1b[31m\r\nline", "", "esc[31m\nline"},
	}
	for _, tt := range tests {
		if got := scrub(tt.in, tt.token); got != tt.want {
			t.Errorf("scrub(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add(400, `{"error":{"code":"InvalidRegistrationToken","message":"The registration token `+canary+` is malformed."}}`)
	f.Add(403, `{"error":{"code":"AuthorizationFailed","message":"The client 'a' with object id 'b' does not have authorization to perform action 'c' over scope 'd'"}}`)
	f.Add(200, `{`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		q := Requests{Endpoint: "https://h"}.PutRegistration(mustID(t, "g", "n"), secret.New(canary))
		err := classify(newRefusal(&http.Response{StatusCode: status, Header: http.Header{}}, []byte(body), canary), q)
		if fault.KindOf(err) == fault.Unexpected || fault.HintOf(err) == "" {
			t.Errorf("%v, hint %q", err, fault.HintOf(err))
		}
		for i := 0; i+echo <= len(canary); i++ {
			if strings.Contains(err.Error()+fault.HintOf(err), canary[i:i+echo]) {
				t.Errorf("the token shows in %q", err)
			}
		}
		if strings.ContainsAny(fault.HintOf(err), "\n\x1b") {
			t.Errorf("hint %q", fault.HintOf(err))
		}
	})
}
