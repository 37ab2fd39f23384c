package azuretest

import (
	"encoding/json"
	"slices"
	"strings"
)

// subscription is a Subscription with what became of it.
type subscription struct {
	Subscription
	polls int // GETs of the provider that still say Registering
}

func (s *subscription) resource() map[string]any {
	return map[string]any{
		"id": "/subscriptions/" + s.ID, "subscriptionId": s.ID, "tenantId": s.TenantID, "displayName": s.Name, "state": s.State,
		"authorizationSource":  "RoleBased",
		"managedByTenants":     []string{},
		"subscriptionPolicies": map[string]string{"locationPlacementId": "Public_2014-09-01", "quotaId": s.QuotaID, "spendingLimit": "Off"},
	}
}

func (s *Server) listSubscriptions(c *call) answer {
	all := []map[string]any{}
	for _, id := range sorted(s.subs) {
		if sub := s.subs[id]; strings.EqualFold(sub.TenantID, c.who.TID) && sub.State != "Deleted" && c.who.may("Microsoft.Resources/subscriptions/read") {
			all = append(all, sub.resource())
		}
	}
	return answer{200, nil, map[string]any{"value": all, "count": map[string]any{"type": "Total", "value": len(all)}}}
}

func (s *Server) getSubscription(c *call) answer {
	return answer{200, nil, s.subs[fold(c.params["subscription"])].resource()}
}

// locationName gives the name of a location's display name.
func locationName(display string) string { return fold(strings.ReplaceAll(display, " ", "")) }

func (s *Server) listLocations(c *call) answer {
	all := []map[string]any{}
	for _, display := range s.locations {
		name := locationName(display)
		all = append(all, map[string]any{"id": "/subscriptions/" + c.params["subscription"] + "/locations/" + name,
			"name": name, "type": "Region", "displayName": display, "regionalDisplayName": display,
			"metadata": map[string]string{"regionType": "Physical", "regionCategory": "Recommended"}})
	}
	return answer{200, nil, map[string]any{"value": all}}
}

func (s *Server) provider(sub *subscription) map[string]any {
	types := []map[string]any{
		{"resourceType": "registrations", "locations": []string{"global"}, "apiVersions": descending(versionsRegistrations), "capabilities": "SupportsTags, SupportsLocation"},
		{"resourceType": "cloudManifestFiles", "locations": []string{"global"}, "apiVersions": descending(versionsRegistrations), "capabilities": "None"},
	}
	return map[string]any{"id": "/subscriptions/" + sub.ID + "/providers/Microsoft.AzureStack", "namespace": "Microsoft.AzureStack",
		"registrationPolicy": "RegistrationRequired", "registrationState": sub.Provider, "resourceTypes": types}
}

func descending(s []string) []string {
	out := slices.Clone(s)
	slices.Reverse(out)
	return out
}

// getProvider also lets the registration of the provider make progress: it is
// told by polls, because nothing here takes time.
func (s *Server) getProvider(c *call) answer {
	sub := s.subs[fold(c.params["subscription"])]
	if sub.Provider == "Registering" {
		if sub.polls > 0 {
			sub.polls--
		} else {
			sub.Provider = "Registered"
		}
	}
	return answer{200, nil, s.provider(sub)}
}

func (s *Server) registerProvider(c *call) answer {
	sub := s.subs[fold(c.params["subscription"])]
	if sub.Provider != "Registered" && sub.Provider != "Registering" {
		sub.Provider, sub.polls = "Registering", sub.ProviderPolls
	}
	return answer{200, nil, s.provider(sub)}
}

type group struct {
	ID, Name, Location string
	Tags               map[string]string
}

func groupID(sub, name string) string {
	return "/subscriptions/" + sub + "/resourceGroups/" + name
}

func (g *group) resource() map[string]any {
	out := map[string]any{"id": g.ID, "name": g.Name, "type": "Microsoft.Resources/resourceGroups", "location": g.Location,
		"properties": map[string]string{"provisioningState": "Succeeded"}}
	if g.Tags != nil {
		out["tags"] = g.Tags
	}
	return out
}

func (s *Server) getGroup(c *call) answer {
	g := s.groups[fold(groupID(c.params["subscription"], c.params["group"]))]
	if g == nil {
		return fail(404, "ResourceGroupNotFound", "Resource group '%s' could not be found.", c.params["group"])
	}
	return answer{200, nil, g.resource()}
}

// putGroup has the two traps of the real call: a group does not change its
// location, and a body without tags clears the tags.
func (s *Server) putGroup(c *call) answer {
	var in struct {
		Location string
		Tags     map[string]string
	}
	if a, ok := c.decode(&in); !ok {
		return a
	}
	if in.Location == "" {
		return fail(400, "LocationRequired", "The location property is required for this definition.")
	}
	location, names := locationName(in.Location), make([]string, len(s.locations))
	for i, l := range s.locations {
		names[i] = locationName(l)
	}
	if !slices.Contains(names, location) {
		return fail(400, "LocationNotAvailableForResourceGroup", "The provided location '%s' is not available for resource group. List of available regions is '%s'.", in.Location, strings.Join(names, ","))
	}
	sub := s.subs[fold(c.params["subscription"])]
	id := groupID(sub.ID, c.params["group"])
	g, status := s.groups[fold(id)], 200
	switch {
	case g == nil:
		g, status = &group{ID: id, Name: c.params["group"], Location: location}, 201
		s.groups[fold(id)] = g
	case g.Location != location:
		return fail(409, "InvalidResourceGroupLocation", "Invalid resource group location '%s'. The Resource group already exists in location '%s'.", location, g.Location)
	}
	g.Tags = in.Tags
	return answer{status, nil, g.resource()}
}

// decode reads the call's JSON body.
func (c *call) decode(into any) (answer, bool) {
	if len(c.body) == 0 {
		return fail(400, "InvalidRequestContent", "The request content was invalid and could not be deserialized: the body is empty."), false
	}
	if err := json.Unmarshal(c.body, into); err != nil {
		return fail(400, "InvalidRequestContent", "The request content was invalid and could not be deserialized: '%v'.", err), false
	}
	return answer{}, true
}

type lock struct{ scope, name, level, notes string }

func (l *lock) id() string { return l.scope + "/providers/Microsoft.Authorization/locks/" + l.name }

func (l *lock) resource() map[string]any {
	properties := map[string]string{"level": l.level}
	if l.notes != "" {
		properties["notes"] = l.notes
	}
	return map[string]any{"id": l.id(), "name": l.name, "type": "Microsoft.Authorization/locks", "properties": properties}
}

// lockScope is the resource that a lock's path is about, spelt as the resource
// is.
func (s *Server) lockScope(c *call) string {
	switch {
	case c.params["registration"] != "":
		return s.registration(c).id()
	case c.params["group"] != "":
		return s.groups[fold(groupID(c.params["subscription"], c.params["group"]))].ID
	}
	return "/subscriptions/" + s.subs[fold(c.params["subscription"])].ID
}

func (s *Server) setLock(scope, name, level, notes string) (l *lock, created bool) {
	l = &lock{scope, name, level, notes}
	_, had := s.locks[fold(l.id())]
	s.locks[fold(l.id())] = l
	return l, !had
}

func (s *Server) sortedLocks() []*lock {
	out := []*lock{}
	for _, id := range sorted(s.locks) {
		out = append(out, s.locks[id])
	}
	return out
}

// listLocks lists the locks at a scope and, as the real call, those below it.
func (s *Server) listLocks(c *call) answer {
	all, scope := []map[string]any{}, fold(s.lockScope(c))
	for _, l := range s.sortedLocks() {
		if fold(l.scope) == scope || strings.HasPrefix(fold(l.scope), scope+"/") {
			all = append(all, l.resource())
		}
	}
	return answer{200, nil, map[string]any{"value": all}}
}

func (s *Server) getLock(c *call) answer {
	l := s.locks[fold((&lock{scope: s.lockScope(c), name: c.params["lock"]}).id())]
	if l == nil {
		return fail(404, "LockNotFound", "The lock '%s' could not be found.", c.params["lock"])
	}
	return answer{200, nil, l.resource()}
}

func (s *Server) putLock(c *call) answer {
	var in struct {
		Properties struct{ Level, Notes string }
	}
	if a, ok := c.decode(&in); !ok {
		return a
	}
	if !slices.Contains([]string{"CanNotDelete", "ReadOnly"}, in.Properties.Level) {
		return fail(400, "InvalidRequestContent", "The lock level '%s' is not one of 'CanNotDelete, ReadOnly'.", in.Properties.Level)
	}
	if n := len([]rune(in.Properties.Notes)); n > 512 {
		return fail(400, "InvalidRequestContent", "The lock notes have %d characters, the maximum is 512.", n)
	}
	l, created := s.setLock(s.lockScope(c), c.params["lock"], in.Properties.Level, in.Properties.Notes)
	if created {
		return answer{201, nil, l.resource()}
	}
	return answer{200, nil, l.resource()}
}

func (s *Server) deleteLock(c *call) answer {
	id := fold((&lock{scope: s.lockScope(c), name: c.params["lock"]}).id())
	if s.locks[id] == nil {
		return answer{status: 204}
	}
	delete(s.locks, id)
	return answer{status: 200}
}

func (s *Server) listPermissions(c *call) answer {
	return answer{200, nil, map[string]any{"value": []map[string]any{{
		"actions": c.who.actions, "notActions": append([]string{}, c.who.notActions...), "dataActions": []string{}, "notDataActions": []string{}}}}}
}

// metadata is the anonymous discovery of a cloud: audiences, login endpoint,
// name.
func (s *Server) metadata(c *call) answer {
	auth := map[string]any{"loginEndpoint": s.Authority, "audiences": s.audiences()[:2], "tenant": s.Tenant, "identityProvider": "AAD"}
	if c.URL.Query().Get("api-version") == "2015-01-01" {
		delete(auth, "tenant")
		delete(auth, "identityProvider")
		return answer{200, nil, map[string]any{"galleryEndpoint": s.URL + "/gallery/", "graphEndpoint": s.URL + "/graph/",
			"portalEndpoint": s.URL + "/portal/", "authentication": auth}}
	}
	one := map[string]any{"name": "AzureTest", "resourceManager": s.URL + "/", "authentication": auth, "portal": s.URL + "/portal/",
		"graph": s.URL + "/graph/", "suffixes": map[string]string{}}
	if s.metadataList {
		return answer{200, nil, []any{one}}
	}
	return answer{200, nil, one}
}

func (s *Server) cloudManifest(c *call) answer {
	version := c.params["version"]
	return answer{200, nil, map[string]any{"id": "/providers/Microsoft.AzureStack/cloudManifestFiles/" + version, "name": version,
		"type": "Microsoft.AzureStack/cloudManifestFiles",
		"properties": map[string]any{"signature": "", "deploymentData": map[string]any{"externalDsmsCertificates": "", "customCloudVerificationKey": "",
			"customEnvironmentEndpoints": map[string]string{"customCloudArmEndpoint": s.URL + "/", "externalDsmsEndpoint": s.URL + "/dsms/issuercertificates"}}}}}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
