package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// RoleVerbs are the verbs that a role can be for. "renew" is unregister and
// register; "batch" is what a fleet's bundles can ask for, which is the same.
var RoleVerbs = []string{"register", "renew", "unregister", "move", "key", "list", "batch"}

// right is one action of Azure's role-based access control and the verbs that
// need it.
type right struct {
	action string
	verbs  []string // of register, unregister, move, key, list
	// spare says when the verbs can do without; "" is never. A missing spare
	// right is told, not refused.
	spare string
}

// spareCheck is the right that only makes a missing right known sooner.
const spareCheck = "the rights are then not checked before the first change"

// rights is the table: the least that each verb needs. Those of move are
// Resource Manager's documented ones: moveResources in the source group and
// write in the target group.
var rights = []right{
	{"Microsoft.Resources/subscriptions/read", []string{"register", "unregister", "move", "list"}, ""},
	{"Microsoft.Resources/subscriptions/providers/read", []string{"register"}, ""},
	{"Microsoft.Resources/subscriptions/locations/read", []string{"register"}, "the resource group exists"},
	{"Microsoft.Resources/subscriptions/resourceGroups/read", []string{"register", "move"}, ""},
	{"Microsoft.Resources/subscriptions/resourceGroups/write", []string{"register"}, "the resource group exists"},
	{"Microsoft.Resources/subscriptions/resourceGroups/write", []string{"move"}, ""},
	{"Microsoft.Resources/subscriptions/resourceGroups/validateMoveResources/action", []string{"move"}, ""},
	{"Microsoft.Resources/subscriptions/resourceGroups/moveResources/action", []string{"move"}, ""},
	{"Microsoft.AzureStack/register/action", []string{"register"}, "the provider is registered"},
	{"Microsoft.AzureStack/registrations/read", []string{"register", "unregister", "move", "list"}, ""},
	{"Microsoft.AzureStack/registrations/write", []string{"register"}, ""},
	{"Microsoft.AzureStack/registrations/getActivationKey/action", []string{"register", "key"}, ""},
	{"Microsoft.AzureStack/registrations/delete", []string{"unregister"}, ""},
	{"Microsoft.Authorization/locks/read", []string{"unregister", "move", "list"}, ""},
	{"Microsoft.Authorization/locks/write", []string{"register", "move"}, ""},
	{"Microsoft.Authorization/locks/delete", []string{"unregister", "move"}, ""},
	{"Microsoft.Authorization/permissions/read", []string{"register", "unregister", "move"}, spareCheck},
}

// rightsFor returns the rights of some of [RoleVerbs], each action once, in the
// table's order; an action is spare when it is for all of them.
func rightsFor(verbs []string) ([]right, error) {
	var want []string
	for _, v := range verbs {
		switch {
		case !slices.Contains(RoleVerbs, v):
			return nil, fault.New(fault.Usage, "no role is known for %q; roles are for %s", v, strings.Join(RoleVerbs, ", ")).
				Hint("azs-relay role --for register,unregister")
		case v == "renew" || v == "batch":
			want = append(want, "register", "unregister")
		default:
			want = append(want, v)
		}
	}
	if len(want) == 0 {
		return nil, fault.New(fault.Usage, "a role needs something that it is for: %s", strings.Join(RoleVerbs, ", ")).
			Hint("azs-relay role --for register")
	}
	var out []right
	for _, r := range rights {
		if !slices.ContainsFunc(r.verbs, func(v string) bool { return slices.Contains(want, v) }) {
			continue
		}
		if i := slices.IndexFunc(out, func(o right) bool { return o.action == r.action }); i >= 0 {
			if r.spare == "" {
				out[i].spare = ""
			}
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// Role is a custom role as `az role definition create --role-definition` and
// New-AzRoleDefinition take it.
type Role struct {
	Name             string   `json:"Name"`
	IsCustom         bool     `json:"IsCustom"`
	Description      string   `json:"Description"`
	Actions          []string `json:"Actions"`
	NotActions       []string `json:"NotActions"`
	AssignableScopes []string `json:"AssignableScopes"`
}

// RoleFor returns the least role for some of [RoleVerbs], assignable at the
// scope: a subscription or a resource group. It grants no right to grant rights,
// and needs nothing in Entra. An unknown verb is a [fault.Usage].
func RoleFor(scope Scope, verbs ...string) (Role, error) {
	rights, err := rightsFor(verbs)
	if err != nil {
		return Role{}, err
	}
	verbs = slices.Compact(slices.Sorted(slices.Values(verbs)))
	path := "/subscriptions/SUBSCRIPTION"
	switch s := scope.(type) {
	case SubscriptionID:
		path = s.Path()
	case GroupID:
		path = s.String()
	}
	r := Role{
		Name: "azs-relay " + strings.Join(verbs, " "), IsCustom: true,
		Description: "The least that azs-relay needs to " + strings.Join(verbs, ", ") + " registrations of disconnected Azure Stack Hub stamps",
		NotActions:  []string{}, AssignableScopes: []string{path},
	}
	for _, x := range rights {
		r.Actions = append(r.Actions, x.action)
	}
	return r, nil
}

// JSON returns the role as indented JSON with a newline at its end.
func (r Role) JSON() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // strings only
	}
	return append(b, '\n')
}

// roleCommand is the command that prints the role which holds an action.
func roleCommand(action string, in place) string {
	var verbs []string
	for _, r := range rights {
		if strings.EqualFold(r.action, action) {
			for _, v := range r.verbs {
				if !slices.Contains(verbs, v) {
					verbs = append(verbs, v)
				}
			}
		}
	}
	if len(verbs) == 0 || slices.Contains(verbs, "register") {
		verbs = []string{"register"}
	}
	s := "azs-relay role --for " + verbs[0]
	if in.subscription.guid != "" {
		s += " --subscription " + in.subscription.guid
	}
	return s
}

// Rights is what the identity may do in a resource group beside what some verbs
// need there.
type Rights struct {
	Held    []string // needed and there
	Missing []string // needed and not there
	Spare   []string // not there, and not needed as things are
	// Unchecked says why nothing could be compared; "" when it was. Azure tells
	// effective rights for groups that exist, and only to who may read them.
	Unchecked string
}

// ReadRights compares what the identity may do in a resource group with what
// some of [RoleVerbs] need. The group's permissions include those inherited from
// its subscription; a role that is assigned to the group alone looks the same,
// although it does not reach the calls on the subscription. Those are reads, and
// fail before anything is changed.
func (c *Client) ReadRights(ctx context.Context, g GroupID, verbs ...string) (Rights, error) {
	needed, err := rightsFor(verbs)
	if err != nil {
		return Rights{}, err
	}
	permissions, unchecked, err := c.effective(ctx, g)
	if err != nil || unchecked != "" {
		return Rights{Unchecked: unchecked}, err
	}
	var out Rights
	for _, n := range needed {
		// Roles add up: one that takes an action out does not take it out of
		// another.
		switch {
		case slices.ContainsFunc(permissions, func(p Permission) bool { return p.Allows(n.action) }):
			out.Held = append(out.Held, n.action)
		case n.spare != "":
			out.Spare = append(out.Spare, n.action)
		default:
			out.Missing = append(out.Missing, n.action)
		}
	}
	return out, nil
}

// Lacking returns the refusal that missing rights are, nil when none is missing.
func (r Rights) Lacking(g GroupID, verbs ...string) error {
	if len(r.Missing) == 0 {
		return nil
	}
	plural := ""
	if len(r.Missing) > 1 {
		plural = "s"
	}
	return fault.New(fault.Permanent, "the identity lacks the action%s %s in resource group %q of subscription %s, which %s needs; nothing was changed",
		plural, strings.Join(r.Missing, ", "), g.name, g.subscription, strings.Join(verbs, " and ")).
		Hint("azs-relay role --for %s --subscription %s", strings.Join(verbs, ","), g.subscription)
}

// effective reads the permissions in a group. Unchecked says why Azure does not
// tell them.
func (c *Client) effective(ctx context.Context, g GroupID) (all []Permission, unchecked string, err error) {
	all, err = c.Permissions(ctx, g)
	var r *Refusal
	switch {
	case isAbsent(err, "ResourceGroupNotFound"):
		return nil, fmt.Sprintf("resource group %q does not exist yet, and Azure tells rights only for groups that do", g.name), nil
	case errors.As(err, &r) && r.Status == http.StatusForbidden:
		return nil, "the identity may not read its own rights (Microsoft.Authorization/permissions/read)", nil
	}
	return all, "", err
}

// CheckWrites refuses, before the first of them is sent, requests that the identity
// may not make: a [fault.Permanent] that names every missing action of the group
// and the command that prints the role. Those of a subscription are compared with
// what is inherited in the group of the others. What Azure does not tell is no
// refusal, since the calls themselves are refused if need be; it is said as
// progress.
func (c *Client) CheckWrites(ctx context.Context, writes []Request) error {
	return c.checkWrites(ctx, writes, c.effective)
}

func (c *Client) checkWrites(ctx context.Context, writes []Request, effective func(context.Context, GroupID) ([]Permission, string, error)) error {
	for _, g := range groupsOf(writes) {
		permissions, unchecked, err := effective(ctx, g)
		if err != nil {
			return err
		}
		if unchecked != "" {
			c.retry.progress("the rights are not checked beforehand: " + unchecked)
			continue
		}
		var missing Rights
		for _, w := range writes {
			in := w.place.group == "" || strings.EqualFold(w.place.group, g.name)
			if w.place.subscription != g.subscription || !in || slices.Contains(missing.Missing, w.Action) ||
				slices.ContainsFunc(permissions, func(p Permission) bool { return p.Allows(w.Action) }) {
				continue
			}
			missing.Missing = append(missing.Missing, w.Action)
		}
		if err := missing.Lacking(g, verbsOf(missing.Missing)...); err != nil {
			return err
		}
	}
	return nil
}

// groupsOf returns the groups that requests change something in, each once, but
// for those that one of them creates.
func groupsOf(writes []Request) (all []GroupID) {
	var made []GroupID
	for _, w := range writes {
		g := GroupID{subscription: w.place.subscription, name: w.place.group}
		same := func(o GroupID) bool { return o.subscription == g.subscription && strings.EqualFold(o.name, g.name) }
		switch {
		case g.name == "" || slices.ContainsFunc(all, same) || slices.ContainsFunc(made, same):
		case w.place.registration == "":
			made = append(made, g)
		default:
			all = append(all, g)
		}
	}
	return all
}

// verbsOf returns the verbs whose role holds the actions: the first of each.
func verbsOf(actions []string) (verbs []string) {
	for _, r := range rights {
		if slices.Contains(actions, r.action) && !slices.ContainsFunc(r.verbs, func(v string) bool { return slices.Contains(verbs, v) }) {
			verbs = append(verbs, r.verbs[0])
		}
	}
	return verbs
}
