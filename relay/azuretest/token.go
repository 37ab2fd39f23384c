package azuretest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// stampToken is what the server takes out of a registration token: base64 (with
// padding, one line) of a JSON object. Names are compared without case, because
// it is open whether a stamp writes bios or Bios.
type stampToken struct {
	CloudID, ObjectID, BillingModel string
	all                             map[string]json.RawMessage // folded name → value
}

// readToken decodes a registration token, and reports false for one that the
// cloud answers with InvalidRegistrationToken.
func (s *Server) readToken(token string) (stampToken, bool) {
	raw, err := base64.StdEncoding.Strict().DecodeString(token)
	if strings.ContainsAny(token, "\r\n") { // which the decoder would skip
		return stampToken{}, false
	}
	var all map[string]json.RawMessage
	if err != nil || json.Unmarshal(raw, &all) != nil {
		if s.opaqueCloudID == "" || token == "" || strings.Trim(token, opaqueAlphabet) != "" {
			return stampToken{}, false
		}
		return stampToken{CloudID: s.opaqueCloudID, ObjectID: guidOf(s.opaqueCloudID), BillingModel: "Capacity"}, true
	}
	t := stampToken{all: make(map[string]json.RawMessage, len(all))}
	for name, value := range all {
		t.all[fold(name)] = value
	}
	t.CloudID, t.ObjectID, t.BillingModel = t.text("cloudId"), t.text("objectId"), t.text("billingModel")
	if t.CloudID == "" || t.BillingModel == "" {
		return stampToken{}, false
	}
	t.ObjectID = or(t.ObjectID, guidOf(t.CloudID))
	return t, true
}

const opaqueAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=."

// text returns a string field, or "" when it is absent or not a string.
func (t stampToken) text(name string) string {
	var s string
	_ = json.Unmarshal(t.all[fold(name)], &s)
	return s
}

// value returns a field as it stands in the token, or what is given instead.
func (t stampToken) value(name, otherwise string) json.RawMessage {
	if v, ok := t.all[fold(name)]; ok {
		return v
	}
	return json.RawMessage(otherwise)
}

// field is one name of an object whose order matters.
type field struct {
	name  string
	value any
}

// object writes fields in their order.
func object(fields []field) []byte {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encode(f.name))
		b.WriteByte(':')
		b.Write(encode(f.value))
	}
	b.WriteByte('}')
	return []byte(b.String())
}

// hardware puts each node of hardwareInfo into the order that activation keys
// have. The values are copied as they stand, numbers too: a recorded numCores
// is -1191822123. Unknown names follow, sorted.
func (t stampToken) hardware() json.RawMessage {
	var nodes []map[string]json.RawMessage
	if json.Unmarshal(t.all["hardwareinfo"], &nodes) != nil {
		return t.value("hardwareInfo", "[]")
	}
	known := []string{"name", "uuid", "numCores", "bios", "nic", "cpu", "disk", "memory"}
	out := []json.RawMessage{}
	for _, node := range nodes {
		left := make(map[string]string, len(node)) // folded → as spelt
		for name := range node {
			left[fold(name)] = name
		}
		var fields []field
		for _, name := range known {
			if spelt, ok := left[fold(name)]; ok {
				fields = append(fields, field{name, node[spelt]})
				delete(left, fold(name))
			}
		}
		var rest []string
		for _, spelt := range left {
			rest = append(rest, spelt)
		}
		slices.Sort(rest)
		for _, spelt := range rest {
			fields = append(fields, field{spelt, node[spelt]})
		}
		out = append(out, object(fields))
	}
	return encode(out)
}

// activationKey is the key of a registration: the same until it is PUT again.
// The names and their order are those of a recorded live key.
func (s *Server) activationKey(r *registration) string {
	t := r.token
	expires := r.since.UTC().AddDate(1, 0, 0)
	switch {
	case !s.keyExpires.IsZero():
		expires = s.keyExpires.UTC()
	case t.BillingModel == "Development":
		expires = time.Date(9999, 12, 30, 23, 59, 59, 999999900, time.UTC)
	}
	return signActivationKey(object([]field{
		{"subscriptionId", r.sub},
		{"resourceGroupName", r.group},
		{"registrationName", r.name},
		{"certPinningRootSubjects", []string{"Simulated CyberTrust Root", "Simulated Root Certificate Authority 2011"}},
		{"certPinningIntermediateThumbprints", thumbprints},
		{"usageEndpoint", "https://pac.azurestack.usage.azuretest.invalid"},
		{"marketplaceEndpoint", "https://marketplace.azuretest.invalid"},
		{"usageResourceUri", "https://usage.azuretest.invalid/azurestack"},
		{"marketplaceResourceUri", "https://marketplace.azuretest.invalid/azurestack"},
		{"expires", expires.Format("2006-01-02T15:04:05.0000000Z")},
		{"cloudId", t.CloudID},
		{"objectId", t.ObjectID},
		{"billingModel", t.BillingModel},
		{"hardwareInfo", t.hardware()},
		{"regionNames", t.value("regionNames", "[]")},
		{"agreementNumber", t.value("agreementNumber", `""`)},
		{"usageReportingEnabled", t.value("usageReportingEnabled", "false")},
		{"marketplaceSyndicationEnabled", t.value("marketplaceSyndicationEnabled", "false")},
		{"issuer", "azuretest"},
		{"version", "1.0"},
	}))
}

// thumbprints stand where a real key has the SHA-1 of six intermediate CAs.
var thumbprints = []string{
	"0000000000000000000000000000000000000001", "0000000000000000000000000000000000000002",
	"0000000000000000000000000000000000000003", "0000000000000000000000000000000000000004",
	"0000000000000000000000000000000000000005", "0000000000000000000000000000000000000006",
}

// guidOf makes one GUID out of a text, always the same.
func guidOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80
	return guid(sum[:16])
}
