package peptest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// gssPython returns a Python whose GSSAPI has the mechanism gss-ntlmssp (Debian:
// gss-ntlmssp, python3-gssapi). Without one the test is skipped, or fails with
// AZS_REQUIRE_GSS=1.
func gssPython(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		check := exec.CommandContext(t.Context(), python, "-c", `import gssapi; gssapi.Credentials(usage="accept", mechs=[gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")])`)
		check.Env = append(os.Environ(), "NTLM_USER_FILE="+os.DevNull)
		if check.Run() == nil {
			return python
		}
	}
	const absent = "no python3 with gssapi and gss-ntlmssp: apt-get install gss-ntlmssp python3-gssapi"
	if os.Getenv("AZS_REQUIRE_GSS") == "1" {
		t.Fatal(absent)
	}
	t.Skip(absent)
	return ""
}

// gssCall is a command of testdata/gss/client.py.
type gssCall struct {
	Cmdlet    string   `json:"cmdlet"`
	Script    bool     `json:"script"`
	Arguments [][2]any `json:"arguments"` // name, nil for a positional one, and value
}

// gssResult is what came of it.
type gssResult struct {
	State    int      `json:"state"`
	Replies  int      `json:"replies"`
	Messages [][2]any `json:"messages"` // type and CLIXML
}

// of returns the CLIXML of the messages of a type.
func (r gssResult) of(t *testing.T, kind float64) (values []clixml.Value) {
	t.Helper()
	for _, m := range r.Messages {
		if m[0] != kind {
			continue
		}
		v, err := clixml.Parse([]byte(m[1].(string)))
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

const (
	pipelineOutput = 0x41004
	errorRecord    = 0x41005
	pipelineState  = 0x41006
)

// runGSS runs the independent client and returns what it saw.
func runGSS(t *testing.T, srv *peptest.Server, password string, calls []gssCall) (results []gssResult, trips, requests int, stderr string) {
	t.Helper()
	job, err := json.Marshal(map[string]any{"address": srv.Addresses[0], "user": srv.User, "password": password, "ca": string(srv.CAPEM), "calls": calls})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	client := exec.CommandContext(t.Context(), gssPython(t), "testdata/gss/client.py")
	client.Stdin, client.Stdout, client.Stderr = bytes.NewReader(job), &out, &errs
	if err := client.Run(); err != nil {
		return nil, 0, 0, errs.String()
	}
	var report struct {
		Trips, Requests int
		Calls           []gssResult
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	return report.Calls, report.Trips, report.Requests, ""
}

// A client that shares nothing with this project completes the whole flow: the
// second opinion on NTLM, sealing, WSMan and PSRP of the simulated endpoint.
func TestIndependentClient(t *testing.T) {
	for name, opts := range map[string][]peptest.Option{
		"http": nil,
		"tls":  {peptest.WithTLS()}, // where it sends the channel bindings
	} {
		t.Run(name, func(t *testing.T) {
			srv := peptest.NewServer(append(opts, peptest.WithPassword("corréct horse"))...)
			defer srv.Close()
			claims, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{CloudID: srv.CloudID}),
				officialtest.Place{SubscriptionID: "8f3a2c41-5b6d-4e7f-9a0b-1c2d3e4f5a6b", ResourceGroup: "azurestack", RegistrationName: "AzureStack-" + srv.CloudID})
			if err != nil {
				t.Fatal(err)
			}
			key := officialtest.Key(claims, nil)
			calls := []gssCall{
				{Cmdlet: "Get-AzureStackStampInformation", Arguments: [][2]any{{"WarningAction", "SilentlyContinue"}}},
				{Cmdlet: "Set-RegistrationKeyPair"},
				{Cmdlet: "New-RegistrationToken", Arguments: [][2]any{{"BillingModel", "Capacity"}, {"MarketplaceSyndicationEnabled", false},
					{"UsageReportingEnabled", false}, {"AgreementNumber", "1234567"}, {"MsAssetTag", ""}, {"TokenVersion", "6.0"}}},
				// As Windows spells -ActivationKey VALUE: a bare name, then a value of its own.
				{Cmdlet: "New-AzureStackActivation", Arguments: [][2]any{{"-ActivationKey", nil}, {nil, key}, {"TimeoutInSeconds", 1800}}},
				{Cmdlet: "Remove-AzureStackActivation"},
				{Cmdlet: "Save-HCILicense", Arguments: [][2]any{{"License", strings.Repeat("é", 100_000)}}}, // of several fragments
				{Cmdlet: "Get-Item .", Script: true},
				{Cmdlet: "Get-Item", Arguments: [][2]any{{"Path", "."}}},
			}
			results, trips, requests, stderr := runGSS(t, srv, "corréct horse", calls)
			if stderr != "" {
				t.Fatal(stderr)
			}
			for i, r := range results {
				refused := i >= 6
				if want := map[bool]int{false: 4, true: 5}[refused]; r.State != want || len(r.of(t, errorRecord)) != 0 {
					t.Errorf("%s ended in state %d, want %d: %v", calls[i].Cmdlet, r.State, want, r.Messages)
				}
			}
			for i, id := range map[int]string{6: "ScriptsNotAllowed", 7: "CommandNotFoundException"} {
				if end, _ := results[i].Messages[len(results[i].Messages)-1][1].(string); !strings.Contains(end, ">"+id+"<") {
					t.Errorf("%s: the state is not of %s: %s", calls[i].Cmdlet, id, end)
				}
			}
			if info := results[0].of(t, pipelineOutput); len(info) != 1 {
				t.Errorf("%d stamps", len(info))
			} else if id, _ := clixml.Get(info[0], "CloudID"); clixml.Text(id) != srv.CloudID {
				t.Errorf("cloud id %v, want %s", id, srv.CloudID)
			}
			if token := results[2].of(t, pipelineOutput); len(token) != 1 || clixml.Text(token[0]) == "" {
				t.Errorf("tokens %v", token)
			}

			got := srv.Stamp()
			want := peptest.Stamp{CloudID: srv.CloudID, Version: peptest.DefaultVersion, Nodes: 4, DeploymentID: got.DeploymentID,
				Activations: 1, Deactivations: 1, Tokens: 1, KeyPairs: 1, Licenses: 1}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("stamp (-want +got)\n%s", diff)
			}
			log := srv.Requests()
			for _, r := range log {
				if r.MessageID != "" && !r.Sealed || r.Note != "" {
					t.Errorf("%+v", r)
				}
			}
			// The opening, three for each command, the license's other fragments, one to
			// close; and two for the login.
			if sends := len(log) - 2 - (4 + 3*len(calls) + 1); trips != len(log)-2 || requests != len(log) || sends != 6 {
				t.Errorf("the client counts %d trips and %d requests, the log has %d of which %d are Sends", trips, requests, len(log), sends)
			}
			t.Logf("%d round trips, %d HTTP requests", trips, requests)
		})
	}
}

// The login is a real one.
func TestIndependentClientWithTheWrongPassword(t *testing.T) {
	srv := peptest.NewServer()
	defer srv.Close()
	_, _, _, stderr := runGSS(t, srv, "not "+srv.Password, nil)
	if !strings.Contains(stderr, "the login was answered with HTTP status 401") {
		t.Errorf("stderr %q", stderr)
	}
}
