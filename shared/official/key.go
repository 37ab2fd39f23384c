package official

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Unverified is the sentence to print wherever a key is called good: what was
// checked is its structure and what it claims. The stamp checks the rest.
const Unverified = "the signature of the activation key was not checked: Microsoft does not publish the public key, only the stamp has it"

// Key is an activation key: a compact JWS (RFC 7515), as Azure answers
// getActivationKey (Microsoft.AzureStack, api-version 2017-06-01). Its signature
// is there and has the right length; more is not known of it, see [Unverified].
type Key struct {
	Text     secret.Text // exactly the cleaned text
	Encoding Encoding    // of the file that it came from
	Claims   KeyClaims
	Warnings []string // sentences for the operator
	Digest   [sha256.Size]byte
}

// KeyClaims is what an activation key says: of the stamp, and of the registration
// that it was issued for.
type KeyClaims struct {
	Claims
	SubscriptionID   string
	ResourceGroup    string
	RegistrationName string
	ExpiresText      string    // as it stands: 9999-12-30T23:59:59.9999999Z is usual
	Expires          time.Time // zero when the key has no time that can be read
	Kid              string    // name of the key that signed it
}

// ReadKey reads the contents of a key file. The error of a damaged key says what
// is wrong, at which line and column, and what likely did it. A known claim of
// another type than expected is refused; unknown claims pass.
func ReadKey(raw []byte) (*Key, error) {
	c, doc, err := read(keyFile, raw)
	switch {
	case err != nil:
		return nil, err
	case doc.form == JSON && doc.claims.has("alg"):
		return nil, c.refuse(keyFile, &flaw{what: "it has no payload and no signature, 2 of the 3 parts of a compact JWS", at: -1, cut: true})
	case doc.form == JSON && doc.claims.has("cloudId"):
		return nil, keyFile.refuse("key file holds a registration token, not an activation key")
	case doc.form != JWS:
		return nil, keyFile.refuse("key file holds no activation key: a key is a JWS of 3 parts with full stops between, this is %v", doc.form)
	}
	v := values{fields: doc.claims}
	k := &Key{
		Text:     secret.New(c.text),
		Encoding: c.encoding,
		Warnings: append(lengthWarning(keyFile, c.text), doc.warnings...),
		Digest:   sha256.Sum256([]byte(c.text)),
		Claims: KeyClaims{
			Claims:           v.claims(),
			SubscriptionID:   v.text("subscriptionId"),
			ResourceGroup:    v.text("resourceGroupName"),
			RegistrationName: v.text("registrationName"),
			ExpiresText:      v.text("expires"),
			Kid:              (&values{fields: doc.header}).text("kid"),
		},
	}
	if len(v.problems) > 0 {
		return nil, keyFile.refuse("activation key is damaged: %s", strings.Join(v.problems, "; "))
	}
	if w := doc.claims.unevenHashes(); w != "" {
		k.Warnings = append(k.Warnings, w)
	}
	k.readExpiry()
	return k, nil
}

// readExpiry reads the two spellings that .NET gives a time; one without a zone is
// taken for UTC.
func (k *Key) readExpiry() {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, k.Claims.ExpiresText); err == nil {
			k.Claims.Expires = t.UTC()
			return
		}
	}
	if k.Claims.ExpiresText == "" {
		k.Warnings = append(k.Warnings, "the activation key does not say when it expires")
		return
	}
	k.Warnings = append(k.Warnings, fmt.Sprintf("the activation key expires at %q, which is no time", k.Claims.ExpiresText))
}

// Describe gives one line on the key without a part of it: form, length, the
// encoding of its file and the digest.
func (k *Key) Describe() string { return describe(JWS, k.Text, k.Encoding, k.Digest) }

// Want is what a key is expected to say. An empty string or nil is not compared.
type Want struct {
	CloudID          string
	RegistrationName string
	ResourceGroup    string
	SubscriptionID   string
	BillingModel     string
	AgreementNumber  string

	UsageReporting         *bool
	MarketplaceSyndication *bool
}

// Check compares the key with what is expected, names and identifiers without
// case as Resource Manager does. A difference is [fault.NotForUs] and names
// both sides of every one; a key that expired by now is [fault.Expired]. A key
// without a wanted name differs. A key without a wanted flag passes: the first
// keys had no usageReportingEnabled. A key without a readable expiry passes too,
// it has a warning.
func (k *Key) Check(want Want, now time.Time) error {
	var diffs []string
	for _, f := range []struct{ name, got, want string }{
		{"cloud id", k.Claims.CloudID, want.CloudID},
		{"subscription", k.Claims.SubscriptionID, want.SubscriptionID},
		{"resource group", k.Claims.ResourceGroup, want.ResourceGroup},
		{"registration", k.Claims.RegistrationName, want.RegistrationName},
		{"billing model", k.Claims.BillingModel, want.BillingModel},
		{"agreement number", k.Claims.AgreementNumber, want.AgreementNumber},
	} {
		if f.want != "" && !sameName(f.got, f.want) {
			diffs = append(diffs, fmt.Sprintf("%s is %q, expected %q", f.name, f.got, f.want))
		}
	}
	for _, f := range []struct {
		name      string
		got, want *bool
	}{
		{"usage reporting", k.Claims.UsageReporting, want.UsageReporting},
		{"marketplace syndication", k.Claims.MarketplaceSyndication, want.MarketplaceSyndication},
	} {
		if f.want != nil && f.got != nil && *f.got != *f.want {
			diffs = append(diffs, fmt.Sprintf("%s is %t, expected %t", f.name, *f.got, *f.want))
		}
	}
	if len(diffs) > 0 {
		return fault.New(fault.NotForUs, "the activation key is not the one expected: %s", strings.Join(diffs, "; ")).
			Hint("azs-relay register REQUEST   # the request of this stamp")
	}
	if e := k.Claims.Expires; !e.IsZero() && !now.Before(e) {
		return fault.New(fault.Expired, "the activation key expired at %s, and it is %s here", clock.Format(e), clock.Format(now)).
			Hint("azs-agent renew   # after a look at the clock of this machine")
	}
	return nil
}

// sameName compares without case. Equal length keeps out the few letters that
// fold into ASCII, such as the Kelvin sign.
func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }
