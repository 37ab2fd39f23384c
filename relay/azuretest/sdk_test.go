package azuretest_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

// These tests use Microsoft's SDK for Go as the judge: its credentials and its
// pipeline must work against the server with nothing but a cloud configuration
// and a transport that trusts the CA.

func clientOptions(t *testing.T, srv *azuretest.Server) azcore.ClientOptions {
	transport := srv.Client()
	t.Cleanup(transport.CloseIdleConnections)
	return azcore.ClientOptions{
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: srv.Authority,
			Services: map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: srv.URL, Audience: srv.Audience}}},
		Transport: transport,
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
}

// armCall makes one call through azcore's pipeline and returns the status, or
// the error of the SDK.
func armCall(t *testing.T, srv *azuretest.Server, cred azcore.TokenCredential, co azcore.ClientOptions, method, path, body string) (map[string]any, error) {
	t.Helper()
	client, err := arm.NewClient("azuretest", "v0.0.1", cred, &arm.ClientOptions{ClientOptions: co, DisableRPRegistration: true})
	if err != nil {
		t.Fatal(err)
	}
	req, err := runtime.NewRequest(t.Context(), method, runtime.JoinPaths(client.Endpoint(), path))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		if err := runtime.MarshalAsJSON(req, json.RawMessage(body)); err != nil {
			t.Fatal(err)
		}
	}
	res, err := client.Pipeline().Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		return nil, runtime.NewResponseError(res)
	}
	var out map[string]any
	if err := runtime.UnmarshalAsJSON(res, &out); err != nil {
		t.Fatal(err)
	}
	return out, nil
}

func TestSDKClientSecret(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	co := clientOptions(t, srv)
	cred, err := azidentity.NewClientSecretCredential(srv.Tenant, srv.ClientID, srv.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: co, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	reg := "/subscriptions/" + srv.Subscription + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/r1"
	out, err := armCall(t, srv, cred, co, "PUT", reg+"?api-version=2017-06-01", registrationBody(token(1)))
	if err != nil || out["name"] != "r1" {
		t.Fatalf("PUT: %v, %v", out, err)
	}
	if out, err = armCall(t, srv, cred, co, "POST", reg+"/getActivationKey?api-version=2017-06-01", ""); err != nil || out["activationKey"] == "" {
		t.Errorf("key: %v", err)
	}
	// The SDK's own error decoder must find the code.
	_, err = armCall(t, srv, cred, co, "PUT", reg+"?api-version=2017-06-01", registrationBody(token(2)))
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != 400 || refused.ErrorCode != "CloudIdUpdateNotAllowed" {
		t.Errorf("PUT of another stamp: %v", err)
	}
	if n := srv.Count("POST", "*/oauth2/v2.0/token"); n != 1 {
		t.Errorf("%d token calls, want 1", n)
	}
}

func TestSDKWrongSecret(t *testing.T) {
	srv := start(t)
	cred, err := azidentity.NewClientSecretCredential(srv.Tenant, srv.ClientID, "wrong",
		&azidentity.ClientSecretCredentialOptions{ClientOptions: clientOptions(t, srv), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{srv.Audience + "/.default"}})
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || failed.RawResponse.StatusCode != http.StatusUnauthorized {
		t.Errorf("the SDK got %v", err)
	}
}

func TestSDKClientCertificate(t *testing.T) {
	pem, cert, err := azuretest.NewClientCertificate("relay")
	if err != nil {
		t.Fatal(err)
	}
	srv := start(t, azuretest.WithClient(azuretest.Client{Certificates: []*x509.Certificate{cert}}))
	certs, key, err := azidentity.ParseCertificates(pem, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range []bool{false, true} {
		co := clientOptions(t, srv)
		cred, err := azidentity.NewClientCertificateCredential(srv.Tenant, srv.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: co, DisableInstanceDiscovery: true, SendCertificateChain: chain})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := armCall(t, srv, cred, co, "GET", "/subscriptions/"+srv.Subscription+"?api-version=2022-12-01", ""); err != nil {
			t.Errorf("certificate chain %v: %v", chain, err)
		}
	}
}

// TestSDKDeviceCode also lets the bearer be so short-lived that the SDK uses
// its refresh token: the user is asked once.
func TestSDKDeviceCode(t *testing.T) {
	srv := start(t, azuretest.WithTokenLifetime(time.Minute))
	co := clientOptions(t, srv)
	prompts := 0
	cred, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: co, DisableInstanceDiscovery: true,
		TenantID: srv.Tenant, UserPrompt: func(context.Context, azidentity.DeviceCodeMessage) error { prompts++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := armCall(t, srv, cred, co, "GET", "/subscriptions/"+srv.Subscription+"?api-version=2022-12-01", ""); err != nil {
			t.Fatal(err)
		}
	}
	if prompts != 1 || srv.Count("POST", "*/devicecode") != 1 {
		t.Errorf("%d prompts, %d device codes, want 1 of each", prompts, srv.Count("POST", "*/devicecode"))
	}
	if n := srv.Count("POST", "*/oauth2/v2.0/token"); n != 3 { // pending, granted, refreshed
		t.Errorf("%d token calls, want 3", n)
	}
}

// TestSDKClaimsChallenge: azcore answers the challenge of continuous access
// evaluation by itself, with a second token.
func TestSDKClaimsChallenge(t *testing.T) {
	srv := start(t)
	co := clientOptions(t, srv)
	cred, err := azidentity.NewClientSecretCredential(srv.Tenant, srv.ClientID, srv.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: co, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Fail(azuretest.ClaimsChallenge("GET", "/subscriptions/*"))
	if _, err := armCall(t, srv, cred, co, "GET", "/subscriptions/"+srv.Subscription+"?api-version=2022-12-01", ""); err != nil {
		t.Fatal(err)
	}
	if n := srv.Count("POST", "*/oauth2/v2.0/token"); n != 2 {
		t.Errorf("%d token calls, want 2", n)
	}
	if n := srv.Count("GET", "/subscriptions/*"); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

// TestSDKRetries: a throttled call is repeated by azcore's own policy.
func TestSDKRetries(t *testing.T) {
	srv := start(t)
	co := clientOptions(t, srv)
	co.Retry = policy.RetryOptions{MaxRetries: 2, RetryDelay: time.Millisecond}
	cred, err := azidentity.NewClientSecretCredential(srv.Tenant, srv.ClientID, srv.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: co, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Fail(azuretest.Throttle("GET", "/subscriptions/*", 0, 2))
	if _, err := armCall(t, srv, cred, co, "GET", "/subscriptions/"+srv.Subscription+"?api-version=2022-12-01", ""); err != nil {
		t.Fatal(err)
	}
	if n := srv.Count("GET", "/subscriptions/*"); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}
