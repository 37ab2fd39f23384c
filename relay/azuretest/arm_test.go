package azuretest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

const lockOf = "{r}/providers/Microsoft.Authorization/locks/RegistrationResourceLock?api-version=2016-09-01"

// TestRegistration makes every call of a disconnected registration and of its
// removal in their order.
func TestRegistration(t *testing.T) {
	srv := start(t, azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered", ProviderPolls: 1}))
	c := signIn(t, srv)
	steps := []struct {
		method, path, body string
		status             int
		code               string
		field, want        string // dotted path into the body
	}{
		{"GET", "/subscriptions/{s}?api-version=2022-12-01", "", 200, "", "state", "Enabled"},
		{"GET", "/subscriptions/{s}/providers/Microsoft.AzureStack?api-version=2021-04-01", "", 200, "", "registrationState", "NotRegistered"},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 409, "MissingSubscriptionRegistration", "", ""},
		{"POST", "/subscriptions/{s}/providers/Microsoft.AzureStack/register?api-version=2021-04-01", "", 200, "", "registrationState", "Registering"},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 409, "MissingSubscriptionRegistration", "", ""},
		{"GET", "/subscriptions/{s}/providers/Microsoft.AzureStack?api-version=2021-04-01", "", 200, "", "registrationState", "Registering"},
		{"GET", "/subscriptions/{s}/providers/Microsoft.AzureStack?api-version=2021-04-01", "", 200, "", "registrationState", "Registered"},
		{"GET", "/subscriptions/{s}/locations?api-version=2022-12-01", "", 200, "", "", ""},
		{"GET", "/subscriptions/{s}/resourcegroups/azurestack?api-version=2021-04-01", "", 404, "ResourceGroupNotFound", "", ""},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 404, "ResourceGroupNotFound", "", ""},
		{"PUT", "/subscriptions/{s}/resourcegroups/azurestack?api-version=2021-04-01", `{"location":"atlantis"}`, 400, "LocationNotAvailableForResourceGroup", "", ""},
		{"PUT", "/subscriptions/{s}/resourcegroups/azurestack?api-version=2021-04-01", `{"location":"West Central US","tags":{"owner":"ops"}}`, 201, "", "tags.owner", "ops"},
		{"PUT", "/subscriptions/{s}/resourcegroups/AzureStack?api-version=2021-04-01", `{"location":"eastus"}`, 409, "InvalidResourceGroupLocation", "", ""},
		{"GET", "/subscriptions/{s}/resourcegroups/AZURESTACK?api-version=2021-04-01", "", 200, "", "tags.owner", "ops"},
		{"PUT", "/subscriptions/{s}/resourcegroups/azurestack?api-version=2021-04-01", `{"location":"westcentralus"}`, 200, "", "tags.owner", "<nil>"},
		{"GET", "{r}?api-version=2017-06-01", "", 404, "ResourceNotFound", "", ""},
		{"PATCH", "{r}?api-version=2017-06-01", `{"tags":{"a":"b"}}`, 404, "ResourceNotFound", "", ""},
		{"POST", "{r}/getActivationKey?api-version=2017-06-01", "", 404, "ResourceNotFound", "", ""},
		{"PUT", lockOf, `{"properties":{"level":"CanNotDelete"}}`, 404, "ResourceNotFound", "", ""},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 201, "", "properties.cloudId", officialtest.CloudID(1)},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 200, "", "properties.billingModel", "Capacity"},
		{"PUT", "{r}?api-version=2022-06-01", registrationBody(token(2)), 400, "CloudIdUpdateNotAllowed", "", ""},
		{"GET", lockOf, "", 404, "LockNotFound", "", ""},
		{"PUT", lockOf, `{"properties":{"level":"Forever"}}`, 400, "InvalidRequestContent", "", ""},
		{"PUT", lockOf, `{"properties":{"level":"CanNotDelete","notes":"` + strings.Repeat("n", 513) + `"}}`, 400, "InvalidRequestContent", "", ""},
		{"PUT", lockOf, `{"properties":{"level":"CanNotDelete","notes":"` + strings.Repeat("n", 512) + `"}}`, 201, "", "properties.level", "CanNotDelete"},
		{"PUT", lockOf, `{"properties":{"level":"CanNotDelete","notes":"n"}}`, 200, "", "properties.notes", "n"},
		{"GET", strings.ReplaceAll(lockOf, "2016-09-01", "2020-05-01"), "", 200, "", "type", "Microsoft.Authorization/locks"},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 200, "", "name", "r1"}, // CanNotDelete stops no write
		{"PATCH", "{r}?api-version=2017-06-01", `{"tags":{"key1":"value1"}}`, 200, "", "tags.key1", "value1"},
		{"POST", "{r}/GetActivationKey?api-version=2017-06-01", "", 200, "", "", ""},
		{"POST", "{r}/enableRemoteManagement?api-version=2020-06-01-preview", "", 200, "", "", ""},
		{"GET", "{r}?api-version=2017-06-01", "", 200, "", "location", "global"},
		{"DELETE", "{r}?api-version=2017-06-01", "", 409, "ScopeLocked", "", ""},
		{"PUT", lockOf, `{"properties":{"level":"ReadOnly"}}`, 200, "", "properties.notes", "<nil>"},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(1)), 409, "ScopeLocked", "", ""},
		{"POST", "{r}/getactivationkey?api-version=2017-06-01", "", 409, "ScopeLocked", "", ""},
		{"GET", "{r}?api-version=2017-06-01", "", 200, "", "name", "r1"},
		{"DELETE", lockOf, "", 200, "", "", ""},
		{"DELETE", lockOf, "", 204, "", "", ""},
		{"DELETE", "{r}?api-version=2017-06-01", "", 200, "", "", ""},
		{"DELETE", "{r}?api-version=2017-06-01", "", 204, "", "", ""},
		{"GET", "{r}?api-version=2017-06-01", "", 404, "ResourceNotFound", "", ""},
		{"PUT", "{r}?api-version=2017-06-01", registrationBody(token(2)), 201, "", "", ""}, // the name is free again
	}
	for i, s := range steps {
		a := c.do(s.method, s.path, s.body)
		if a.status != s.status || a.code() != s.code {
			t.Fatalf("step %d %s %s: answer %d %q, want %d %q", i, s.method, s.path, a.status, a.code(), s.status, s.code)
		}
		if got := dig(a.body, s.field); s.field != "" && got != s.want {
			t.Errorf("step %d %s %s: %s is %q, want %q", i, s.method, s.path, s.field, got, s.want)
		}
		if a.header.Get("x-ms-request-id") == "" || a.header.Get("x-ms-correlation-request-id") == "" {
			t.Errorf("step %d %s %s: no request id in %v", i, s.method, s.path, a.header)
		}
	}
}

func dig(body map[string]any, path string) string {
	var v any = body
	for _, name := range strings.Split(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	if s, ok := v.(string); ok {
		return s
	}
	return "<nil>"
}

// TestRefusals has one registration r1 of stamp 1 and asks for what the cloud
// refuses.
func TestRefusals(t *testing.T) {
	const (
		disabled = "11111111-0000-4000-8000-000000000001"
		foreign  = "11111111-0000-4000-8000-000000000002"
		elsetid  = "22222222-0000-4000-8000-000000000002"
	)
	srv := start(t,
		azuretest.WithSubscription(azuretest.Subscription{}),
		azuretest.WithSubscription(azuretest.Subscription{ID: disabled, State: "Disabled"}),
		azuretest.WithSubscription(azuretest.Subscription{ID: foreign, TenantID: elsetid}),
		azuretest.WithClient(azuretest.Client{Secret: "s", NotActions: []string{"Microsoft.Authorization/locks/*"}}),
		azuretest.WithTakenCloudID(strings.ToUpper(officialtest.CloudID(9))),
		azuretest.WithRegistration(azuretest.Registration{Name: "r1", Token: token(1)}),
		azuretest.WithRegistration(azuretest.Registration{Name: "blank"}),
		azuretest.WithRegistration(azuretest.Registration{Name: "held", CloudID: "c", LockLevel: "CanNotDelete"}))
	c := signIn(t, srv)
	second := "/subscriptions/{s}/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/second?api-version=2017-06-01"
	tests := []struct {
		name, method, path, body string
		status                   int
		code, text               string
	}{
		{"no api-version", "GET", "{r}", "", 400, "MissingApiVersionParameter", "(?api-version=) is required"},
		{"no api-version on enableRemoteManagement", "POST", "{r}/enableRemoteManagement", "", 400, "MissingApiVersionParameter", ""},
		{"unknown version of a provider's type", "GET", "{r}?api-version=2099-01-01", "", 400, "NoRegisteredProviderFound", "'2016-01-01, 2017-06-01, 2020-06-01-preview, 2022-03-01, 2022-06-01'"},
		{"unknown version of a group", "GET", "/subscriptions/{s}/resourcegroups/g?api-version=2017-06-01x", "", 400, "InvalidApiVersionParameter", "supported versions"},
		{"unknown version of a lock", "GET", "{r}/providers/Microsoft.Authorization/locks/l?api-version=2017-06-01", "", 400, "InvalidApiVersionParameter", ""},
		{"a registration's version on the subscription", "GET", "/subscriptions/{s}?api-version=2017-06-01", "", 400, "InvalidApiVersionParameter", ""},
		{"no such path", "GET", "/subscriptions/{s}/providers/Microsoft.Unknown?api-version=2021-04-01", "", 404, "InvalidResourceType", ""},
		{"no such method", "DELETE", "/subscriptions/{s}?api-version=2022-12-01", "", 405, "MethodNotAllowed", ""},
		{"no such subscription", "GET", "/subscriptions/33333333-0000-4000-8000-000000000000?api-version=2022-12-01", "", 404, "SubscriptionNotFound", ""},
		{"not a subscription id", "GET", "/subscriptions/rehearsal?api-version=2022-12-01", "", 400, "InvalidSubscriptionId", ""},
		{"subscription of another tenant", "GET", "/subscriptions/" + foreign + "?api-version=2022-12-01", "", 401, "InvalidAuthenticationTokenTenant", elsetid},
		{"disabled subscription, write", "PUT", "/subscriptions/" + disabled + "/resourcegroups/g?api-version=2021-04-01", `{"location":"eastus"}`, 409, "ReadOnlyDisabledSubscription", disabled},
		{"disabled subscription, read", "GET", "/subscriptions/" + disabled + "?api-version=2022-12-01", "", 200, "", ""},
		{"role does not cover locks", "PUT", lockOf, `{"properties":{"level":"CanNotDelete"}}`, 403, "AuthorizationFailed", "'Microsoft.Authorization/locks/write' over scope"},
		{"role does not cover reading locks", "GET", lockOf, "", 403, "AuthorizationFailed", "'Microsoft.Authorization/locks/read'"},
		{"no such group", "PUT", strings.ReplaceAll(second, "azurestack/", "nowhere/"), registrationBody(token(3)), 404, "ResourceGroupNotFound", "'nowhere'"},
		{"body empty", "PUT", second, "", 400, "InvalidRequestContent", "empty"},
		{"body not JSON", "PUT", second, "<xml/>", 400, "InvalidRequestContent", ""},
		{"no location", "PUT", second, `{"properties":{"registrationToken":"e30="}}`, 400, "LocationRequired", ""},
		{"location of a region", "PUT", second, `{"location":"eastus","properties":{"registrationToken":"e30="}}`, 400, "LocationNotAvailableForResourceType", "'eastus'"},
		{"no token", "PUT", second, `{"location":"global","properties":{}}`, 400, "InvalidRegistrationToken", "The registration token is malformed."},
		{"token empty", "PUT", second, registrationBody(""), 400, "InvalidRegistrationToken", ""},
		{"token without cloud id", "PUT", second, registrationBody("e30="), 400, "InvalidRegistrationToken", ""},
		{"token cut at 1022", "PUT", second, registrationBody(token(3)[:1022]), 400, "InvalidRegistrationToken", ""},
		{"token cut at a multiple of 4", "PUT", second, registrationBody(token(3)[:1020]), 400, "InvalidRegistrationToken", ""},
		{"token with a blank", "PUT", second, registrationBody(token(3)[:8] + " " + token(3)[8:]), 400, "InvalidRegistrationToken", ""},
		{"token with a line end", "PUT", second, registrationBody(token(3) + `\n`), 400, "InvalidRegistrationToken", ""},
		{"token in other letter case", "PUT", second, registrationBody(strings.ToLower(token(3))), 400, "InvalidRegistrationToken", ""},
		{"token opaque", "PUT", second, registrationBody("b3BhcXVl"), 400, "InvalidRegistrationToken", ""},
		{"cloud id under another name here", "PUT", second, registrationBody(token(1)), 409, azuretest.CodeCloudIDRegistered, "Cloud identifier [" + officialtest.CloudID(1) + "] is already registered. Reusing cloud identifiers isn't allowed."},
		{"cloud id registered elsewhere", "PUT", second, registrationBody(token(9)), 409, azuretest.CodeCloudIDRegistered, officialtest.CloudID(9)},
		{"name of another stamp", "PUT", "{r}?api-version=2017-06-01", registrationBody(token(3)), 400, "CloudIdUpdateNotAllowed", "The registration 'r1' is already associated with another Cloud identifier. Changing cloud identifiers is not allowed."},
		{"name of a registration without a cloud id", "PUT", "/subscriptions/{s}/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/blank?api-version=2017-06-01", registrationBody(token(4)), 200, "", ""},
		{"locked", "DELETE", "/subscriptions/{s}/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/held?api-version=2017-06-01", "", 409, "ScopeLocked", "cannot perform delete operation"},
		{"bad skip token", "GET", "/subscriptions/{s}/providers/Microsoft.AzureStack/registrations?api-version=2017-06-01&$skiptoken=x", "", 400, "InvalidSkipToken", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := c.do(test.method, test.path, test.body)
			if a.status != test.status || a.code() != test.code || !strings.Contains(a.message(), test.text) {
				t.Errorf("answer %d %q %q, want %d %q with %q", a.status, a.code(), a.message(), test.status, test.code, test.text)
			}
			if test.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer authorization_uri=") {
				t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
			}
		})
	}
}

func TestTooLargeBody(t *testing.T) {
	c := signIn(t, start(t))
	c.expect(413, "RequestContentTooLarge", c.do("PUT", "{r}?api-version=2017-06-01", registrationBody(strings.Repeat("A", 4<<20))))
}

func TestOpaqueTokens(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}), azuretest.WithOpaqueTokens("stamp-6"))
	c := signIn(t, srv)
	c.expect(400, "InvalidRegistrationToken", c.do("PUT", "{r}?api-version=2017-06-01", registrationBody("not base64!")))
	a := c.expect(201, "", c.do("PUT", "{r}?api-version=2017-06-01", registrationBody("b3BhcXVl")))
	if got := dig(a.body, "properties.cloudId"); got != "stamp-6" {
		t.Errorf("cloud id %q, want %q", got, "stamp-6")
	}
}

func TestListPages(t *testing.T) {
	opts := []azuretest.Option{azuretest.WithPageSize(2), azuretest.WithGroup(azuretest.Group{Name: "Other"})}
	for _, n := range []string{"e", "a", "d", "B", "c"} {
		opts = append(opts, azuretest.WithRegistration(azuretest.Registration{Name: n, CloudID: "cloud-" + n}))
	}
	opts = append(opts, azuretest.WithRegistration(azuretest.Registration{Name: "f", CloudID: "cloud-f", Group: "other"}))
	srv := start(t, opts...)
	c := signIn(t, srv)
	list := func(path string) (got []string, pages int) {
		next := srv.URL + strings.ReplaceAll(path, "{s}", strings.ToUpper(srv.Subscription))
		for next != "" {
			pages++
			a := c.expect(200, "", c.send("GET", next, nil, ""))
			for _, v := range a.body["value"].([]any) {
				got = append(got, v.(map[string]any)["name"].(string))
			}
			next, _ = a.body["nextLink"].(string)
		}
		return got, pages
	}
	for _, test := range []struct {
		path  string
		want  []string
		pages int
	}{
		{"/subscriptions/{s}/providers/Microsoft.AzureStack/registrations?api-version=2017-06-01", []string{"a", "B", "c", "d", "e", "f"}, 3},
		{"/subscriptions/{s}/resourceGroups/AZURESTACK/providers/Microsoft.AzureStack/registrations?api-version=2017-06-01", []string{"a", "B", "c", "d", "e"}, 3},
		{"/subscriptions/{s}/resourceGroups/other/providers/Microsoft.AzureStack/registrations?api-version=2017-06-01", []string{"f"}, 1},
	} {
		got, pages := list(test.path)
		if diff := cmp.Diff(test.want, got); diff != "" || pages != test.pages {
			t.Errorf("%s: %d pages, want %d; names (-want +got):\n%s", test.path, pages, test.pages, diff)
		}
	}
}

// TestCase: Resource Manager compares paths without case and answers with the
// spelling of the resource's creation.
func TestCase(t *testing.T) {
	srv := start(t, azuretest.WithRegistration(azuretest.Registration{Name: "Stamp-One", Group: "AzureStack", CloudID: "c"}))
	c := signIn(t, srv)
	a := c.expect(200, "", c.do("GET", "/SUBSCRIPTIONS/{s}/ResourceGroups/azurestack/PROVIDERS/microsoft.azurestack/REGISTRATIONS/stamp-one?api-version=2017-06-01", ""))
	want := "/subscriptions/" + srv.Subscription + "/resourceGroups/AzureStack/providers/Microsoft.AzureStack/registrations/Stamp-One"
	if a.body["id"] != want {
		t.Errorf("id %v, want %s", a.body["id"], want)
	}
}

func TestGroupLockStopsTheRegistration(t *testing.T) {
	c := signIn(t, start(t, azuretest.WithRegistration(azuretest.Registration{Name: "r1", CloudID: "c"})))
	group := "/subscriptions/{s}/resourceGroups/azurestack/providers/Microsoft.Authorization/locks/keep?api-version=2020-05-01"
	c.expect(201, "", c.do("PUT", group, `{"properties":{"level":"CanNotDelete"}}`))
	c.expect(409, "ScopeLocked", c.do("DELETE", "{r}?api-version=2017-06-01", ""))
	a := c.expect(200, "", c.do("GET", "/subscriptions/{s}/providers/Microsoft.Authorization/locks?api-version=2016-09-01", ""))
	if n := len(a.body["value"].([]any)); n != 1 {
		t.Errorf("%d locks listed below the subscription, want 1", n)
	}
	c.expect(200, "", c.do("DELETE", group, ""))
	c.expect(200, "", c.do("DELETE", "{r}?api-version=2017-06-01", ""))
}

func TestPermissionsAreWhatIsEnforced(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}),
		azuretest.WithClient(azuretest.Client{Secret: "s", Actions: []string{"Microsoft.Resources/*/read", "Microsoft.Authorization/permissions/read"}, NotActions: []string{"*/locations/read"}}))
	c := signIn(t, srv)
	a := c.expect(200, "", c.do("GET", "/subscriptions/{s}/resourcegroups/azurestack/providers/Microsoft.Authorization/permissions?api-version=2022-04-01", ""))
	want := []any{map[string]any{"actions": []any{"Microsoft.Resources/*/read", "Microsoft.Authorization/permissions/read"}, "notActions": []any{"*/locations/read"}, "dataActions": []any{}, "notDataActions": []any{}}}
	if diff := cmp.Diff(want, a.body["value"]); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
	c.expect(200, "", c.do("GET", "/subscriptions/{s}/resourcegroups/azurestack?api-version=2021-04-01", ""))
	c.expect(403, "AuthorizationFailed", c.do("GET", "/subscriptions/{s}/locations?api-version=2022-12-01", ""))
	c.expect(403, "AuthorizationFailed", c.do("POST", "/subscriptions/{s}/providers/Microsoft.AzureStack/register?api-version=2021-04-01", ""))
}

func TestSubscriptionsOfTheTenantOnly(t *testing.T) {
	srv := start(t, azuretest.WithSubscription(azuretest.Subscription{Name: "ours"}),
		azuretest.WithSubscription(azuretest.Subscription{Name: "late", State: "PastDue"}),
		azuretest.WithSubscription(azuretest.Subscription{Name: "theirs", TenantID: "22222222-0000-4000-8000-000000000002"}))
	c := signIn(t, srv)
	got := map[string]any{}
	for _, v := range c.expect(200, "", c.do("GET", "/subscriptions?api-version=2022-12-01", "")).body["value"].([]any) {
		sub := v.(map[string]any)
		got[sub["displayName"].(string)] = sub["state"]
	}
	if diff := cmp.Diff(map[string]any{"ours": "Enabled", "late": "PastDue"}, got); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
}

func TestMetadata(t *testing.T) {
	for _, list := range []bool{false, true} {
		var opts []azuretest.Option
		if list {
			opts = append(opts, azuretest.WithMetadataList())
		}
		srv := start(t, opts...)
		c := anonymous(t, srv) // discovery comes before any credential
		old := c.do("GET", "/metadata/endpoints?api-version=2015-01-01", "").body["authentication"].(map[string]any)
		if old["loginEndpoint"] != srv.Authority || old["audiences"].([]any)[0] != srv.Audience {
			t.Errorf("authentication is %v, want login %s and audience %s", old, srv.Authority, srv.Audience)
		}
		res, err := c.http.Get(srv.URL + "/metadata/endpoints?api-version=2022-09-01")
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 1)
		_, _ = res.Body.Read(first)
		res.Body.Close()
		if want := map[bool]string{false: "{", true: "["}[list]; string(first) != want {
			t.Errorf("list %v: 2022-09-01 answers %q…, want %q…", list, first, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	c := signIn(t, start(t))
	for _, test := range []struct{ method, path, header string }{
		{"GET", "/subscriptions/{s}?api-version=2022-12-01", "x-ms-ratelimit-remaining-subscription-reads"},
		{"GET", "/subscriptions?api-version=2022-12-01", "x-ms-ratelimit-remaining-tenant-reads"},
		{"POST", "{r}/getActivationKey?api-version=2017-06-01", "x-ms-ratelimit-remaining-subscription-writes"},
		{"DELETE", "{r}?api-version=2017-06-01", "x-ms-ratelimit-remaining-subscription-deletes"},
	} {
		if a := c.do(test.method, test.path, ""); a.header.Get(test.header) == "" {
			t.Errorf("%s %s: no %s in %v", test.method, test.path, test.header, a.header)
		}
	}
}

func TestThrottling(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithClock(clock), azuretest.WithThrottling(azuretest.Limits{
		Reads: azuretest.Bucket{Size: 3, PerSecond: 0.5}, Writes: azuretest.Bucket{Size: 1}, Deletes: azuretest.Bucket{Size: 1}}))
	c := signIn(t, srv)
	const get, reads = "/subscriptions/{s}?api-version=2022-12-01", "x-ms-ratelimit-remaining-subscription-reads"
	for _, want := range []string{"2", "1", "0"} {
		if a := c.expect(200, "", c.do("GET", get, "")); a.header.Get(reads) != want {
			t.Errorf("%s reads remain, want %s", a.header.Get(reads), want)
		}
	}
	a := c.expect(429, "SubscriptionRequestsThrottled", c.do("GET", get, ""))
	if a.header.Get("Retry-After") != "2" || a.header.Get(reads) != "0" {
		t.Errorf("Retry-After %q with %q left, want 2 with 0", a.header.Get("Retry-After"), a.header.Get(reads))
	}
	c.expect(204, "", c.do("DELETE", "/subscriptions/{s}/providers/Microsoft.Authorization/locks/none?api-version=2016-09-01", "")) // another bucket
	clock.move(2 * time.Second)
	c.expect(200, "", c.do("GET", get, ""))
	c.expect(429, "SubscriptionRequestsThrottled", c.do("GET", get, ""))
	clock.move(time.Hour - 3*time.Second)
	for range 3 {
		c.expect(200, "", c.do("GET", get, ""))
	}
	c.expect(429, "SubscriptionRequestsThrottled", c.do("GET", get, "")) // never more than the bucket holds
}
