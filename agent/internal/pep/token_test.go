package pep

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
)

func capacity() TokenParameters {
	return TokenParameters{BillingModel: "Capacity", AgreementNumber: "1234567"}
}

func TestVersion(t *testing.T) {
	for _, tt := range []struct {
		v, w           string
		newer, atLeast bool
	}{
		{"1.2309.0.5", "1.2309.0.4", true, true},
		{"1.2309.0.4", "1.2309.0.4", false, true},
		{"1.2309.0.3", "1.2309.0.4", false, false},
		{"1.1811", "1.1912.0.19", false, false},
		{"1.1912.0.100", "1.1912.0.19", true, true}, // numbers, not text
		{"1.1912.1", "1.1912.0.19", true, true},
		{"2.0", "1.9999.9.9", true, true},
		{" 1.2309.0.5\r\n", "1.2309.0.4", true, true},
		{"1.2309", "1.2309.0.0", false, true},
	} {
		v, err := ParseVersion(tt.v)
		w, err2 := ParseVersion(tt.w)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if v.Newer(w) != tt.newer || v.AtLeast(w) != tt.atLeast {
			t.Errorf("%s against %s: newer %v, at least %v; want %v, %v", tt.v, tt.w, v.Newer(w), v.AtLeast(w), tt.newer, tt.atLeast)
		}
		if again, err := ParseVersion(v.String()); err != nil || again != v {
			t.Errorf("%v is read back as %v, %v", v, again, err)
		}
	}
	for _, bad := range []string{"", "1", "1.2.3.4.5", "1.x", "1.-2", "1..2", "1.2147483648", "v1.2", "1.2 3"} {
		if v, err := ParseVersion(bad); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		p    TokenParameters
		want string // "" is good
	}{
		{capacity(), ""},
		{TokenParameters{BillingModel: "capacity", AgreementNumber: "1", TokenVersion: "auto"}, ""},
		{TokenParameters{BillingModel: "Development", UsageReporting: true}, ""},
		{TokenParameters{BillingModel: "Custom", MsAssetTag: "tag", TokenVersion: "6.0"}, ""},
		{TokenParameters{}, "which one"},
		{TokenParameters{BillingModel: "Capacity"}, "needs the number"},
		{TokenParameters{BillingModel: "Capacity", AgreementNumber: "1", UsageReporting: true}, "contradicts"},
		{TokenParameters{BillingModel: "Custom"}, "needs an asset tag"},
		{TokenParameters{BillingModel: "PayAsYouUse"}, "connected stamps"},
		{TokenParameters{BillingModel: "Ruggedized"}, "connected stamps"},
		{TokenParameters{BillingModel: "Free"}, `"Free" is none of`},
		{TokenParameters{BillingModel: "Development", TokenVersion: "5.0"}, `"5.0", want`},
	} {
		err := tt.p.Validate()
		if tt.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", tt.p, err)
			}
			continue
		}
		wantKind(t, err, fault.Usage, tt.want)
	}
}

// The gates of RegisterWithAzure.psm1. Each stamp takes exactly what is sent: it
// refuses a parameter that it does not know, and a retry would be said.
func TestTokenParametersByStampVersion(t *testing.T) {
	always := "BillingModel=Capacity MarketplaceSyndicationEnabled=False UsageReportingEnabled=False AgreementNumber=1234567"
	for _, tt := range []struct{ version, want, token string }{
		{"1.1811.0.0", always, ""},
		{"1.1912.0.18", always, ""},
		{"1.1912.0.19", always + " MsAssetTag=", ""},
		{"1.2008.0.48", always + " MsAssetTag=", ""},
		{"1.2008.0.49", always + " MsAssetTag= TokenVersion=4.0", "4.0"},
		{"1.2309.0.4", always + " MsAssetTag= TokenVersion=4.0", "4.0"},
		{"1.2309.0.5", always + " MsAssetTag= TokenVersion=6.0", "6.0"},
	} {
		t.Run(tt.version, func(t *testing.T) {
			s := newSite(t, peptest.WithStampVersion(tt.version, false))
			session, st := s.open(t)
			params, _, err := capacity().parameters(st)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range params {
				got = append(got, fmt.Sprintf("%s=%s", p.Name, clixml.Text(p.Value)))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
			token, version, err := session.NewToken(t.Context(), st, capacity())
			if err != nil || version != tt.token {
				t.Fatalf("token version %q, %v; want %q", version, err, tt.token)
			}
			read, err := official.ReadToken([]byte(token.Reveal()))
			if err != nil || !strings.EqualFold(read.Claims.CloudID, s.CloudID) || read.Claims.AgreementNumber != "1234567" {
				t.Errorf("token %+v, %v", read, err)
			}
			if n := s.count("Command"); n != 2 {
				t.Errorf("%d calls, want 2: %q", n, s.said)
			}
		})
	}
}

// What the operator asked for is never left out: an old stamp refuses, before
// anything is sent.
func TestAnOldStampRefusesWhatItDoesNotKnow(t *testing.T) {
	s := newSite(t, peptest.WithStampVersion("1.1811.0.0", false))
	session, st := s.open(t)
	for _, version := range []string{"3.0", "4.0", "6.0"} {
		p := capacity()
		p.TokenVersion = version
		_, _, err := session.NewToken(t.Context(), st, p)
		wantKind(t, err, fault.Usage, "1.2008.0.49", "this stamp is 1.1811.0.0")
	}
	_, _, err := session.NewToken(t.Context(), st, TokenParameters{BillingModel: "Custom", MsAssetTag: "tag"})
	wantKind(t, err, fault.Usage, "1.1912.0.19", "this stamp is 1.1811.0.0")
	if n := s.count("Command"); n != 1 {
		t.Errorf("%d calls were sent beside the first", n-1)
	}
}

// A stamp that tells a newer version than it has the parameters of: what says
// nothing is left out, one by one, and what the operator said is not.
func TestAParameterThatTheStampDoesNotKnow(t *testing.T) {
	s := newSite(t, peptest.WithStampVersion("1.1811.0.0", false))
	session, st := s.open(t)
	st.Version = Version{1, 2311, 0, 1}
	_, version, err := session.NewToken(t.Context(), st, capacity())
	if err != nil || version != "" {
		t.Fatalf("token version %q, %v", version, err)
	}
	said := strings.Join(s.said, "\n")
	if n := s.count("Command"); n != 1+3 || !strings.Contains(said, "MsAssetTag") || !strings.Contains(said, "TokenVersion") {
		t.Errorf("%d calls, want 4; said %q", n, said)
	}
	for name, p := range map[string]TokenParameters{
		"TokenVersion": {BillingModel: "Development", TokenVersion: "4.0"},
		"MsAssetTag":   {BillingModel: "Custom", MsAssetTag: "tag"},
	} {
		_, _, err := session.NewToken(t.Context(), st, p)
		wantKind(t, err, fault.Permanent, "parameter name '"+name+"'")
	}
}

func TestKeyPairAndLicenseGate(t *testing.T) {
	for _, tt := range []struct {
		version string
		nodes   int
		open    bool
	}{
		{"1.2209.0.23", 4, false},
		{"1.2209.0.24", 1, false},
		{"1.2209.0.24", 2, true},
	} {
		s := newSite(t, peptest.WithStampVersion(tt.version, true), peptest.WithNodes(tt.nodes))
		session, st := s.open(t)
		if err := session.SetKeyPair(t.Context(), st); err != nil {
			t.Error(err)
		}
		want := 0
		err := session.SaveHCILicense(t.Context(), st, secret.New("a license"))
		if tt.open {
			want = 1
			if err != nil {
				t.Error(err)
			}
		} else {
			wantKind(t, err, fault.Usage, "after version 1.2209.0.23", "and is "+tt.version)
		}
		if now := s.Server.Stamp(); now.KeyPairs != want || now.Licenses != want {
			t.Errorf("%s with %d nodes: %d key pairs, %d licenses, want %d", tt.version, tt.nodes, now.KeyPairs, now.Licenses, want)
		}
	}
}

// The errors that are documented have their own sentence, as a terminating error
// and as an error record of a cmdlet that completes.
func TestDocumentedErrors(t *testing.T) {
	for _, tt := range []struct {
		text string
		kind fault.Kind
		want string
	}{
		{fmt.Sprintf(peptest.TextHardwareInfo, "HOST-02"), fault.Unreachable, "could not read the hardware"},
		{fmt.Sprintf(peptest.TextCannotConnect, "HOST-02"), fault.Unreachable, "could not reach one of its hosts"},
		{fmt.Sprintf(peptest.TextAlreadyRegistered, "11111111-2222-3333-4444-555555555555"), fault.Permanent, "registered already"},
		{fmt.Sprintf(peptest.TextBusy, "11111111-2222-3333-4444-555555555555"), fault.NothingYet, "busy"},
		{"Something <else> & \"worse\"", fault.Permanent, "New-RegistrationToken failed on the endpoint"},
	} {
		for _, kind := range []peptest.Kind{peptest.Terminating, peptest.ErrorRecord} {
			t.Run(string(kind)+" "+tt.text, func(t *testing.T) {
				s := newSite(t)
				session, st := s.open(t)
				s.Fail(peptest.Fault{Kind: kind, Cmdlet: "New-RegistrationToken", Text: tt.text, Times: 1})
				token, _, err := session.NewToken(t.Context(), st, capacity())
				wantKind(t, err, tt.kind, tt.want, tt.text)
				if fault.HintOf(err) == "" || !token.Empty() {
					t.Errorf("hint %q, token %v", fault.HintOf(err), token)
				}
				// The session goes on.
				if _, _, err := session.NewToken(t.Context(), st, capacity()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
