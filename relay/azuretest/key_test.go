package azuretest_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// keyOf registers a token as r1 and asks for the key.
func keyOf(c *caller, token string) string {
	c.t.Helper()
	if a := c.do("PUT", "{r}?api-version=2017-06-01", registrationBody(token)); a.status > 201 {
		c.t.Fatalf("PUT: answer %d %v", a.status, a.body)
	}
	key, _ := c.expect(200, "", c.do("POST", "{r}/getActivationKey?api-version=2017-06-01", "")).body["activationKey"].(string)
	return key
}

func TestActivationKeyIsShapedLikeARecordedOne(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithClock(clock), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c := signIn(t, srv)
	spec := officialtest.Spec{Seed: 7, Nodes: 2, AgreementNumber: "12345678", UsageReporting: true}
	key := keyOf(c, officialtest.Token(spec))

	parts := strings.Split(key, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts, want 3", len(parts))
	}
	head, _ := base64.RawURLEncoding.DecodeString(parts[0])
	if !regexp.MustCompile(`^\{"kid":"[0-9a-f]{32}", "alg":"RS256"\}$`).Match(head) || len(parts[0]) != 76 {
		t.Errorf("header %q in %d characters, want 76", head, len(parts[0]))
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 256 || len(parts[2]) != 342 {
		t.Errorf("signature of %d bytes (%v), want 256", len(sig), err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&azuretest.ActivationSigner().PublicKey, crypto.SHA256, sum[:], sig); err != nil {
		t.Error(err)
	}

	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"subscriptionId", "resourceGroupName", "registrationName", "certPinningRootSubjects", "certPinningIntermediateThumbprints",
		"usageEndpoint", "marketplaceEndpoint", "usageResourceUri", "marketplaceResourceUri", "expires", "cloudId", "objectId", "billingModel",
		"hardwareInfo", "regionNames", "agreementNumber", "usageReportingEnabled", "marketplaceSyndicationEnabled", "issuer", "version"}
	if diff := cmp.Diff(want, namesInOrder(t, payload)); diff != "" {
		t.Errorf("names of the payload (-want +got):\n%s", diff)
	}
	model, err := officialtest.KeyPayload(officialtest.Token(spec), officialtest.Place{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(namesInOrder(t, model), namesInOrder(t, payload)); diff != "" {
		t.Errorf("names differ from the model of the official files (-model +got):\n%s", diff)
	}
	var claims struct {
		Thumbprints  []string          `json:"certPinningIntermediateThumbprints"`
		HardwareInfo []json.RawMessage `json:"hardwareInfo"`
		Expires      string            `json:"expires"`
		Agreement    string            `json:"agreementNumber"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if len(claims.Thumbprints) != 6 || len(claims.Thumbprints[0]) != 40 || claims.Agreement != "12345678" {
		t.Errorf("%d thumbprints, agreement %q", len(claims.Thumbprints), claims.Agreement)
	}
	if claims.Expires != "2027-08-28T15:00:00.0000000Z" {
		t.Errorf("expires %q, want a year after %v with 7 digits", claims.Expires, clock.Now())
	}
	if diff := cmp.Diff([]string{"name", "uuid", "numCores", "bios", "nic", "cpu", "disk", "memory"}, namesInOrder(t, claims.HardwareInfo[0])); diff != "" {
		t.Errorf("names of a node (-want +got):\n%s", diff)
	}

	read, err := official.ReadKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	err = read.Check(official.Want{CloudID: officialtest.CloudID(7), RegistrationName: "R1", ResourceGroup: "AzureStack", SubscriptionID: srv.Subscription,
		BillingModel: "Capacity", AgreementNumber: "12345678", UsageReporting: &yes}, clock.Now())
	if err != nil {
		t.Error(err)
	}
}

func namesInOrder(t *testing.T, object []byte) (out []string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(object)))
	depth, isName := 0, true
	for {
		tok, err := dec.Token()
		if err != nil {
			return out
		}
		if d, ok := tok.(json.Delim); ok {
			if d == '{' || d == '[' {
				depth++
			} else {
				depth--
			}
			isName = depth == 1
			continue
		}
		if depth == 1 {
			if isName {
				out = append(out, tok.(string))
			}
			isName = !isName
		}
	}
}

// TestActivationKeyStays: the same registration has one key until it is PUT
// again, so that a run that was killed ends with the same key.
func TestActivationKeyStays(t *testing.T) {
	clock := newLever()
	srv := start(t, azuretest.WithClock(clock), azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	c := signIn(t, srv)
	first := keyOf(c, token(1))
	clock.move(10 * time.Minute)
	again := c.do("POST", "{r}/getActivationKey?api-version=2017-06-01", "").body["activationKey"]
	if again != first {
		t.Error("the key changed although the registration was not PUT again")
	}
	if keyOf(c, token(1)) == first {
		t.Error("the key did not change with the PUT ten minutes later")
	}
}

// TestActivationKeyTakesTheTokenAsItStands: numbers, unknown names and spellings
// come through.
func TestActivationKeyTakesTheTokenAsItStands(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}), azuretest.WithKeyExpires(time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)))
	c := signIn(t, srv)
	const in = `{"billingModel":"Development","cloudId":"not a GUID <&>","HardwareInfo":[{"numCores":-1191822123,"Bios":["b"],"name":"n","later":1e400}],"regionNames":["local"],"secret":"x"}`
	key := keyOf(c, base64.StdEncoding.EncodeToString([]byte(in)))
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(key, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"hardwareInfo":[{"name":"n","numCores":-1191822123,"bios":["b"],"later":1e400}]`, `"cloudId":"not a GUID <&>"`,
		`"regionNames":["local"]`, `"agreementNumber":""`, `"usageReportingEnabled":false`, `"expires":"2030-01-02T03:04:05.0000006Z"`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("no %s in %s", want, raw)
		}
	}
	if strings.Contains(string(raw), "secret") {
		t.Errorf("a name that keys do not have came through: %s", raw)
	}
}

func TestDevelopmentKeyNeverExpires(t *testing.T) {
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	key, err := official.ReadKey([]byte(keyOf(signIn(t, srv), officialtest.Token(officialtest.Spec{Seed: 1, BillingModel: "Development"}))))
	if err != nil {
		t.Fatal(err)
	}
	if want := "9999-12-30T23:59:59.9999999Z"; key.Claims.ExpiresText != want {
		t.Errorf("expires %q, want %q", key.Claims.ExpiresText, want)
	}
}
