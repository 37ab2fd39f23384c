package azure

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/secret"
)

const canary = "Canary7Q2MKX4R+qZ0vLw8uTg3yBn5cJd9fHs1kPa6mEr2x/Q7iW4oX8tYz0123="

// The requests of azure.md's table, byte for byte.
func TestRequests(t *testing.T) {
	q := Requests{Endpoint: "https://management.azure.com"}
	id := mustID(t, "azurestack", "my stamp")
	sub, group := id.Subscription(), id.Group()
	const (
		s = "https://management.azure.com/subscriptions/" + testSub
		r = s + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/my%20stamp"
	)
	tests := []struct {
		name              string
		got               Request
		method, url, body string
	}{
		{"subscriptions", q.Subscriptions(), "GET", "https://management.azure.com/subscriptions?api-version=2022-12-01", ""},
		{"subscription", q.Subscription(sub), "GET", s + "?api-version=2022-12-01", ""},
		{"provider", q.Provider(sub), "GET", s + "/providers/Microsoft.AzureStack?api-version=2021-04-01", ""},
		{"register", q.RegisterProvider(sub), "POST", s + "/providers/Microsoft.AzureStack/register?api-version=2021-04-01", ""},
		{"locations", q.Locations(sub), "GET", s + "/locations?api-version=2022-12-01", ""},
		{"group", q.Group(group), "GET", s + "/resourceGroups/azurestack?api-version=2021-04-01", ""},
		{"create group", q.CreateGroup(group, "westcentralus"), "PUT", s + "/resourceGroups/azurestack?api-version=2021-04-01", `{"location":"westcentralus"}`},
		{"list", q.Registrations(sub), "GET", s + "/providers/Microsoft.AzureStack/registrations?api-version=2017-06-01", ""},
		{"put", q.PutRegistration(id, secret.New(canary)), "PUT", r + "?api-version=2017-06-01", `{"location":"global","properties":{"registrationToken":"` + canary + `"}}`},
		{"get", q.Registration(id), "GET", r + "?api-version=2017-06-01", ""},
		{"delete", q.DeleteRegistration(id), "DELETE", r + "?api-version=2017-06-01", ""},
		{"key", q.ActivationKey(id), "POST", r + "/getActivationKey?api-version=2017-06-01", ""},
		{"lock", q.Lock(id), "GET", r + "/providers/Microsoft.Authorization/locks/RegistrationResourceLock?api-version=2016-09-01", ""},
		{"put lock", q.PutLock(id), "PUT", r + "/providers/Microsoft.Authorization/locks/RegistrationResourceLock?api-version=2016-09-01",
			`{"properties":{"level":"CanNotDelete","notes":"Registration resource my stamp is needed for syndication. Placing resource lock to prevent accidental deletion."}}`},
		{"delete lock", q.DeleteLock(id), "DELETE", r + "/providers/Microsoft.Authorization/locks/RegistrationResourceLock?api-version=2016-09-01", ""},
		{"other version", Requests{Endpoint: q.Endpoint, APIVersion: "2022-06-01"}.Registration(id), "GET", r + "?api-version=2022-06-01", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := []string{tt.got.Method, tt.got.URL, string(tt.got.payload())}
			if d := cmp.Diff([]string{tt.method, tt.url, tt.body}, got); d != "" {
				t.Error(d)
			}
			if tt.got.Purpose == "" {
				t.Error("no purpose")
			}
		})
	}
}

// What --dry-run prints is the body that is sent, but for the token.
func TestPrintShowsEverythingButTheToken(t *testing.T) {
	q := Requests{Endpoint: "https://management.azure.com"}.PutRegistration(mustID(t, "azurestack", "stamp"), secret.New(canary))
	var b strings.Builder
	if err := q.Print(&b); err != nil {
		t.Fatal(err)
	}
	want := `# put registration "stamp" into resource group "azurestack"
PUT https://management.azure.com/subscriptions/dd8597b4-8739-4467-8b10-f8679f62bfbf/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/stamp?api-version=2017-06-01
Content-Type: application/json

{
  "location": "global",
  "properties": {
    "registrationToken": "<registration token: 64 bytes, sha256 ffef69b9acda44d36efada1b6d35e1937263e72872e22448f424d6e0dd2e1d6d>"
  }
}
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	var sent, shown map[string]any
	if err := json.Unmarshal(q.payload(), &sent); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(q.shown(), &shown); err != nil {
		t.Fatal(err)
	}
	token := shown["properties"].(map[string]any)
	if sent["properties"].(map[string]any)["registrationToken"] != canary {
		t.Error("the token is not sent as it is")
	}
	token["registrationToken"] = canary
	if d := cmp.Diff(sent, shown); d != "" {
		t.Error(d)
	}

	js, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{b.String(), string(js)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out = append(out, fmt.Sprintf(verb, q), fmt.Sprintf(verb, &q), fmt.Sprintf(verb, []Request{q}))
	}
	for _, o := range out {
		if strings.Contains(o, canary[:echo]) || strings.Contains(o, fmt.Sprintf("%x", canary[:echo])) {
			t.Errorf("the token shows in %q", o)
		}
	}
	if !strings.Contains(string(js), "registration token: 64 bytes") {
		t.Errorf("JSON %s", js)
	}
}

// A bearer goes where nextLink points: only the next page of the same endpoint
// may get it.
func TestFollowStaysAtHome(t *testing.T) {
	q := Request{Method: "GET", URL: "https://management.azure.com/subscriptions?api-version=2022-12-01"}
	good := "https://Management.azure.com/subscriptions?api-version=2022-12-01&$skiptoken=2"
	if next, err := q.follow(good); err != nil || next.URL != good || next.Method != "GET" {
		t.Errorf("follow(%q) = %v, %v", good, next, err)
	}
	for _, bad := range []string{"http://management.azure.com/subscriptions", "https://evil.example/subscriptions", "//evil.example/",
		"/subscriptions?page=2", "https://management.azure.com@evil.example/", "https://x:y@management.azure.com/", "https://management.azure.com:444/", "\x00", ""} {
		if next, err := q.follow(bad); err == nil {
			t.Errorf("follow(%q) = %v", bad, next)
		}
	}
}
