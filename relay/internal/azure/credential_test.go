package azure_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// newCertificate makes a self-signed certificate and returns it with the file
// that holds it and its key.
func newCertificate(t testing.TB) (*x509.Certificate, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	return cert, write(t, "client.pem", file)
}

func TestClientCertificate(t *testing.T) {
	cert, file := newCertificate(t)
	s := newSite(t, azuretest.WithClient(azuretest.Client{Certificates: []*x509.Certificate{cert}}))
	s.options.Auth, s.options.ClientSecret, s.options.ClientCertificateFile = "client-certificate", secret.Text{}, file
	if who, err := s.connect(t).WhoAmI(t.Context()); err != nil || who.AppID != s.ClientID {
		t.Errorf("%+v, %v", who, err)
	}
	_, s.options.ClientCertificateFile = newCertificate(t)
	if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), "AADSTS700027") {
		t.Errorf("another certificate = %v", err)
	}
	s.options.ClientCertificateFile = write(t, "not.pem", []byte("nothing"))
	if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Locked {
		t.Errorf("no certificate = %v", err)
	}
	s.options.ClientCertificateFile += ".missing"
	if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Medium {
		t.Errorf("no file = %v", err)
	}
}

// The code is shown once, although azidentity keeps two token caches.
func TestDeviceCodeAsksOnce(t *testing.T) {
	s := newSite(t, azuretest.WithDevicePolls(0), azuretest.WithUser(azuretest.User{Name: "operator@contoso.example"}))
	var shown []string
	s.options.Auth, s.options.ClientSecret, s.options.ClientID = "device-code", secret.Text{}, ""
	s.options.DeviceCode = func(message string) { shown = append(shown, message) }
	c := s.connect(t)
	who, err := c.WhoAmI(t.Context())
	if err != nil || who.Name != "operator@contoso.example" || who.Tenant != s.Tenant {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := c.Subscriptions(t.Context()); err != nil {
		t.Error(err)
	}
	if len(shown) != 1 || !strings.Contains(shown[0], s.Authority+s.Tenant+"/device") {
		t.Errorf("shown %q", shown)
	}
}

// fakeTool puts a program of the name on the PATH that prints text to stdout or
// stderr and ends with the code.
func fakeTool(t *testing.T, name, stdout, stderr string, code int) {
	t.Helper()
	if os.PathSeparator != '/' {
		t.Skip("the stand-in for the tool is a shell script")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncat <<'EOF'\n%s\nEOF\ncat >&2 <<'EOF'\n%s\nEOF\nexit %d\n", stdout, stderr, code)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+"/usr/bin"+string(os.PathListSeparator)+"/bin")
}

// The command that the Azure CLI proposes for a stronger sign-in is shown as it
// is, or nobody could paste it.
func TestAzureCLI(t *testing.T) {
	s := newSite(t)
	s.options.Auth, s.options.ClientSecret, s.options.ClientID = "azure-cli", secret.Text{}, ""
	const claims = "az login --tenant x --claims-challenge eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWV9fX0="
	fakeTool(t, "az", "", "ERROR: AADSTS50076: multi-factor authentication is required. Run: "+claims, 1)
	_, err := azure.Connect(t.Context(), s.options)
	if fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), claims) {
		t.Errorf("%v", err)
	}
	if len(s.slept) != 0 {
		t.Errorf("slept %v", s.slept)
	}

	// A token that the CLI has is used.
	bearer := bearerOf(t, s)
	out, _ := json.Marshal(map[string]any{"accessToken": bearer, "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4070908800, "tenant": s.Tenant, "tokenType": "Bearer"})
	fakeTool(t, "az", string(out), "", 0)
	c := s.connect(t)
	if who, err := c.WhoAmI(t.Context()); err != nil || who.AppID != s.ClientID {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := c.Subscriptions(t.Context()); err != nil {
		t.Error(err)
	}
}

// bearerOf asks the simulated Entra for a token as any client would.
func bearerOf(t *testing.T, s *site) string {
	t.Helper()
	resp, err := s.Client().PostForm(s.Authority+s.Tenant+"/oauth2/v2.0/token", map[string][]string{
		"grant_type": {"client_credentials"}, "client_id": {s.ClientID}, "client_secret": {s.ClientSecret}, "scope": {s.Audience + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Token == "" {
		t.Fatalf("no token: %v", err)
	}
	return out.Token
}

func TestDefaultCredentialByEnvironment(t *testing.T) {
	s := newSite(t)
	s.options.Auth, s.options.Tenant, s.options.ClientID, s.options.ClientSecret = "", "", "", secret.Text{}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	t.Setenv("AZURE_TENANT_ID", s.Tenant)
	t.Setenv("AZURE_CLIENT_ID", s.ClientID)
	t.Setenv("AZURE_CLIENT_SECRET", s.ClientSecret)
	if who, err := s.connect(t).WhoAmI(t.Context()); err != nil || who.AppID != s.ClientID {
		t.Errorf("%+v, %v", who, err)
	}
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"} {
		t.Setenv(name, "")
	}
	if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Permanent || fault.HintOf(err) == "" {
		t.Errorf("nobody signed in = %v", err)
	}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
	if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Usage {
		t.Errorf("unknown credential = %v", err)
	}
}

// What Entra refuses is shown in Entra's own words, once, and without the
// secret.
func TestEntraRefuses(t *testing.T) {
	const wrong = "wrong-Canary7Q2MKX4R-secret"
	tests := []struct {
		name   string
		change func(*azure.Options, *site)
		says   string
	}{
		{"wrong secret", func(o *azure.Options, _ *site) { o.ClientSecret = secret.New(wrong) }, "AADSTS7000215: Invalid client secret provided."},
		{"unknown application", func(o *azure.Options, _ *site) { o.ClientID = "00000000-0000-0000-0000-000000000001" }, "AADSTS700016: Application with identifier"},
		{"unknown tenant", func(o *azure.Options, _ *site) { o.Tenant = "nobody.example" }, "nobody.example"},
		{"expired secret", func(_ *azure.Options, s *site) {
			s.Fail(azuretest.Fault{Path: "*/oauth2/v2.0/token", Status: 401, Code: "invalid_client", Message: "The provided client secret keys are expired."})
		}, "The provided client secret keys are expired."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			tt.change(&s.options, s)
			_, err := azure.Connect(t.Context(), s.options)
			if fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), tt.says) || fault.HintOf(err) == "" {
				t.Errorf("kind %s: %v, hint %q", fault.KindOf(err), err, fault.HintOf(err))
			}
			if strings.Contains(fmt.Sprintf("%+v", err), wrong) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			if len(s.slept) != 0 {
				t.Errorf("slept %v", s.slept)
			}
		})
	}
}

func TestEntraIsAway(t *testing.T) {
	for name, f := range map[string]azuretest.Fault{
		"dropped":   {Path: "*/oauth2/v2.0/token", Drop: azuretest.BeforeActing},
		"503":       {Path: "*/oauth2/v2.0/token", Status: 503, Code: "temporarily_unavailable"},
		"throttled": azuretest.Throttle("", "*/oauth2/v2.0/token", 5, 0),
		"no issuer": {Path: "*/openid-configuration", Drop: azuretest.BeforeActing},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.Fail(f)
			if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Unreachable {
				t.Errorf("kind %s: %v", fault.KindOf(err), err)
			}
			f.Times = 2
			s.ClearFaults()
			s.Fail(f)
			if _, err := azure.Connect(t.Context(), s.options); err != nil {
				t.Errorf("away for a moment: %v", err)
			}
		})
	}
}

func TestFlagsThatContradict(t *testing.T) {
	sec := secret.New("x")
	show := func(string) {}
	tests := []struct {
		name string
		o    azure.Options
		says string
	}{
		{"unknown auth", azure.Options{Auth: "password"}, `--auth "password" is none of default,`},
		{"secret without tenant", azure.Options{Auth: "client-secret", ClientID: "c", ClientSecret: sec}, "needs the tenant"},
		{"secret without client id", azure.Options{Auth: "client-secret", Tenant: "t", ClientSecret: sec}, "needs the client-id"},
		{"secret without secret", azure.Options{Auth: "client-secret", Tenant: "t", ClientID: "c"}, "needs the client-secret"},
		{"certificate without file", azure.Options{Auth: "client-certificate", Tenant: "t", ClientID: "c"}, "needs the client-certificate"},
		{"secret for the CLI", azure.Options{Auth: "azure-cli", ClientSecret: sec}, "does not use the client-secret"},
		{"client id for default", azure.Options{ClientID: "c"}, "does not use the client-id"},
		{"secret and certificate", azure.Options{Auth: "client-secret", Tenant: "t", ClientID: "c", ClientSecret: sec, ClientCertificateFile: "f"}, "does not use the client-certificate"},
		{"password without certificate", azure.Options{Auth: "azure-cli", ClientCertificatePassword: sec}, "without a client certificate file"},
		{"device code for nobody", azure.Options{Auth: "device-code"}, "needs somebody"},
		{"bad tenant", azure.Options{Auth: "device-code", DeviceCode: show, Tenant: "a/b"}, "invalid tenantID"},
		{"token cache for the CLI", azure.Options{Auth: "azure-cli", TokenCache: true}, "does not use the token-cache"},
		{"unknown cloud", azure.Options{Cloud: "AzurePlanet"}, `cloud "AzurePlanet" is none of`},
		{"Germany", azure.Options{Cloud: "AzureGermanCloud"}, "was closed in October 2021"},
		{"endpoint of a public cloud", azure.Options{Cloud: "AzureCloud", ARMEndpoint: "https://x"}, "contradict each other"},
		{"custom without endpoint", azure.Options{Cloud: "custom"}, "needs the --arm-endpoint"},
		{"endpoint without TLS", azure.Options{ARMEndpoint: "http://x"}, "is not https"},
		{"endpoint with a password", azure.Options{ARMEndpoint: "https://a:b@x"}, "more than a host"},
		{"endpoint without a host", azure.Options{ARMEndpoint: "management.azure.com"}, "is not a URL"},
		{"api-version", azure.Options{APIVersion: "latest&x=y"}, `--api-version "latest&x=y"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := azure.Connect(context.Background(), tt.o)
			if fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("kind %s: %v, want %q", fault.KindOf(err), err, tt.says)
			}
		})
	}
	for _, tt := range []struct {
		file string
		kind fault.Kind
	}{{"/nowhere/ca.pem", fault.Medium}, {write(t, "ca.pem", []byte("no pem")), fault.Refused}} {
		if _, err := azure.Connect(context.Background(), azure.Options{CAFile: tt.file}); fault.KindOf(err) != tt.kind {
			t.Errorf("CA file %q = %v", tt.file, err)
		}
	}
}

func TestPublicClouds(t *testing.T) {
	want := []azure.Cloud{
		{Name: "AzureCloud", Authority: "https://login.microsoftonline.com/", Endpoint: "https://management.azure.com", Audience: "https://management.core.windows.net/", DefaultLocation: "westcentralus"},
		{Name: "AzureUSGovernment", Authority: "https://login.microsoftonline.us/", Endpoint: "https://management.usgovcloudapi.net", Audience: "https://management.core.usgovcloudapi.net/", DefaultLocation: "usgovvirginia"},
		{Name: "AzureChinaCloud", Authority: "https://login.chinacloudapi.cn/", Endpoint: "https://management.chinacloudapi.cn", Audience: "https://management.core.chinacloudapi.cn/", DefaultLocation: "chinaeast"},
	}
	var got []azure.Cloud
	for _, name := range []string{"azurecloud", "AzureUSGovernment", "AzureChinaCloud"} {
		c, err := azure.LookupCloud(name)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
		r, err := azure.NewRequests(azure.Options{Cloud: name, APIVersion: "2022-06-01"})
		if err != nil || r.Endpoint != c.Endpoint || r.APIVersion != "2022-06-01" {
			t.Errorf("NewRequests = %+v, %v", r, err)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if r, err := azure.NewRequests(azure.Options{}); err != nil || r.Endpoint != "https://management.azure.com" {
		t.Errorf("NewRequests of nothing = %+v, %v", r, err)
	}
	if r, err := azure.NewRequests(azure.Options{ARMEndpoint: "https://management.local.azurestack.external/"}); err != nil || r.Endpoint != "https://management.local.azurestack.external" {
		t.Errorf("NewRequests of a custom cloud = %+v, %v", r, err)
	}
}

func TestCustomCloud(t *testing.T) {
	for name, opts := range map[string][]azuretest.Option{"object": nil, "list": {azuretest.WithMetadataList()}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, opts...)
			s.options.Cloud, s.options.ARMEndpoint = "custom", s.URL+"/"
			want := azure.Cloud{Name: "custom", Authority: s.Authority, Endpoint: s.URL, Audience: s.Audience}
			if d := cmp.Diff(want, s.connect(t).Cloud()); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("of 2015", func(t *testing.T) {
		s := newSite(t)
		s.Fail(azuretest.Fault{Path: "/metadata/endpoints", Times: 1, Code: "InvalidApiVersionParameter"})
		if c := s.connect(t).Cloud(); c.Audience != s.Audience || s.Count("GET", "/metadata/endpoints") != 2 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("away", func(t *testing.T) {
		s := newSite(t)
		s.Fail(azuretest.Fault{Path: "/metadata/endpoints", Drop: azuretest.BeforeActing})
		if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Unreachable {
			t.Errorf("%v", err)
		}
	})
	t.Run("of nobody's certificate", func(t *testing.T) {
		s, other := newSite(t), newSite(t)
		s.options.CAFile = other.options.CAFile
		_, err := azure.Connect(t.Context(), s.options)
		if fault.KindOf(err) != fault.Refused || !strings.Contains(fault.HintOf(err), "--ca-file") || len(s.slept) != 0 {
			t.Errorf("kind %s after %v: %v", fault.KindOf(err), s.slept, err)
		}
		s.options.CAFile = ""
		if _, err := azure.Connect(t.Context(), s.options); fault.KindOf(err) != fault.Refused {
			t.Errorf("without a CA file: %v", err)
		}
	})
}

// Metadata is foreign: it must not move the sign-in to a place without TLS, and
// AD FS has one tenant.
func TestMetadataOfEveryShape(t *testing.T) {
	tests := []struct {
		name, body string
		want       azure.Cloud // Endpoint and Name are filled in
		says       string      // of the error
	}{
		{"2022 object", `{"name":"x","resourceManager":"HERE/","authentication":{"loginEndpoint":"https://login.example//","audiences":["https://a.example/","https://b.example"]}}`,
			azure.Cloud{Authority: "https://login.example/", Audience: "https://a.example/"}, ""},
		{"list of two", `[{"resourceManager":"https://other/","authentication":{"loginEndpoint":"https://no.example","audiences":["no"]}},{"resourceManager":"HERE/","authentication":{"loginEndpoint":"https://login.example","audiences":["a"]}}]`,
			azure.Cloud{Authority: "https://login.example/", Audience: "a"}, ""},
		{"AD FS", `[{"authentication":{"loginEndpoint":"https://adfs.local.example/adfs/","audiences":["a"]}}]`,
			azure.Cloud{Authority: "https://adfs.local.example/", Audience: "a", ADFS: true}, ""},
		{"list of none", `[]`, azure.Cloud{}, "the list of clouds is empty"},
		{"list without this one", `[{"resourceManager":"https://o1/"},{"resourceManager":"https://o2/"}]`, azure.Cloud{}, "names no loginEndpoint"},
		{"no audience", `{"authentication":{"loginEndpoint":"https://login.example","audiences":[]}}`, azure.Cloud{}, "no audience"},
		{"no TLS", `{"authentication":{"loginEndpoint":"http://login.example","audiences":["a"]}}`, azure.Cloud{}, "is not https"},
		{"no JSON", `<html>`, azure.Cloud{}, "neither a JSON object nor a list"},
		{"too long", `{"name":"` + strings.Repeat("x", 9<<20) + `"}`, azure.Cloud{}, "longer than 8388608 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var here string
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/metadata/endpoints" && r.Header.Get("Authorization") == "" {
					fmt.Fprint(w, strings.ReplaceAll(tt.body, "HERE", here))
				}
			}))
			defer srv.Close()
			here = srv.URL
			ca := write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
			fakeTool(t, "az", `{"accessToken":"opaque","expires_on":4070908800,"expiresOn":"2099-01-01 00:00:00.000000"}`, "", 0)
			c, err := azure.Connect(t.Context(), azure.Options{ARMEndpoint: srv.URL, CAFile: ca, Auth: "azure-cli"})
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || fault.KindOf(err) == fault.Unexpected {
					t.Errorf("kind %s: %.300v", fault.KindOf(err), err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name, tt.want.Endpoint = "custom", srv.URL
			if d := cmp.Diff(tt.want, c.Cloud()); d != "" {
				t.Error(d)
			}
			if _, err := c.WhoAmI(t.Context()); fault.KindOf(err) != fault.Refused {
				t.Errorf("an opaque token = %v", err)
			}
			if tt.want.ADFS {
				if _, err := azure.Connect(t.Context(), azure.Options{ARMEndpoint: srv.URL, CAFile: ca, Auth: "azure-cli", Tenant: "contoso.example"}); fault.KindOf(err) != fault.Usage {
					t.Errorf("a tenant at AD FS = %v", err)
				}
			}
		})
	}
}

// A redirect would carry the token elsewhere, a page that is no JSON is no
// answer, a stronger sign-in is asked for in azidentity's words, and a list that
// leads in a circle has an end.
func TestStrangeAnswers(t *testing.T) {
	const claims = "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoicDEifX19"
	elsewhere := 0
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	var here string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/metadata/endpoints":
			fmt.Fprintf(w, `{"authentication":{"loginEndpoint":"%s","audiences":["a"]}}`, here)
		case r.Method == "PUT":
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		case r.Method == "DELETE":
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_claims", claims="`+claims+`"`)
			http.Error(w, `{"error":{"code":"Unauthorized"}}`, http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/locations"):
			fmt.Fprintf(w, `{"value":[],"nextLink":"%s/steal"}`, other.URL)
		case strings.HasSuffix(r.URL.Path, "/registrations"):
			fmt.Fprintf(w, `{"value":[],"nextLink":"%s%s?page=%s"}`, here, r.URL.Path, "2")
		case strings.HasSuffix(r.URL.Path, "/getActivationKey"):
			fmt.Fprint(w, `{"activationKey":"`+strings.Repeat("x", 9<<20)+`"}`)
		case strings.Contains(r.URL.Path, "/registrations/"):
			fmt.Fprint(w, `{"id":"/subscriptions/33333333-3333-4333-8333-333333333333/resourceGroups/g/providers/Microsoft.AzureStack/registrations/other"}`)
		default:
			fmt.Fprint(w, "<html>please sign in to the proxy</html>")
		}
	}))
	defer srv.Close()
	here = srv.URL
	fakeTool(t, "az", `{"accessToken":"opaque","expires_on":4070908800,"expiresOn":"2099-01-01 00:00:00.000000"}`, "", 0)
	ca := write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	w := &watch{now: time.Now()}
	c, err := azure.Connect(t.Context(), azure.Options{ARMEndpoint: srv.URL, CAFile: ca, Auth: "azure-cli", Sleep: w.sleep})
	if err != nil {
		t.Fatal(err)
	}
	sub, _ := azure.ParseSubscriptionID("33333333-3333-4333-8333-333333333333")
	g, _ := sub.Group("g")
	id, _ := g.Registration("n")
	for name, tt := range map[string]struct {
		call func() error
		kind fault.Kind
		says string
	}{
		"redirect":      {func() error { _, err := c.PutRegistration(t.Context(), id, token(1)); return err }, fault.Permanent, "307"},
		"page of proxy": {func() error { _, _, err := c.Group(t.Context(), g); return err }, fault.Refused, "not the JSON of Resource Manager"},
		"leads away":    {func() error { _, err := c.Locations(t.Context(), sub); return err }, fault.Refused, "leads to"},
		"circle":        {func() error { _, err := c.Registrations(t.Context(), sub); return err }, fault.Refused, "circle"},
		"another one":   {func() error { _, _, err := c.Registration(t.Context(), id); return err }, fault.NotForUs, "answered with /subscriptions/"},
		// The Azure CLI cannot step up by itself: its command is for the operator.
		"claims":  {func() error { return c.DeleteLock(t.Context(), id) }, fault.Permanent, claims},
		"endless": {func() error { _, err := c.ActivationKey(t.Context(), id); return err }, fault.Refused, "longer than"},
	} {
		if err := tt.call(); fault.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: kind %s: %.300v", name, fault.KindOf(err), err)
		}
	}
	if elsewhere != 0 || len(w.slept) != 0 {
		t.Errorf("%d requests went elsewhere, slept %v", elsewhere, w.slept)
	}
}

// Nothing that is secret shows in an error, a progress line, a printed value or
// azcore's log, whatever happens and whatever Azure quotes (threat: secrets in
// logs).
func TestSecretsAreNeverShown(t *testing.T) {
	const clientSecret = "Canary-client-secret-7Q2MKX4R~q8Zx"
	s := newSite(t, azuretest.WithClient(azuretest.Client{Secret: clientSecret}), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	tok := token(77)
	var out bytes.Buffer
	show := func(v any, err error) {
		fmt.Fprintf(&out, "%v %+v %#v\n%v %+v %#v %s\n", v, v, v, err, err, err, fault.HintOf(err))
		js, _ := json.Marshal(v)
		out.Write(js)
	}
	shown := func(err error) { show(nil, err) }
	for _, f := range []azuretest.Fault{
		{Times: 1, Status: 400, Code: "InvalidRegistrationToken", Message: "The registration token '" + tok.Reveal() + "' is malformed."},
		{Times: 1, Status: 400, Code: "Odd", Message: "Unexpected text near " + tok.Reveal()[100:180] + "."},
		{Times: 1, Drop: azuretest.AfterActing},
		{Times: 1, Code: "InternalServerError"},
		{Times: 1, Code: "AuthorizationFailed"},
	} {
		f.Method, f.Path = "PUT", regs
		s.Fail(f)
		put, err := c.PutRegistration(t.Context(), id, tok)
		show(put, err)
	}
	q := c.Requests.PutRegistration(id, tok)
	show(q, q.Print(&out))
	key, err := c.ActivationKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	show(key, nil)
	for name, call := range allCalls(c, id) {
		s.ClearFaults()
		s.Fail(azuretest.Fault{Status: 418, Code: "Odd", Message: "Authorization: Bearer " + key.Reveal()})
		if err := call(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			shown(err)
		}
	}
	s.ClearFaults()
	bearer := bearerOf(t, s)
	bad := s.options
	bad.ClientSecret = secret.New(clientSecret + "-wrong")
	_, err = azure.Connect(t.Context(), bad)
	shown(err)
	s.Fail(azuretest.Fault{Path: "*/oauth2/v2.0/token", Times: 1, Status: 400, Code: "invalid_request", Message: "The value '" + clientSecret + "' is not known."})
	_, err = azure.Connect(t.Context(), s.options)
	if err == nil {
		t.Error("no error")
	}
	shown(err)
	show(s.options, nil)
	show(c, nil)
	s.watch.Lock()
	fmt.Fprintln(&out, s.said)
	s.watch.Unlock()
	logged.Lock()
	all := out.String() + logged.String()
	if logged.Len() == 0 {
		t.Error("azcore logged nothing: the test hears nothing")
	}
	logged.Unlock()
	for name, value := range map[string]string{
		"client secret": clientSecret, "registration token": tok.Reveal()[100:132], "activation key": key.Reveal()[100:132],
		"bearer": strings.Split(bearer, ".")[1][:40], "Authorization": "Bearer ey",
	} {
		if i := strings.Index(all, value); i >= 0 {
			t.Errorf("the %s shows in …%s…", name, all[max(0, i-200):i+len(value)])
		}
	}
}
