package azuretest_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

// TestAuthorize: the page gives no code to a client that would receive it in a
// URL, from elsewhere, or without the proof of RFC 7636, and a code is good
// once.
func TestAuthorize(t *testing.T) {
	srv := start(t)
	c := anonymous(t, srv)
	good := url.Values{"client_id": {"app"}, "response_type": {"code"}, "response_mode": {"form_post"}, "redirect_uri": {"http://localhost:1"}, "state": {"s"},
		"scope": {srv.Audience + "/.default openid"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}
	for name, bad := range map[string]string{"client_id": "", "response_mode": "query", "redirect_uri": "https://elsewhere.example/", "code_challenge": "", "code_challenge_method": "plain", "scope": "openid"} {
		q := url.Values{}
		for k, v := range good {
			q[k] = v
		}
		q.Set(name, bad)
		if a := c.send("GET", srv.Authority+srv.Tenant+"/oauth2/v2.0/authorize?"+q.Encode(), http.NoBody, ""); a.status != 400 {
			t.Errorf("%s=%q answered %d", name, bad, a.status)
		}
	}
	code := func() string {
		res, err := srv.Client().Get(srv.Authority + srv.Tenant + "/oauth2/v2.0/authorize?" + good.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, code, _ := strings.Cut(string(body), `name="code" value="`)
		code, _, _ = strings.Cut(code, `"`)
		return code
	}
	one, other := code(), code()
	redeem := func(code, verifier string) answer {
		return c.token(srv.Tenant, url.Values{"grant_type": {"authorization_code"}, "client_id": {"app"}, "code": {code}, "redirect_uri": {"http://localhost:1"}, "code_verifier": {verifier}})
	}
	if a := redeem(other, "of somebody who saw the code"); a.status != 400 {
		t.Errorf("without the proof: %d", a.status)
	}
	if a := redeem(one, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"); a.status != 200 || a.body["refresh_token"] == nil { // the pair of RFC 7636
		t.Errorf("%d %v", a.status, a.body)
	}
	if a := redeem(one, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"); a.status != 400 {
		t.Errorf("a second time: %d", a.status)
	}
}

// TestMandatoryMFA: a person's change without a second factor is answered with
// the claims that a client takes to Entra; a read, and an application, are not.
func TestMandatoryMFA(t *testing.T) {
	srv := start(t, azuretest.WithMandatoryMFA(), azuretest.WithDevicePolls(0), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	app := signIn(t, srv)
	app.expect(201, "", app.do("PUT", "{r}?api-version=2017-06-01", registrationBody(token(1))))

	options := clientOptions(t, srv)
	prompts := 0
	cred, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true, TenantID: srv.Tenant, ClientID: "app",
		UserPrompt: func(_ context.Context, _ azidentity.DeviceCodeMessage) error { prompts++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		method, path, body string
		prompts            int
	}{
		{"GET", "?api-version=2017-06-01", "", 1},
		{"PUT", "?api-version=2017-06-01", registrationBody(token(1)), 2}, // the challenge is met by a second sign-in
		{"DELETE", "?api-version=2017-06-01", "", 2},
	} {
		path := "/subscriptions/" + srv.Subscription + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/r1" + step.path
		if _, err := armCall(t, srv, cred, options, step.method, path, step.body); err != nil || prompts != step.prompts {
			t.Errorf("%s: %v after %d prompts, want %d", step.method, err, prompts, step.prompts)
		}
	}

	// What cannot step up is refused by Resource Manager's own sentence.
	weak, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{srv.Audience + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	user := anonymous(t, srv)
	user.bearer = weak.Token
	a := user.do("PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)))
	user.expect(401, "RequestDisallowedByAzure", a)
	if h := a.header.Get("Www-Authenticate"); !strings.Contains(h, `error="insufficient_claims"`) || !strings.Contains(h, `claims="eyJ`) {
		t.Error(h)
	}
}
