package azure_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

func TestRoleFor(t *testing.T) {
	sub, err := azure.ParseSubscriptionID("dd8597b4-8739-4467-8b10-f8679f62bfbf")
	if err != nil {
		t.Fatal(err)
	}
	group, err := sub.Group("azurestack")
	if err != nil {
		t.Fatal(err)
	}
	role, err := azure.RoleFor(group, "unregister")
	if err != nil {
		t.Fatal(err)
	}
	want := azure.Role{
		Name: "azs-relay unregister", IsCustom: true,
		Description: "The least that azs-relay needs to unregister registrations of disconnected Azure Stack Hub stamps",
		Actions: []string{"Microsoft.Resources/subscriptions/read", "Microsoft.AzureStack/registrations/read", "Microsoft.AzureStack/registrations/delete",
			"Microsoft.Authorization/locks/read", "Microsoft.Authorization/locks/delete", "Microsoft.Authorization/permissions/read"},
		NotActions:       []string{},
		AssignableScopes: []string{"/subscriptions/dd8597b4-8739-4467-8b10-f8679f62bfbf/resourceGroups/azurestack"},
	}
	if d := cmp.Diff(want, role); d != "" {
		t.Error(d)
	}
	var again azure.Role
	if err := json.Unmarshal(role.JSON(), &again); err != nil || !cmp.Equal(role, again) {
		t.Errorf("%s: %v", role.JSON(), err)
	}

	// Fault 11 of the official flow: the documented role lacks locks/delete, and
	// holds a right to grant rights.
	for _, verb := range azure.RoleVerbs {
		r, err := azure.RoleFor(sub, verb)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range r.Actions {
			if strings.Contains(a, "*") || strings.Contains(a, "roleAssignments") {
				t.Errorf("%s: %s is more than is needed", verb, a)
			}
		}
		removes := slices.Contains([]string{"unregister", "renew", "batch", "move"}, verb)
		if slices.Contains(r.Actions, "Microsoft.Authorization/locks/delete") != removes {
			t.Errorf("%s: locks/delete is there: %v", verb, !removes)
		}
	}
	both, err := azure.RoleFor(sub, "unregister", "register")
	if err != nil {
		t.Fatal(err)
	}
	renew, err := azure.RoleFor(sub, "renew")
	if err != nil || !cmp.Equal(both.Actions, renew.Actions) {
		t.Errorf("renew is not unregister and register: %v", err)
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(both.Actions)))); n != len(both.Actions) {
		t.Errorf("%d actions, %d different ones", len(both.Actions), n)
	}
	for _, verbs := range [][]string{nil, {"fly"}, {"register", ""}} {
		if _, err := azure.RoleFor(sub, verbs...); fault.KindOf(err) != fault.Usage {
			t.Errorf("%q = %v", verbs, err)
		}
	}
}

func TestPermissionAllows(t *testing.T) {
	tests := []struct {
		actions, notActions, action string
		want                        bool
	}{
		{"*", "", "Microsoft.AzureStack/registrations/write", true},
		{"*", "Microsoft.Authorization/*/Delete,Microsoft.Authorization/*/Write", "Microsoft.Authorization/locks/write", false},
		{"*", "Microsoft.Authorization/*/Delete,Microsoft.Authorization/*/Write", "Microsoft.Authorization/locks/read", true},
		{"*/read", "", "Microsoft.AzureStack/registrations/read", true},
		{"*/read", "", "Microsoft.AzureStack/registrations/write", false},
		{"microsoft.azurestack/registrations/*", "", "Microsoft.AzureStack/registrations/getActivationKey/action", true},
		{"Microsoft.AzureStack/registrations/*", "", "Microsoft.AzureStack/register/action", false},
		{"Microsoft.AzureStack/*/a*b*/action", "", "Microsoft.AzureStack/x/a-ab-/action", true},
		{"a*a", "", "a", false},
		{"a*a", "", "aa", true},
		{"", "", "x", false},
		{"x", "x", "x", false},
	}
	for _, tt := range tests {
		p := azure.Permission{Actions: strings.Split(tt.actions, ","), NotActions: strings.Split(tt.notActions, ",")}
		if got := p.Allows(tt.action); got != tt.want {
			t.Errorf("%q not %q allows %q = %v", tt.actions, tt.notActions, tt.action, got)
		}
	}
}

// Fault 11 of the official flow: what is missing is named before the first
// change, not found out half way.
func TestCheckWrites(t *testing.T) {
	role := func(verbs ...string) []string {
		sub, _ := azure.ParseSubscriptionID("dd8597b4-8739-4467-8b10-f8679f62bfbf")
		r, err := azure.RoleFor(sub, verbs...)
		if err != nil {
			t.Fatal(err)
		}
		return r.Actions
	}
	without := func(actions []string, one string) []string {
		return slices.DeleteFunc(slices.Clone(actions), func(a string) bool { return a == one })
	}
	register := func(q azure.Requests, id azure.RegistrationID) []azure.Request {
		return []azure.Request{q.PutRegistration(id, secret.New("token")), q.PutLock(id), q.ActivationKey(id)}
	}
	remove := func(q azure.Requests, id azure.RegistrationID) []azure.Request {
		return []azure.Request{q.DeleteLock(id), q.DeleteRegistration(id)}
	}
	move := func(q azure.Requests, id azure.RegistrationID) []azure.Request {
		return []azure.Request{q.ValidateMove(id, id.Group()), q.DeleteLock(id), q.Move(id, id.Group()), q.PutLock(id)}
	}
	provider := func(q azure.Requests, id azure.RegistrationID) []azure.Request {
		return append([]azure.Request{q.RegisterProvider(id.Subscription())}, register(q, id)...)
	}
	group := func(q azure.Requests, id azure.RegistrationID) []azure.Request {
		return append([]azure.Request{q.CreateGroup(id.Group(), "eastus")}, register(q, id)...)
	}
	tests := []struct {
		name     string
		client   azuretest.Client
		writes   func(azure.Requests, azure.RegistrationID) []azure.Request
		missing  string // in the refusal; "" is none
		role     string // in the hint
		progress string
	}{
		{"exactly the role", azuretest.Client{Actions: role("register")}, register, "", "", ""},
		{"exactly the role of a removal", azuretest.Client{Actions: role("unregister")}, remove, "", "", ""},
		{"exactly the role of a move", azuretest.Client{Actions: role("move")}, move, "", "", ""},
		{"the role of the official documentation", azuretest.Client{Actions: []string{"Microsoft.Resources/subscriptions/resourceGroups/write", "Microsoft.Resources/subscriptions/resourceGroups/read",
			"Microsoft.Resources/subscriptions/read", "Microsoft.AzureStack/registrations/*", "Microsoft.Authorization/permissions/read", "Microsoft.Authorization/locks/read", "Microsoft.Authorization/locks/write"}},
			remove, "lacks the action Microsoft.Authorization/locks/delete in resource group", "unregister", ""},
		{"Contributor cannot lock", azuretest.Client{Actions: []string{"*"}, NotActions: []string{"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action"}},
			register, "lacks the action Microsoft.Authorization/locks/write in resource group", "register", ""},
		{"what is not sent is not needed", azuretest.Client{Actions: without(role("register"), "Microsoft.AzureStack/register/action")}, register, "", "", ""},
		{"the provider has to be registered", azuretest.Client{Actions: without(role("register"), "Microsoft.AzureStack/register/action")}, provider,
			"lacks the action Microsoft.AzureStack/register/action in", "register", ""},
		{"a group that is yet to be made", azuretest.Client{Actions: role("list")}, group, "", "", ""},
		{"several", azuretest.Client{Actions: role("key", "register")}, remove, "lacks the actions Microsoft.Authorization/locks/delete, Microsoft.AzureStack/registrations/delete in", "unregister", ""},
		{"of two verbs", azuretest.Client{Actions: role("list", "register")}, func(q azure.Requests, id azure.RegistrationID) []azure.Request {
			return append(remove(q, id), move(q, id)...)
		}, "resourceGroups/validateMoveResources/action", "move,unregister", ""},
		{"not allowed to look", azuretest.Client{Actions: without(role("list"), "Microsoft.Authorization/permissions/read")}, register, "", "", "may not read its own rights"},
		{"nothing to do", azuretest.Client{Actions: role("list")}, func(azure.Requests, azure.RegistrationID) []azure.Request { return nil }, "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.Secret = "a-client-secret"
			s := newSite(t, azuretest.WithClient(tt.client), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
			c := s.connect(t)
			err := c.CheckWrites(t.Context(), tt.writes(c.Requests, s.id(t, "azurestack", "x")))
			if tt.missing == "" {
				if err != nil {
					t.Error(err)
				}
			} else if fault.KindOf(err) != fault.Permanent || !strings.Contains(err.Error(), tt.missing) ||
				fault.HintOf(err) != "azs-relay role --for "+tt.role+" --subscription "+s.Subscription {
				t.Errorf("%v, hint %q", err, fault.HintOf(err))
			}
			if said := strings.Join(s.said, "\n"); !strings.Contains(said, tt.progress) || tt.progress == "" && strings.Contains(said, "not checked") {
				t.Errorf("said %q, want %q", said, tt.progress)
			}
		})
	}

	s := newSite(t)
	c := s.connect(t)
	r, err := c.ReadRights(t.Context(), s.id(t, "absent", "x").Group(), "register")
	if err != nil || !strings.Contains(r.Unchecked, `resource group "absent" does not exist yet`) {
		t.Errorf("an absent group: %+v, %v", r, err)
	}
}
