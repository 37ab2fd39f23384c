package peptest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/pep"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
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

// independent is testdata/gss/server.py, as it runs.
type independent struct {
	pep.Options
	in  io.Closer // it ends when this is closed
	out *bufio.Reader
}

// serveGSS starts it with more of its job than the stamp and the token.
func serveGSS(t *testing.T, job map[string]any, onTLS bool) *independent {
	t.Helper()
	python, dir := gssPython(t), t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	options := sealed.Options{User: `AZURESTACK\CloudAdmin`, Password: secret.New("corréct horse"), TLS: onTLS}
	spec := map[string]any{"stamp": stampOfGSS, "token": tokenOfGSS}
	if onTLS {
		certificate, key := selfSigned(t)
		spec["certificate"] = file("certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
		spec["key"] = file("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
		pin := sha256.Sum256(certificate)
		options.Pin = pin[:]
	}
	maps.Copy(spec, job)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), python, "testdata/gss/server.py", string(text))
	server.Env = append(os.Environ(), "NTLM_USER_FILE="+file("accounts", []byte("AZURESTACK:CloudAdmin:corréct horse\n")))
	server.Stderr = t.Output()
	s := &independent{}
	if s.in, err = server.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Wait() })
	s.out = bufio.NewReader(out)
	s.Options = pep.Options{
		Addresses: []string{"127.0.0.1:" + s.line(t)},
		Dial:      pep.Dial(options, rand.Reader),
		Random:    rand.Reader,
		Sleep:     func(context.Context, time.Duration) error { return errors.New("nothing here is worth a pause") },
	}
	return s
}

// What the independent server tells.
var stampOfGSS = map[string]string{"CloudID": "0f0e0d0c-0b0a-4908-8706-050403020100", "StampVersion": "1.2311.1.22", "RegionName": "local"}

const tokenOfGSS = "dG9rZW4gb2YgdGhlIGluZGVwZW5kZW50IHNlcnZlcg=="

func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	if certificate, err = x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private); err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// line waits for a line of the server's.
func (s *independent) line(t *testing.T) string {
	t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the server ended: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// seen is what the server reports at its end.
type seen struct {
	Logins, Shells, Commands, Requests int
	Ran                                [][2]any // cmdlet and its arguments
}

func (s *independent) end(t *testing.T) (got seen) {
	t.Helper()
	s.in.Close()
	for {
		line := s.line(t)
		if line == "dropped" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return got
	}
}

// Our client completes on an endpoint whose NTLM, WSMan and PSRP nobody here
// shares, also where it answers in forms that Windows does not use, and where it
// loses an answer.
func TestClientOnAnIndependentServer(t *testing.T) {
	for name, tt := range map[string]struct {
		job      map[string]any
		tls      bool
		logins   int
		requests int // 0 where they say little
	}{
		"as windows":    {nil, false, 1, 2 + 3 + 6*3 + 1 + 2}, // the license has two more fragments
		"on tls":        {nil, true, 1, 2 + 3 + 6*3 + 1 + 2},
		"otherwise":     {map[string]any{"odd": true}, false, 1, 0},
		"otherwise tls": {map[string]any{"odd": true}, true, 1, 0},
		"lost receive":  {map[string]any{"cut": "Receive"}, false, 2, 0},
		"lost fault":    {map[string]any{"cut": "fault", "odd": true}, false, 2, 0},
		"lost delete":   {map[string]any{"cut": "Delete"}, false, 2, 0},
		"lost signal":   {map[string]any{"cut": "Signal"}, false, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := serveGSS(t, tt.job, tt.tls), t.Context()
			session, err := pep.Open(ctx, s.Options)
			if err != nil {
				t.Fatal(err)
			}
			st, err := session.Stamp(ctx)
			if want := (pep.Stamp{CloudID: stampOfGSS["CloudID"], Version: pep.Version{1, 2311, 1, 22}, Nodes: 4, Region: "local"}); err != nil || st != want {
				t.Errorf("stamp %+v, %v; want %+v", st, err, want)
			}
			if err := session.SetKeyPair(ctx, st); err != nil {
				t.Error(err)
			}
			token, version, err := session.NewToken(ctx, st, pep.TokenParameters{BillingModel: "Capacity", AgreementNumber: "<1&2>"})
			if err != nil || token.Reveal() != tokenOfGSS || version != "6.0" {
				t.Errorf("token %q of version %s, %v", token.Reveal(), version, err)
			}
			var told []string
			err = session.NewActivation(ctx, secret.New("a.b.c"), pep.Watch{Progress: func(sentence string) { told = append(told, sentence) }})
			if diff := cmp.Diff([]string{"New-AzureStackActivation: half (50 %)", "the plan runs"}, told); err != nil || diff != "" {
				t.Errorf("activation: %v, progress (-want +got)\n%s", err, diff)
			}
			if err := session.RemoveActivation(ctx, pep.Watch{}); err != nil {
				t.Error(err)
			}
			license := strings.Repeat("é", 40_000)
			if err := session.SaveHCILicense(ctx, st, secret.New(license)); err != nil {
				t.Error(err)
			}
			if err := session.Close(ctx); err != nil {
				t.Error(err)
			}

			got := s.end(t)
			none := map[string]any{}
			want := [][2]any{
				{"Get-AzureStackStampInformation", none},
				{"Set-RegistrationKeyPair", none},
				{"New-RegistrationToken", map[string]any{"BillingModel": "Capacity", "MarketplaceSyndicationEnabled": "false", "UsageReportingEnabled": "false",
					"AgreementNumber": "<1&2>", "MsAssetTag": "", "TokenVersion": "6.0"}},
				{"New-AzureStackActivation", map[string]any{"ActivationKey": "a.b.c", "TimeoutInSeconds": "1800"}},
				{"Remove-AzureStackActivation", none},
				{"Save-HCILicense", map[string]any{"License": license}},
			}
			if diff := cmp.Diff(want, got.Ran); diff != "" {
				t.Errorf("the server ran (-want +got)\n%s", diff)
			}
			if got.Shells != 0 || got.Commands != 0 || got.Logins != tt.logins || tt.requests != 0 && got.Requests != tt.requests {
				t.Errorf("%d shells and %d commands are left, %d logins, %d requests; want 0, 0, %d, %d", got.Shells, got.Commands, got.Logins, got.Requests, tt.logins, tt.requests)
			}
			t.Logf("%d HTTP requests", got.Requests)
		})
	}
}

// Endpoints close idle connections, and with them their NTLM contexts. The server
// says when it has; a command that the client starts after that goes out once, on
// a new connection.
func TestClientOnAnIndependentServerThatDropsIdleConnections(t *testing.T) {
	s, ctx := serveGSS(t, map[string]any{"idle": 1.5}, false), t.Context()
	session, err := pep.Open(ctx, s.Options)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.line(t); got != "dropped" {
		t.Fatal(got)
	}
	if _, err := session.Stamp(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.line(t); got != "dropped" {
		t.Fatal(got)
	}
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	if got := s.end(t); got.Logins < 3 || got.Shells != 0 || len(got.Ran) != 1 {
		t.Errorf("%+v, want three logins or, on a very slow machine, more, no shell left, one command", got)
	}
}

// And its login is a real one.
func TestIndependentServerRefusesTheWrongPassword(t *testing.T) {
	s := serveGSS(t, nil, false)
	s.Options.Dial = pep.Dial(sealed.Options{User: `AZURESTACK\CloudAdmin`, Password: secret.New("another")}, rand.Reader)
	if _, err := pep.Open(t.Context(), s.Options); fault.KindOf(err) != fault.Permanent {
		t.Errorf("error %v", err)
	}
	if got := s.end(t); got.Logins != 0 || got.Requests != 2 {
		t.Errorf("%+v, want no login by the two messages", got)
	}
}
