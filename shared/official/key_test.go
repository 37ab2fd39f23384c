package official_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

func TestReadKeyClaims(t *testing.T) {
	spec := officialtest.Spec{Seed: 11, Nodes: 4, BillingModel: "Development", AgreementNumber: "A1", MarketplaceSyndication: true}
	token, text := modelled(t, spec)
	tok, err := official.ReadToken([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	key, err := official.ReadKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	stamp := tok.Claims // the key repeats what the token says of the stamp
	stamp.Issuer = "Microsoft.AzureStack"
	want := official.KeyClaims{
		Claims:           stamp,
		SubscriptionID:   place.SubscriptionID,
		ResourceGroup:    place.ResourceGroup,
		RegistrationName: place.RegistrationName,
		ExpiresText:      "9999-12-30T23:59:59.9999999Z",
		Expires:          time.Date(9999, 12, 30, 23, 59, 59, 999999900, time.UTC),
		Kid:              officialtest.Kid,
	}
	if diff := cmp.Diff(want, key.Claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if want := fmt.Sprintf("JWS, %d characters, file in UTF-8, SHA-256 %x", len(text), key.Digest); key.Describe() != want {
		t.Errorf("Describe() = %q, want %q", key.Describe(), want)
	}
	if !strings.Contains(official.Unverified, "signature") || !strings.Contains(official.Unverified, "not checked") {
		t.Errorf("Unverified = %q", official.Unverified)
	}
}

func TestReadKeyTraps(t *testing.T) {
	const expiry = `"expires":"2030-01-02T03:04:05Z"`
	tests := []struct {
		name, payload string
		want          official.KeyClaims
		warnings      []string
	}{
		{"fuzzed cores", `{"cloudId":"stamp 7","hardwareInfo":[{"numCores":-1191822123}],` + expiry + `}`,
			official.KeyClaims{Claims: official.Claims{CloudID: "stamp 7", Nodes: 1}}, nil},
		{"unknown names", `{"quota":{"a":[1]},"cloudid":"x",` + expiry + `}`, official.KeyClaims{Claims: official.Claims{CloudID: "x"}}, nil},
		{"no zone", `{"expires":"2030-01-02T03:04:05.0000000"}`, official.KeyClaims{ExpiresText: "2030-01-02T03:04:05.0000000"}, nil},
		{"no expiry", `{}`, official.KeyClaims{}, []string{"the activation key does not say when it expires"}},
		{"odd expiry", `{"expires":"never"}`, official.KeyClaims{ExpiresText: "never"}, []string{`the activation key expires at "never", which is no time`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := official.ReadKey([]byte(officialtest.Key([]byte(tt.payload), nil)))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Kid = officialtest.Kid
			if tt.warnings == nil {
				tt.want.Expires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
			}
			if tt.want.ExpiresText == "" && tt.warnings == nil {
				tt.want.ExpiresText = "2030-01-02T03:04:05Z"
			}
			if diff := cmp.Diff(tt.want, key.Claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.warnings, key.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDamagedKeys(t *testing.T) {
	token, key := modelled(t, officialtest.Spec{Seed: 4, Nodes: 4})
	if len(key) < 8300 {
		t.Fatalf("a key of %d characters does not serve this test", len(key))
	}
	url := base64.RawURLEncoding
	head, sig := url.EncodeToString([]byte(`{"alg":"RS256","kid":"k"}`)), key[strings.LastIndexByte(key, '.')+1:]
	jws := func(head, payload string) string {
		return url.EncodeToString([]byte(head)) + "." + url.EncodeToString([]byte(payload)) + "." + sig
	}
	tests := []struct{ name, raw, want string }{
		{"cut by Read-Host", key[:1022], "it has no signature, the last of the 3 parts of a compact JWS, and the JSON of its payload ends early, at byte 708; it stops after 1022 characters, at line 1, column 1022: that is all that Read-Host takes of a pasted line"},
		{"cut by a terminal", key[:4095], "it has no signature, the last of the 3 parts of a compact JWS, and the JSON of its payload ends early, at byte 3013; it stops after 4095 characters, at line 1, column 4095: that is the longest line that a terminal takes"},
		{"cut by cmd.exe", key[:8191] + "\r\n", "it has no signature, the last of the 3 parts of a compact JWS, and the JSON of its payload ends early, at byte 6085; it stops after 8191 characters, at line 1, column 8191: that is the longest line of cmd.exe"},
		{"cut in the header", key[:60], "the JSON inside ends early, at byte 45; it stops after 60 characters, at line 1, column 60"},
		{"cut after the header", key[:76], "it has no payload and no signature, 2 of the 3 parts of a compact JWS; it stops after 76 characters, at line 1, column 76"},
		{"cut before the signature", strings.TrimSuffix(key, sig), fmt.Sprintf("it has no signature, the last of the 3 parts of a compact JWS; it stops after %d characters, at line 1, column %[1]d", len(key)-len(sig))},
		{"cut in the signature", key[:len(key)-100], fmt.Sprintf("its signature has 181 bytes, its algorithm makes 256 or 384 or 512 or 1024; it stops after %d characters, at line 1, column %[1]d", len(key)-100)},
		{"unused bits of the signature", key[:len(key)-1] + "_", fmt.Sprintf("the last character of its signature is one that no encoder writes there, at line 1, column %d", len(key))},
		{"base64 instead of base64url", strings.ReplaceAll(key, ".", ".+"), "the character '+' does not stand in base64url, of which a text with full stops is made, at line 1, column 78"},
		{"four parts", key + "." + sig, fmt.Sprintf("it has 4 parts, a compact JWS has 3, at line 1, column %d", len(key)+1)},
		{"header broken", jws(`{"alg":"RS256",}`, `{}`), "the header is broken at byte 15, at line 1, column 21"},
		{"header no object", jws(`["RS256"]`, `{}`), "the header is no JSON object at byte 0, at line 1, column 1"},
		{"not signed", jws(`{"alg":"none"}`, `{}`), "its header names no signature algorithm, at line 1, column 1"},
		{"no algorithm", jws(`{"kid":"x"}`, `{}`), "its header names no signature algorithm, at line 1, column 1"},
		{"odd character after the payload", head + "." + url.EncodeToString([]byte(`{"a":"wxyz"}`)) + "A." + sig, "the payload is followed by a character that is part of no byte at byte 12, at line 1, column 52"},
		{"odd character after the signature", head + ".e30." + url.EncodeToString(make([]byte, 384)) + "A", "the last character of its signature is one that no encoder writes there, at line 1, column 552"},
		{"payload broken", head + "." + url.EncodeToString([]byte(`{"cloudId":"x";}`)) + "." + sig, "the payload is broken at byte 14, at line 1, column 54"},
		{"payload in two lines", head + ".\r\n" + url.EncodeToString([]byte(`{"cloudId":"x";}`)) + "." + sig, "the payload is broken at byte 14, at line 2, column 19"},
		{"name twice", jws(`{"alg":"RS256"}`, `{"cloudId":"a","CLOUDID":"b"}`), "the payload has one name twice at byte 24, at line 1, column 54"},
		{"other types", jws(`{"alg":"RS256","kid":"k"}`, `{"cloudId":[],"usageReportingEnabled":"no"}`), `the value of "cloudId" is not a string; the value of "usageReportingEnabled" is not true or false`},
		{"case of the payload", head + "." + recase(url.EncodeToString(officialtest.TokenJSON(officialtest.Spec{})), 1, 0.5) + "." + sig,
			"the case of its letters was changed on the way: in another choice of capitals it reads as JSON, as it stands it does not, at line 1, column 36"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := official.ReadKey([]byte(tt.raw))
			if want := "the activation key is damaged: " + tt.want; err == nil || err.Error() != want {
				t.Fatalf("error\n got %v\nwant %s", err, want)
			}
			refusal(t, err, tt.raw)
		})
	}
	for _, tt := range []struct{ name, raw, want string }{
		{"a token", token, "the key file holds a registration token, not an activation key"},
		{"opaque", opaque(3, 600), "the key file holds no activation key: a key is a JWS of 3 parts with full stops between, this is opaque base64"},
		{"other JSON", b64(`{"a":1}`), "the key file holds no activation key: a key is a JWS of 3 parts with full stops between, this is base64 JSON"},
		{"a heading", "ActivationKey\n-------------\n" + key, "the key file holds other text before the activation key, which begins only at line 3, column 1"},
		{"answer of Resource Manager", `{"activationKey":"` + key + `"}`, "the key file holds the foreign character '{' (U+007B) at line 1, column 1: it looks like JSON around or instead of the activation key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := official.ReadKey([]byte(tt.raw))
			if err == nil || err.Error() != tt.want {
				t.Fatalf("error\n got %v\nwant %s", err, tt.want)
			}
			refusal(t, err, tt.raw)
		})
	}
}

// A signature algorithm that came later is no reason to stop a key.
func TestUnknownAlgorithmPasses(t *testing.T) {
	url := base64.RawURLEncoding
	raw := url.EncodeToString([]byte(`{"alg":"ML-DSA-65"}`)) + "." + url.EncodeToString([]byte(`{"expires":"2030-01-02T03:04:05Z"}`)) + "." + url.EncodeToString(make([]byte, 3309))
	key, err := official.ReadKey([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"the header of the JWS names no key", "the header of the JWS names a signature algorithm that is not known"}
	if diff := cmp.Diff(want, key.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestCheck(t *testing.T) {
	spec := officialtest.Spec{Seed: 12, UsageReporting: true, AgreementNumber: "E77"}
	payload, err := officialtest.KeyPayload(officialtest.Token(spec), officialtest.Place{
		SubscriptionID: place.SubscriptionID, ResourceGroup: place.ResourceGroup, RegistrationName: place.RegistrationName,
		Expires: "2027-06-01T00:00:00.0000000Z",
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := official.ReadKey([]byte(officialtest.Key(payload, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	cloud := officialtest.CloudID(12)
	tests := []struct {
		name string
		want official.Want
		now  time.Time
		kind fault.Kind
		err  string
	}{
		{"nothing wanted", official.Want{}, now, 0, ""},
		{"all", official.Want{cloud, "testregistration", "azurestack", place.SubscriptionID, "Capacity", "E77", ptr(true), ptr(false)}, now, 0, ""},
		{"other case", official.Want{CloudID: strings.ToUpper(cloud), RegistrationName: "TestRegistration", ResourceGroup: "AZURESTACK", SubscriptionID: strings.ToUpper(place.SubscriptionID), BillingModel: "capacity"}, now, 0, ""},
		{"cloud id", official.Want{CloudID: "other"}, now, fault.NotForUs, fmt.Sprintf(`cloud id is %q, expected "other"`, cloud)},
		{"subscription", official.Want{SubscriptionID: "other"}, now, fault.NotForUs, fmt.Sprintf(`subscription is %q, expected "other"`, place.SubscriptionID)},
		{"group", official.Want{ResourceGroup: "other"}, now, fault.NotForUs, `resource group is "azurestack", expected "other"`},
		{"registration", official.Want{RegistrationName: "testregistration2"}, now, fault.NotForUs, `registration is "testregistration", expected "testregistration2"`},
		{"folding letter", official.Want{ResourceGroup: "azurestac\u212a"}, now, fault.NotForUs, `resource group is "azurestack", expected "azurestac` + "\u212a" + `"`},
		{"billing model", official.Want{BillingModel: "Development"}, now, fault.NotForUs, `billing model is "Capacity", expected "Development"`},
		{"agreement", official.Want{AgreementNumber: "E78"}, now, fault.NotForUs, `agreement number is "E77", expected "E78"`},
		{"flags", official.Want{UsageReporting: ptr(false), MarketplaceSyndication: ptr(true)}, now, fault.NotForUs, `usage reporting is true, expected false; marketplace syndication is false, expected true`},
		{"difference before expiry", official.Want{BillingModel: "x"}, now.AddDate(5, 0, 0), fault.NotForUs, `billing model is "Capacity", expected "x"`},
		{"last second", official.Want{}, time.Date(2027, 5, 31, 23, 59, 59, 0, time.UTC), 0, ""},
		{"expired", official.Want{}, time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC), fault.Expired, "the activation key expired at 2027-06-01T00:00:00Z, and it is 2027-06-01T00:00:00Z here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := key.Check(tt.want, tt.now)
			if fault.KindOf(err) != tt.kind {
				t.Fatalf("error %v is of kind %v, want %v", err, fault.KindOf(err), tt.kind)
			}
			want := tt.err
			if tt.kind == fault.NotForUs {
				want = "the activation key is not the one expected: " + want
			}
			if err != nil && (err.Error() != want || fault.HintOf(err) == "") {
				t.Errorf("error\n got %v\nwant %s", err, want)
			}
		})
	}

	// A key that leaves out a wanted name differs; one without a flag does not.
	bare, err := official.ReadKey([]byte(officialtest.Key([]byte(`{}`), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.Check(official.Want{CloudID: "x"}, now); fault.KindOf(err) != fault.NotForUs {
		t.Errorf("a key without cloud id: %v", err)
	}
	if err := bare.Check(official.Want{UsageReporting: ptr(true)}, now); err != nil {
		t.Errorf("a key without flags and expiry: %v", err)
	}
}
