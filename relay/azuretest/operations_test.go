package azuretest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

func moveBody(sub, from, name, toSub, to string) string {
	return fmt.Sprintf(`{"resources":["/subscriptions/%s/resourceGroups/%s/providers/Microsoft.AzureStack/registrations/%s"],"targetResourceGroup":"/subscriptions/%s/resourceGroups/%s"}`, sub, from, name, toSub, to)
}

// await polls a 202 to its end and returns how many polls that took.
func await(c *caller, srv *azuretest.Server, a answer) (int, answer) {
	polls := 0
	for ; a.status == http.StatusAccepted; polls++ {
		a = c.do("GET", strings.TrimPrefix(a.header.Get("Location"), srv.URL), "")
	}
	return polls, a
}

func TestMove(t *testing.T) {
	const (
		one     = "11111111-0000-4000-8000-000000000001"
		two     = "11111111-0000-4000-8000-000000000002"
		other   = "11111111-0000-4000-8000-000000000003"
		abroad  = "11111111-0000-4000-8000-000000000004"
		newTo   = "/subscriptions/" + one + "/resourcegroups/azurestack/"
		version = "?api-version=2021-04-01"
	)
	csp := func(id, partner string) azuretest.Option {
		return azuretest.WithSubscription(azuretest.Subscription{ID: id, QuotaID: "CSP_2015-05-01", PartnerID: partner})
	}
	srv := start(t, csp(one, "p1"), csp(two, "p1"), csp(other, "p2"),
		azuretest.WithSubscription(azuretest.Subscription{ID: abroad, QuotaID: "CSP_2015-05-01", PartnerID: "p1", TenantID: "22222222-0000-4000-8000-000000000002"}),
		azuretest.WithMoves(azuretest.Moves{Polls: 2, RetryAfter: 7}),
		azuretest.WithRegistration(azuretest.Registration{Name: "r1", CloudID: "c1", LockLevel: "CanNotDelete"}),
		azuretest.WithRegistration(azuretest.Registration{Name: "twin", CloudID: "c2"}),
		azuretest.WithRegistration(azuretest.Registration{Group: "taken", Name: "twin", CloudID: "c3"}),
		azuretest.WithGroup(azuretest.Group{Name: "target"}),
		azuretest.WithGroup(azuretest.Group{Subscription: two, Name: "target"}),
		azuretest.WithGroup(azuretest.Group{Subscription: other, Name: "target"}),
		azuretest.WithGroup(azuretest.Group{Subscription: abroad, Name: "target"}))
	c := signIn(t, srv)
	for _, what := range []string{"validateMoveResources", "moveResources"} {
		for _, tt := range []struct {
			body, code string
			status     int
			late       bool // told at the Location
		}{
			{moveBody(one, "azurestack", "r1", one, "target"), "ScopeLocked", 409, false},
			{moveBody(one, "azurestack", "twin", one, "absent"), "ResourceGroupNotFound", 404, false},
			{moveBody(one, "azurestack", "twin", one, "azurestack"), "InvalidResourceMoveRequest", 400, false},
			{moveBody(one, "azurestack", "absent", one, "target"), "ResourceNotFound", 404, false},
			{moveBody(one, "taken", "twin", one, "target"), "ResourceNotFound", 404, false},
			{moveBody(one, "azurestack", "twin", "nowhere", "target"), "SubscriptionNotFound", 404, false},
			{`{"resources":[],"targetResourceGroup":"x"}`, "InvalidResourceMoveRequest", 400, false},
			{moveBody(one, "azurestack", "twin", one, "taken"), "ResourceMoveProviderValidationFailed", 409, true},
			{moveBody(one, "azurestack", "twin", other, "target"), "ResourceMoveProviderValidationFailed", 409, true},
			{moveBody(one, "azurestack", "twin", abroad, "target"), "ResourceMoveProviderValidationFailed", 409, true},
		} {
			a := c.do("POST", newTo+what+version, tt.body)
			if tt.late {
				c.expect(202, "", a)
				_, a = await(c, srv, a)
			}
			c.expect(tt.status, tt.code, a)
		}
	}

	// A move ends after its polls; meanwhile both groups take no change.
	c.expect(200, "", c.do("DELETE", newTo+"providers/Microsoft.AzureStack/registrations/r1/providers/Microsoft.Authorization/locks/RegistrationResourceLock?api-version=2016-09-01", ""))
	a := c.do("POST", newTo+"moveResources"+version, moveBody(one, "azurestack", "r1", two, "target"))
	if c.expect(202, "", a); a.header.Get("Retry-After") != "7" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	c.expect(409, "Conflict", c.do("PUT", "/subscriptions/"+two+"/resourcegroups/target"+version, `{"location":"westcentralus"}`))
	if polls, a := await(c, srv, a); a.status != 204 || polls != 2 { // the refused change was one
		t.Errorf("%d after %d polls", a.status, polls)
	}
	c.expect(404, "ResourceNotFound", c.do("GET", newTo+"providers/Microsoft.AzureStack/registrations/r1?api-version=2017-06-01", ""))
	c.expect(200, "", c.do("GET", "/subscriptions/"+two+"/resourcegroups/target/providers/Microsoft.AzureStack/registrations/r1?api-version=2017-06-01", ""))
	c.expect(200, "", c.do("PUT", "/subscriptions/"+two+"/resourcegroups/target"+version, `{"location":"westcentralus"}`))

	// ReadOnly at the target stops a move, CanNotDelete there does not.
	lock := "/subscriptions/" + one + "/resourcegroups/target/providers/Microsoft.Authorization/locks/l?api-version=2016-09-01"
	c.expect(201, "", c.do("PUT", lock, `{"properties":{"level":"ReadOnly"}}`))
	c.expect(409, "ScopeLocked", c.do("POST", newTo+"moveResources"+version, moveBody(one, "azurestack", "twin", one, "target")))
	c.expect(200, "", c.do("PUT", lock, `{"properties":{"level":"CanNotDelete"}}`))
	c.expect(202, "", c.do("POST", newTo+"moveResources"+version, moveBody(one, "azurestack", "twin", one, "target")))
}

func TestMoveNeedsBothRights(t *testing.T) {
	srv := start(t, azuretest.WithClient(azuretest.Client{Secret: "s", Actions: []string{"*"}, NotActions: []string{"Microsoft.Resources/subscriptions/resourceGroups/write"}}),
		azuretest.WithRegistration(azuretest.Registration{Name: "r1", CloudID: "c1"}), azuretest.WithGroup(azuretest.Group{Name: "target"}))
	c := signIn(t, srv)
	a := c.do("POST", "/subscriptions/{s}/resourcegroups/azurestack/moveResources?api-version=2021-04-01", moveBody(srv.Subscription, "azurestack", "r1", srv.Subscription, "target"))
	if c.expect(403, "LinkedAuthorizationFailed", a); !strings.Contains(a.message(), "resourceGroups/write") {
		t.Error(a.message())
	}
}

// A group is deleted with what is in it, unless a lock of it, above it or in it
// stops that.
func TestDeleteGroup(t *testing.T) {
	srv := start(t, azuretest.WithRegistration(azuretest.Registration{Name: "r1", CloudID: "c1", LockLevel: "CanNotDelete"}))
	c := signIn(t, srv)
	const group = "/subscriptions/{s}/resourcegroups/azurestack?api-version=2021-04-01"
	a := c.do("DELETE", group, "")
	if c.expect(409, "ScopeLocked", a); !strings.Contains(a.message(), "registrations/r1'. Please") {
		t.Error(a.message())
	}
	c.expect(200, "", c.do("DELETE", lockOf, ""))
	for _, lock := range []string{"/subscriptions/{s}/providers/Microsoft.Authorization/locks/l?api-version=2016-09-01",
		"/subscriptions/{s}/resourcegroups/azurestack/providers/Microsoft.Authorization/locks/l?api-version=2016-09-01"} {
		for _, level := range []string{"CanNotDelete", "ReadOnly"} {
			c.do("PUT", lock, `{"properties":{"level":"`+level+`"}}`)
			c.expect(409, "ScopeLocked", c.do("DELETE", group, ""))
			c.expect(409, "ScopeLocked", c.do("DELETE", "{r}?api-version=2017-06-01", ""))
			write := map[string]int{"CanNotDelete": 200, "ReadOnly": 409}[level]
			if a := c.do("POST", "{r}/getActivationKey?api-version=2017-06-01", ""); a.status != write {
				t.Errorf("%s: POST answered %d", level, a.status)
			}
			c.expect(200, "", c.do("GET", "{r}?api-version=2017-06-01", ""))
		}
		c.expect(200, "", c.do("DELETE", lock, ""))
	}
	if _, a := await(c, srv, c.do("DELETE", group, "")); a.status != 200 {
		t.Errorf("status %d", a.status)
	}
	if s := srv.State(); len(s.Groups) != 0 || len(s.Registrations) != 0 {
		t.Errorf("left: %+v", s)
	}
}
