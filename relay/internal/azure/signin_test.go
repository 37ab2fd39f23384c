package azure_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// browse is the test binary as the system's browser: see fakeBrowser.
func browse(caFile, address string) int {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return 1
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	if err := azuretest.Browse(context.Background(), &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fakeBrowser puts an xdg-open into PATH that signs the user in.
func fakeBrowser(t *testing.T, s *site) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux opens a browser by a program in PATH")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nAZS_TEST_BE_THE_BROWSER='%s' exec '%s' \"$1\"\n", s.options.CAFile, os.Args[0])
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func asPerson(s *site, auth string) {
	s.options.Auth, s.options.ClientID, s.options.ClientSecret = auth, "", secret.Text{}
}

// A person signs in by the browser; when Azure asks for a second factor before
// the first change, the same browser gives it, and the change is made.
func TestBrowser(t *testing.T) {
	s := newSite(t, azuretest.WithMandatoryMFA(), azuretest.WithUser(azuretest.User{Name: "op@contoso.example"}), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	fakeBrowser(t, s)
	asPerson(s, "browser")
	c := s.connect(t)
	who, err := c.WhoAmI(t.Context())
	if err != nil || who.Name != "op@contoso.example" || who.Tenant != s.Tenant {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := c.Subscriptions(t.Context()); err != nil {
		t.Error(err)
	}
	if n := s.Count("GET", "*/oauth2/v2.0/authorize"); n != 1 {
		t.Errorf("the browser was opened %d times before the first change", n)
	}
	if _, err := c.PutRegistration(t.Context(), s.id(t, "azurestack", "stamp"), token(1)); err != nil {
		t.Error(err)
	}
	if n := s.Count("GET", "*/oauth2/v2.0/authorize"); n != 2 {
		t.Errorf("the browser was opened %d times", n)
	}
}

// personBearer asks the simulated Entra for a person's token, by a device code
// that is granted at once.
func personBearer(t *testing.T, s *site) string {
	t.Helper()
	post := func(path string, form url.Values) (out struct {
		Code  string `json:"device_code"`
		Token string `json:"access_token"`
	}) {
		resp, err := s.Client().PostForm(s.Authority+s.Tenant+"/oauth2/v2.0/"+path, form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	code := post("devicecode", url.Values{"client_id": {"az"}, "scope": {s.Audience + "/.default"}}).Code
	return post("token", url.Values{"grant_type": {"device_code"}, "client_id": {"az"}, "device_code": {code}}).Token
}

// A credential that cannot ask for a second factor ends the call with the
// command that can, challenge and all, as azidentity names it.
func TestMandatoryMFAOfTheCLI(t *testing.T) {
	s := newSite(t, azuretest.WithMandatoryMFA(), azuretest.WithDevicePolls(0), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	person := personBearer(t, s)
	fakeTool(t, "az", fmt.Sprintf(`{"accessToken":%q,"expires_on":%d,"expiresOn":"2099-01-01 00:00:00.000000"}`, person, time.Now().Add(time.Hour).Unix()), "", 0)
	asPerson(s, "azure-cli")
	c := s.connect(t)
	if _, err := c.Subscriptions(t.Context()); err != nil {
		t.Errorf("a read needs no second factor: %v", err)
	}
	_, err := c.PutRegistration(t.Context(), s.id(t, "azurestack", "stamp"), token(1))
	hint := fault.HintOf(err)
	if fault.KindOf(err) != fault.Permanent || !strings.HasPrefix(hint, "az login --tenant "+s.Tenant+" --claims-challenge ") || !strings.Contains(err.Error(), hint) {
		t.Errorf("%v\nhint %q", err, hint)
	}
}

// One run signs in, the next asks nobody, and after a logout somebody is asked
// again.
func TestTokenCache(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the cache of this system cannot be put into a folder of the test's own")
	}
	const second = "22222222-0000-4000-8000-000000000002"
	s := newSite(t, azuretest.WithDevicePolls(0), azuretest.WithTenant("22222222-0000-4000-8000-000000000001"), azuretest.WithTenant(second))
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	account := filepath.Join(cache, ".IdentityService", "azs-relay.account.json")
	asPerson(s, "device-code")
	asked := 0
	s.options.DeviceCode = func(string) { asked++ }
	s.options.TokenCache = true
	c, err := azure.Connect(t.Context(), s.options)
	if fault.KindOf(err) == fault.Medium {
		t.Skipf("this machine keeps no tokens: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscriptions(t.Context()); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	for range 2 {
		if _, err := s.connect(t).Subscriptions(t.Context()); err != nil || asked != 1 {
			t.Errorf("the next run: %v, asked %d times", err, asked)
		}
	}
	raw, err := os.ReadFile(account)
	if err != nil || strings.Contains(string(raw), "eyJ") || strings.Contains(string(raw), "oken") {
		t.Errorf("account file %q, %v", raw, err)
	}
	s.options.TokenCache = false
	if s.connect(t); asked != 2 {
		t.Errorf("without the cache asked %d times", asked)
	}
	s.options.TokenCache = true

	// Another tenant and another application are other accounts.
	for name, change := range map[string]func(*azure.Options){
		"tenant":      func(o *azure.Options) { o.Tenant = second },
		"application": func(o *azure.Options) { o.ClientID = "another-application" },
	} {
		was, before := s.options, asked
		change(&s.options)
		s.connect(t)
		if s.connect(t); asked != before+1 {
			t.Errorf("another %s was asked %d times in two runs", name, asked-before)
		}
		s.options = was
	}
	asked = 2
	gone, err := azure.Logout()
	if err != nil || len(gone) < 2 {
		t.Errorf("logout removed %q, %v", gone, err)
	}
	if s.connect(t); asked != 3 {
		t.Errorf("after the logout asked %d times", asked)
	}
	if _, err := azure.Logout(); err != nil {
		t.Error(err)
	}
	if gone, err := azure.Logout(); err != nil || len(gone) != 0 {
		t.Errorf("a second logout removed %q, %v", gone, err)
	}
}

// Fault 35 of the official flow: a custom cloud by its manifest file, in both
// shapes and the encodings of PowerShell.
func TestCloudManifest(t *testing.T) {
	s := newSite(t, azuretest.WithMetadataList())
	flat := `{"DeploymentData":{"CustomEnvironmentEndpoints":{"CustomCloudARMEndpoint":"` + s.URL + `/"}},"Signature":""}`
	wide := []byte("\xff\xfe")
	for _, u := range utf16.Encode([]rune(flat)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	s.options.ARMEndpoint = ""
	for name, raw := range map[string][]byte{
		"of the cmdlet":            []byte(flat),
		"with a byte order mark":   []byte("\xef\xbb\xbf" + flat),
		"in UTF-16":                wide,
		"of the resource provider": []byte(`{"id":"/x","properties":{"deploymentData":{"customEnvironmentEndpoints":{"customCloudArmEndpoint":"` + s.URL + `/"}},"signature":""}}`),
		"with names in lower case": []byte(strings.ToLower(flat)),
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options
			o.Manifest = write(t, "manifest.json", raw)
			c, err := azure.Connect(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if c.Cloud().Name != azure.CustomCloud || c.Cloud().Endpoint != s.URL {
				t.Errorf("%+v", c.Cloud())
			}
		})
	}
	for name, tt := range map[string]struct {
		file, endpoint string
		kind           fault.Kind
	}{
		"missing":        {filepath.Join(t.TempDir(), "absent"), "", fault.Medium},
		"no JSON":        {write(t, "m", []byte("x")), "", fault.Refused},
		"no endpoint":    {write(t, "m", []byte(`{"DeploymentData":{}}`)), "", fault.Refused},
		"not https":      {write(t, "m", []byte(`{"DeploymentData":{"CustomEnvironmentEndpoints":{"CustomCloudARMEndpoint":"http://x"}}}`)), "", fault.Usage},
		"another one":    {write(t, "m", []byte(flat)), "https://management.example", fault.Usage},
		"a public cloud": {write(t, "m", []byte(flat)), "AzureCloud", fault.Usage},
	} {
		o := s.options
		o.Manifest, o.ARMEndpoint = tt.file, tt.endpoint
		if tt.endpoint == "AzureCloud" {
			o.Cloud, o.ARMEndpoint = tt.endpoint, ""
		}
		if _, err := azure.Connect(t.Context(), o); fault.KindOf(err) != tt.kind {
			t.Errorf("%s: %v, want kind %s", name, err, tt.kind)
		}
	}
}
