package azuretest_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

func TestTokenRefusals(t *testing.T) {
	srv := start(t, azuretest.WithClient(azuretest.Client{Secret: "right"}),
		azuretest.WithClient(azuretest.Client{ID: "old", Secret: "s", SecretExpires: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}),
		azuretest.WithClient(azuretest.Client{ID: "keyless"}))
	c := anonymous(t, srv)
	tests := []struct {
		name, tenant string
		form         url.Values
		status       int
		oauth, aadst string
	}{
		{"wrong secret", srv.Tenant, secretForm(srv, "client_secret", "wrong"), 401, "invalid_client", "AADSTS7000215:"},
		{"secret of another client", srv.Tenant, secretForm(srv, "client_secret", "s"), 401, "invalid_client", "AADSTS7000215:"},
		{"expired secret", srv.Tenant, secretForm(srv, "client_id", "old", "client_secret", "s"), 401, "invalid_client", "AADSTS7000222:"},
		{"client without a secret", srv.Tenant, secretForm(srv, "client_id", "keyless"), 401, "invalid_client", "AADSTS7000215:"},
		{"no proof", srv.Tenant, secretForm(srv, "client_secret", ""), 401, "invalid_client", "AADSTS7000218:"},
		{"unknown client", srv.Tenant, secretForm(srv, "client_id", "nobody"), 400, "unauthorized_client", "AADSTS700016:"},
		{"unknown tenant", "nowhere.example", secretForm(srv), 400, "invalid_request", "AADSTS90002:"},
		{"application in no tenant", "organizations", secretForm(srv), 400, "invalid_request", "AADSTS90002:"},
		{"unknown resource", srv.Tenant, secretForm(srv, "scope", "https://else.example/.default"), 400, "invalid_resource", "AADSTS500011:"},
		{"no scope", srv.Tenant, secretForm(srv, "scope", ""), 400, "invalid_scope", "AADSTS70011:"},
		{"unknown grant", srv.Tenant, secretForm(srv, "grant_type", "password"), 400, "unsupported_grant_type", "AADSTS70003:"},
		{"unknown device code", srv.Tenant, secretForm(srv, "grant_type", "device_code", "device_code", "x"), 400, "bad_verification_code", "AADSTS70000:"},
		{"unknown refresh token", srv.Tenant, secretForm(srv, "grant_type", "refresh_token", "refresh_token", "x"), 400, "invalid_grant", "AADSTS70000:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := c.token(test.tenant, test.form)
			text, _ := a.body["error_description"].(string)
			if a.status != test.status || a.body["error"] != test.oauth || !strings.HasPrefix(text, test.aadst) {
				t.Errorf("answer %d %v, want %d %s %s…", a.status, a.body, test.status, test.oauth, test.aadst)
			}
			for _, name := range []string{"error_codes", "timestamp", "trace_id", "correlation_id", "error_uri"} {
				if a.body[name] == nil {
					t.Errorf("no %s in %v", name, a.body)
				}
			}
		})
	}
}

func TestOpenIDConfiguration(t *testing.T) {
	srv := start(t, azuretest.WithTenant("22222222-0000-4000-8000-000000000001", "Contoso.example"))
	c := anonymous(t, srv)
	a := c.send("GET", srv.Authority+"contoso.EXAMPLE/v2.0/.well-known/openid-configuration", nil, "")
	if want := srv.Authority + "contoso.EXAMPLE/v2.0"; a.body["issuer"] != want {
		t.Errorf("issuer %v, want %s", a.body["issuer"], want)
	}
	a = c.send("GET", srv.Authority+"fabrikam.example/v2.0/.well-known/openid-configuration", nil, "")
	if a.status != 400 || !strings.HasPrefix(a.body["error_description"].(string), "AADSTS90002:") {
		t.Errorf("unknown tenant: answer %d %v", a.status, a.body)
	}
}

// TestBearer: Resource Manager takes a bearer of this server, for itself, in
// its time, and no other.
func TestBearer(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithClock(clock))
	good := signIn(t, srv).bearer
	graph, _ := anonymous(t, srv).token(srv.Tenant, secretForm(srv, "scope", "https://graph.microsoft.com/.default")).body["access_token"].(string)
	twin := start(t, azuretest.WithClock(clock), azuretest.WithTenant(srv.Tenant))
	parts := strings.Split(good, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString(bytes.Replace(payload, []byte(`"app"`), []byte(`"usr"`), 1)) + "." + parts[2]
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	for _, test := range []struct {
		name, bearer string
		later        time.Duration
		status       int
		code         string
	}{
		{"good", good, 0, 200, ""},
		{"good to the end", good, time.Hour - time.Second, 200, ""},
		{"expired", good, time.Hour, 401, "ExpiredAuthenticationToken"},
		{"of a clock ahead", good, -time.Hour, 401, "InvalidAuthenticationToken"},
		{"none", "", 0, 401, "AuthenticationFailed"},
		{"not a JWT", "abc", 0, 401, "InvalidAuthenticationToken"},
		{"claims changed", forged, 0, 401, "InvalidAuthenticationToken"},
		{"unsigned", unsigned, 0, 401, "InvalidAuthenticationToken"},
		{"of another server", signIn(t, twin).bearer, 0, 401, "InvalidAuthenticationToken"},
		{"for another resource", graph, 0, 401, "InvalidAuthenticationTokenAudience"},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock.move(test.later)
			defer clock.move(-test.later)
			c := anonymous(t, srv)
			c.bearer = test.bearer
			a := c.expect(test.status, test.code, c.do("GET", "/subscriptions/{s}?api-version=2022-12-01", ""))
			if challenge := a.header.Get("WWW-Authenticate"); (a.status == 401) != strings.HasPrefix(challenge, `Bearer authorization_uri="`+srv.Authority+srv.Tenant) {
				t.Errorf("WWW-Authenticate is %q", challenge)
			}
		})
	}
}

// TestClientAssertion signs assertions by hand, so that each claim can be wrong
// alone.
func TestClientAssertion(t *testing.T) {
	pem, cert, err := azuretest.NewClientCertificate("test")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := azuretest.NewClientCertificate("stranger")
	if err != nil {
		t.Fatal(err)
	}
	other, err := tls.X509KeyPair(stranger, stranger)
	if err != nil {
		t.Fatal(err)
	}
	clock := newLever()
	srv := start(t, azuretest.WithClock(clock), azuretest.WithClient(azuretest.Client{ID: "app", Certificates: []*x509.Certificate{cert}}))
	c := anonymous(t, srv)
	endpoint := srv.Authority + srv.Tenant + "/oauth2/v2.0/token"

	assertion := func(alg string, pair tls.Certificate, change map[string]any) string {
		sum := sha256.Sum256(pair.Certificate[0])
		head, _ := json.Marshal(map[string]string{"alg": alg, "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])})
		claims := map[string]any{"aud": endpoint, "iss": "app", "sub": "app", "nbf": clock.Now().Unix(), "exp": clock.Now().Add(10 * time.Minute).Unix()}
		for k, v := range change {
			claims[k] = v
		}
		body, _ := json.Marshal(claims)
		signed := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
		digest := sha256.Sum256([]byte(signed))
		key := pair.PrivateKey.(*rsa.PrivateKey)
		sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
		if alg == "PS256" {
			sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		if err != nil {
			t.Fatal(err)
		}
		return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	good := assertion("PS256", pair, nil)
	stolen := strings.Split(assertion("RS256", pair, nil), ".")
	swapped := strings.Split(assertion("RS256", pair, map[string]any{"exp": clock.Now().Add(time.Minute).Unix()}), ".")
	for _, test := range []struct {
		name, assertion string
		status          int
		aadst           string
	}{
		{"PS256", good, 200, ""},
		{"RS256", assertion("RS256", pair, nil), 200, ""},
		{"unknown certificate", assertion("PS256", other, nil), 401, "AADSTS700027:"},
		{"signature of another assertion", stolen[0] + "." + stolen[1] + "." + swapped[2], 401, "AADSTS700027:"},
		{"other algorithm", assertion("ES256", pair, nil), 401, "AADSTS700027:"},
		{"not a JWT", "abc", 401, "AADSTS50027:"},
		{"other audience", assertion("PS256", pair, map[string]any{"aud": "https://else.example/token"}), 401, "AADSTS700023:"},
		{"other client", assertion("PS256", pair, map[string]any{"sub": "other"}), 401, "AADSTS700021:"},
		{"expired", assertion("PS256", pair, map[string]any{"exp": clock.Now().Add(-time.Second).Unix()}), 401, "AADSTS700024:"},
		{"not yet valid", assertion("PS256", pair, map[string]any{"nbf": clock.Now().Add(time.Hour).Unix()}), 401, "AADSTS700024:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := c.token(srv.Tenant, url.Values{"grant_type": {"client_credentials"}, "client_id": {"app"}, "scope": {srv.Audience + "/.default"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {test.assertion}})
			text, _ := a.body["error_description"].(string)
			if a.status != test.status || !strings.HasPrefix(text, test.aadst) {
				t.Errorf("answer %d %v, want %d %s", a.status, a.body, test.status, test.aadst)
			}
		})
	}
}

func TestDeviceCode(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithClock(clock), azuretest.WithDevicePolls(2))
	c := anonymous(t, srv)
	begin := func() url.Values {
		a := c.send("POST", srv.Authority+"organizations/oauth2/v2.0/devicecode",
			strings.NewReader(url.Values{"client_id": {"anyone"}, "scope": {"openid offline_access " + srv.URL + "/.default"}}.Encode()), "application/x-www-form-urlencoded")
		if a.status != 200 || a.body["interval"] != 1.0 || !strings.Contains(a.body["message"].(string), a.body["user_code"].(string)) {
			t.Fatalf("answer %d %v", a.status, a.body)
		}
		return url.Values{"grant_type": {"device_code"}, "client_id": {"anyone"}, "device_code": {a.body["device_code"].(string)}}
	}
	poll := begin()
	for range 2 {
		if a := c.token("organizations", poll); a.status != 400 || a.body["error"] != "authorization_pending" {
			t.Errorf("answer %d %v, want authorization_pending", a.status, a.body)
		}
	}
	a := c.token("organizations", poll)
	refresh, _ := a.body["refresh_token"].(string)
	if a.status != 200 || a.body["client_info"] == nil || a.body["id_token"] == nil || refresh == "" {
		t.Fatalf("answer %d %v", a.status, names(a.body))
	}
	c.bearer = a.body["access_token"].(string)
	c.expect(200, "", c.do("GET", "/subscriptions/{s}?api-version=2022-12-01", ""))
	c.bearer = ""
	if a := c.token("organizations", poll); a.status != 400 {
		t.Errorf("device code was good twice: answer %d", a.status)
	}
	renew := url.Values{"grant_type": {"refresh_token"}, "client_id": {"anyone"}, "refresh_token": {refresh}, "scope": {srv.URL + "/.default"}}
	if a := c.token("organizations", renew); a.status != http.StatusOK {
		t.Errorf("refresh: answer %d %v", a.status, a.body)
	}
	renew.Set("client_id", "other")
	if a := c.token("organizations", renew); a.body["error"] != "invalid_grant" {
		t.Errorf("refresh token of another client: answer %d %v", a.status, names(a.body))
	}
	late := begin()
	clock.move(16 * time.Minute)
	if a := c.token("organizations", late); a.body["error"] != "expired_token" {
		t.Errorf("late device code: answer %d %v", a.status, a.body)
	}
}
