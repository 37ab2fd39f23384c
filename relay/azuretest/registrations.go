package azuretest

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

type registration struct {
	sub, group, name string // spelt as at its creation
	tags             map[string]string
	etag             string
	since            time.Time // of the last PUT
	token            stampToken
}

func registrationID(sub, group, name string) string {
	return groupID(sub, group) + "/providers/Microsoft.AzureStack/registrations/" + name
}

func (r *registration) id() string { return registrationID(r.sub, r.group, r.name) }

// newETag has the quotes inside the string that the published answers have.
func newETag() string { return `"` + newGUID() + `"` }

func (r *registration) resource() map[string]any {
	properties := map[string]string{"objectId": r.token.ObjectID, "billingModel": r.token.BillingModel}
	if r.token.CloudID != "" {
		properties["cloudId"] = r.token.CloudID
	}
	out := map[string]any{"id": r.id(), "name": r.name, "type": "Microsoft.AzureStack/registrations", "location": "global",
		"etag": r.etag, "properties": properties}
	if r.tags != nil {
		out["tags"] = r.tags
	}
	return out
}

// registration returns the registration of the call's path, or nil.
func (s *Server) registration(c *call) *registration {
	return s.regs[fold(registrationID(c.params["subscription"], c.params["group"], c.params["registration"]))]
}

func (s *Server) listRegistrations(c *call) answer {
	prefix := fold("/subscriptions/" + c.params["subscription"] + "/")
	if c.params["group"] != "" {
		prefix = fold(groupID(c.params["subscription"], c.params["group"]) + "/")
	}
	ids := slices.DeleteFunc(sorted(s.regs), func(id string) bool { return !strings.HasPrefix(id, prefix) })
	from := 0
	if skip := c.URL.Query().Get("$skiptoken"); skip != "" {
		n, err := strconv.Atoi(skip)
		if err != nil || n < 0 || n > len(ids) {
			return fail(400, "InvalidSkipToken", "The skip token '%s' is invalid.", skip)
		}
		from = n
	}
	to := min(len(ids), from+s.pageSize)
	page := []map[string]any{}
	for _, id := range ids[from:to] {
		page = append(page, s.regs[id].resource())
	}
	out := map[string]any{"value": page}
	if to < len(ids) {
		q := url.Values{"api-version": {c.URL.Query().Get("api-version")}, "$skiptoken": {strconv.Itoa(to)}}
		out["nextLink"] = s.URL + c.URL.EscapedPath() + "?" + q.Encode()
	}
	return answer{200, nil, out}
}

func (s *Server) getRegistration(c *call) answer {
	r := s.registration(c)
	if r == nil {
		return fail(404, "ResourceNotFound", "%s", notFoundText(c))
	}
	return answer{200, nil, r.resource()}
}

// registrationParameter is the body of PUT and PATCH.
type registrationParameter struct {
	Location   *string
	Tags       map[string]string
	Properties struct{ RegistrationToken *string }
}

// putRegistration makes or updates a registration by the rules of the cloud: a
// name keeps its cloud id, and a cloud id has one name.
func (s *Server) putRegistration(c *call) answer {
	var in registrationParameter
	if a, ok := c.decode(&in); !ok {
		return a
	}
	if in.Location == nil {
		return fail(400, "LocationRequired", "The location property is required for this definition.")
	}
	if !strings.EqualFold(*in.Location, "global") {
		return fail(400, "LocationNotAvailableForResourceType", "The provided location '%s' is not available for resource type 'Microsoft.AzureStack/registrations'. List of available regions for the resource type is 'global'.", *in.Location)
	}
	old := s.registration(c)
	token, a, ok := s.acceptToken(c, in.Properties.RegistrationToken, old)
	if !ok {
		return a
	}
	if old != nil {
		old.token, old.tags, old.etag, old.since = token, in.Tags, newETag(), s.now()
		return answer{200, nil, old.resource()}
	}
	g := s.groups[fold(groupID(c.params["subscription"], c.params["group"]))]
	r := &registration{sub: s.subs[fold(c.params["subscription"])].ID, group: g.Name, name: c.params["registration"],
		tags: in.Tags, etag: newETag(), since: s.now(), token: token}
	s.regs[fold(r.id())] = r
	return answer{201, nil, r.resource()}
}

func (s *Server) patchRegistration(c *call) answer {
	var in registrationParameter
	if a, ok := c.decode(&in); !ok {
		return a
	}
	r := s.registration(c)
	if r == nil {
		return fail(404, "ResourceNotFound", "%s", notFoundText(c))
	}
	if in.Properties.RegistrationToken != nil {
		token, a, ok := s.acceptToken(c, in.Properties.RegistrationToken, r)
		if !ok {
			return a
		}
		r.token, r.since = token, s.now()
	}
	if in.Tags != nil {
		r.tags = in.Tags
	}
	r.etag = newETag()
	return answer{200, nil, r.resource()}
}

// acceptToken decodes a token and checks its cloud id against old, the
// registration that it is for, and all others.
func (s *Server) acceptToken(c *call, text *string, old *registration) (stampToken, answer, bool) {
	if text == nil {
		return stampToken{}, fail(400, "InvalidRegistrationToken", malformedText), false
	}
	token, ok := s.readToken(*text)
	if !ok {
		return token, fail(400, "InvalidRegistrationToken", malformedText), false
	}
	if old != nil && old.token.CloudID != "" && !strings.EqualFold(old.token.CloudID, token.CloudID) {
		return token, fail(documented["CloudIdUpdateNotAllowed"].status, "CloudIdUpdateNotAllowed", "%s", cloudIDUpdateText(old.name)), false
	}
	taken := s.taken[fold(token.CloudID)]
	for _, r := range s.regs {
		taken = taken || r != old && strings.EqualFold(r.token.CloudID, token.CloudID)
	}
	if taken {
		return token, fail(documented[CodeCloudIDRegistered].status, CodeCloudIDRegistered, "%s", cloudIDText(token.CloudID)), false
	}
	return token, answer{}, true
}

func (s *Server) deleteRegistration(c *call) answer {
	r := s.registration(c)
	if r == nil {
		return answer{status: 204}
	}
	delete(s.regs, fold(r.id()))
	return answer{status: 200}
}

func (s *Server) getActivationKey(c *call) answer {
	return answer{200, nil, map[string]string{"activationKey": s.activationKey(s.registration(c))}}
}

func (s *Server) enableRemoteManagement(*call) answer { return answer{status: 200} }
