package officialtest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// The sizes agree with the model table (k = 1000 characters) within 3 %, as near as
// its two digits allow.
func TestSizesFollowTheModel(t *testing.T) {
	tests := []struct {
		name       string
		server     officialtest.Server
		nodes      int
		token, key float64
	}{
		{"typical", officialtest.Typical, 1, 2200, 3700},
		{"typical", officialtest.Typical, 4, 7700, 9200},
		{"typical", officialtest.Typical, 8, 15000, 16600},
		{"typical", officialtest.Typical, 16, 30000, 31000},
		{"large", officialtest.Large, 1, 3800, 5300},
		{"large", officialtest.Large, 4, 14000, 15600},
		{"large", officialtest.Large, 8, 28000, 29000},
		{"large", officialtest.Large, 16, 55000, 57000},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s-%d", tt.name, tt.nodes), func(t *testing.T) {
			token := officialtest.Token(officialtest.Spec{Seed: 1, Nodes: tt.nodes, Server: tt.server})
			payload, err := officialtest.KeyPayload(token, place)
			if err != nil {
				t.Fatal(err)
			}
			key := officialtest.Key(payload, nil)
			for _, m := range []struct {
				what string
				got  int
				want float64
			}{{"token", len(token), tt.token}, {"key", len(key), tt.key}} {
				off := float64(m.got)/m.want - 1
				t.Logf("%s: %d characters, %+.1f %% off the model", m.what, m.got, 100*off)
				if off < -0.03 || off > 0.03 {
					t.Errorf("%s has %d characters, the model says about %.0f", m.what, m.got, m.want)
				}
			}
		})
	}
}

var place = officialtest.Place{
	SubscriptionID:   "dd8597b4-8739-4467-8b10-f8679f62bfbf",
	ResourceGroup:    "azurestack",
	RegistrationName: "testregistration",
}

func TestTokenIsDeterministicBySeed(t *testing.T) {
	a := officialtest.Token(officialtest.Spec{Seed: 7, Nodes: 4})
	if b := officialtest.Token(officialtest.Spec{Seed: 7, Nodes: 4}); a != b {
		t.Error("the same spec gave two tokens")
	}
	if b := officialtest.Token(officialtest.Spec{Seed: 8, Nodes: 4}); a == b {
		t.Error("two seeds gave the same token")
	}
	if a, b := officialtest.CloudID(7), officialtest.CloudID(8); a == b {
		t.Errorf("two seeds gave the cloud id %s", a)
	}
}

func TestTokenSaysWhatTheSpecSays(t *testing.T) {
	spec := officialtest.Spec{Seed: 3, Nodes: 2, Server: officialtest.Large, CloudID: "not-a-guid",
		BillingModel: "Development", UsageReporting: true, Version: "4.0"}
	raw, err := base64.StdEncoding.DecodeString(officialtest.Token(spec))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CloudID, BillingModel, AgreementNumber, Version string
		UsageReportingEnabled                           bool
		HardwareInfo                                    []struct{ NIC, CPU, Disk, Memory, BIOS []string }
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.CloudID != "not-a-guid" || got.BillingModel != "Development" || got.AgreementNumber != "" ||
		got.Version != "4.0" || !got.UsageReportingEnabled || len(got.HardwareInfo) != 2 {
		t.Errorf("token says %+v", got)
	}
	seen := map[string]bool{}
	for _, h := range got.HardwareInfo {
		for _, parts := range [][]string{h.NIC, h.CPU, h.Disk, h.Memory, h.BIOS} {
			for _, p := range parts {
				if len(p) != 32 || strings.Trim(p, "0123456789abcdef") != "" || seen[p] {
					t.Errorf("part %q is not a hash of its own", p)
				}
				seen[p] = true
			}
		}
	}
	if want := 2 * (8 + 2 + 26 + 32 + 1); len(seen) != want {
		t.Errorf("%d parts, want %d", len(seen), want)
	}
}

func TestKeyHasTheShapeOfTheRecordedOne(t *testing.T) {
	payload, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{}), place)
	if err != nil {
		t.Fatal(err)
	}
	var signed string
	parts := strings.Split(officialtest.Key(payload, func(input []byte) []byte {
		signed = string(input)
		return make([]byte, officialtest.SignatureSize)
	}), ".")
	if len(parts) != 3 || len(parts[0]) != 76 || len(parts[2]) != 342 {
		t.Fatalf("key has %d parts", len(parts))
	}
	if signed != parts[0]+"."+parts[1] {
		t.Error("the signature was made over something else than header and payload")
	}
	for _, bad := range []string{"?", base64.StdEncoding.EncodeToString([]byte("[1"))} {
		if _, err := officialtest.KeyPayload(bad, place); err == nil {
			t.Errorf("KeyPayload(%q) accepted", bad)
		}
	}
}
