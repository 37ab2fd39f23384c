package peptest_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

func start(t *testing.T, opts ...peptest.Option) *peptest.Server {
	t.Helper()
	srv := peptest.NewServer(opts...)
	t.Cleanup(srv.Close)
	return srv
}

func open(t *testing.T, c *client) *psrp.Pool {
	t.Helper()
	pool, err := psrp.NewPool(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Open(t.Context()); err != nil {
		t.Fatalf("open: %v", err)
	}
	return pool
}

func cmd(name string, p ...psrp.Parameter) psrp.Command {
	return psrp.Command{Name: name, Parameters: p}
}

func key(t *testing.T, cloudID string) string {
	t.Helper()
	payload, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{CloudID: cloudID}), officialtest.Place{
		SubscriptionID: "11111111-1111-4111-8111-111111111111", ResourceGroup: "g", RegistrationName: "r"})
	if err != nil {
		t.Fatal(err)
	}
	return officialtest.Key(payload, nil)
}

// The whole trip of a registration, by the library's sealing transport.
func TestSixCmdletsOverAnotherPeoplesSealing(t *testing.T) {
	for _, opening := range []int{2, 3} {
		srv := start(t, peptest.WithOpeningReceives(opening))
		pool := open(t, newClient(t, srv, srv.Password))
		out, err := pool.Run(t.Context(), cmd("Get-AzureStackStampInformation"), psrp.Handlers{})
		if err != nil || len(out) != 1 {
			t.Fatalf("information: %d values, %v", len(out), err)
		}
		if id, _ := clixml.Get(out[0], "CloudID"); clixml.Text(id) != srv.CloudID {
			t.Errorf("cloud id %q, want %q", clixml.Text(id), srv.CloudID)
		}
		if v, _ := clixml.Get(out[0], "StampVersion"); v != clixml.Version(peptest.DefaultVersion) {
			t.Errorf("version %#v", v)
		}
		if _, err := pool.Run(t.Context(), cmd("Set-RegistrationKeyPair"), psrp.Handlers{}); err != nil {
			t.Error(err)
		}
		out, err = pool.Run(t.Context(), cmd("New-RegistrationToken", psrp.Param("BillingModel", "Capacity"), psrp.Param("AgreementNumber", "123"),
			psrp.Switch("UsageReportingEnabled", false), psrp.Param("MsAssetTag", ""), psrp.Param("TokenVersion", "6.0")), psrp.Handlers{})
		if err != nil || len(out) != 1 || len(clixml.Text(out[0])) < 4000 {
			t.Fatalf("token: %d values, %v", len(out), err)
		}
		var progress, verbose int
		_, err = pool.Run(t.Context(), cmd("New-AzureStackActivation", psrp.Param("ActivationKey", key(t, srv.CloudID)), psrp.Number("TimeoutInSeconds", 1800)),
			psrp.Handlers{Progress: func(psrp.Progress) { progress++ }, Record: func(psrp.Record) { verbose++ }})
		if err != nil || progress < 2 || verbose < 2 {
			t.Fatalf("activation: %v, %d progress, %d verbose records", err, progress, verbose)
		}
		if st := srv.Stamp(); !st.Activated || st.Activations != 1 || st.KeyPairs != 1 || st.Tokens != 1 || st.Shells != 1 {
			t.Errorf("state %+v", st)
		}
		for _, c := range []psrp.Command{cmd("Save-HCILicense", psrp.Param("License", "L")), cmd("Remove-AzureStackActivation")} {
			if _, err := pool.Run(t.Context(), c, psrp.Handlers{}); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
		if err := pool.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if st := srv.Stamp(); st.Activated || st.Deactivations != 1 || st.Licenses != 1 || st.Shells != 0 {
			t.Errorf("state at the end %+v", st)
		}
		receives := 0
		for _, r := range srv.Requests() {
			if r.Action == "Create" || r.Action == "Receive" {
				if !r.Sealed || r.Status != 200 {
					t.Errorf("%+v", r)
				}
			}
			if r.Action == "Command" {
				break
			}
			if r.Action == "Receive" {
				receives++
			}
		}
		if receives != opening {
			t.Errorf("%d opening Receives, want %d", receives, opening)
		}
	}
}

func TestWhatACmdletRefuses(t *testing.T) {
	old := peptest.WithStampVersion("1.1912.0.18", false)
	str := func(s string) clixml.Value { return clixml.String(s) }
	token := "New-RegistrationToken"
	for _, c := range []struct {
		name    string
		version peptest.Option
		command func(srv *peptest.Server) psrp.Command
		id      string // part of FullyQualifiedErrorID or message, "" for success
	}{
		{"unknown command", nil, func(*peptest.Server) psrp.Command { return cmd("Get-Item") }, "CommandNotFoundException"},
		{"key pair on an old stamp", old, func(*peptest.Server) psrp.Command { return cmd("Set-RegistrationKeyPair") }, "CommandNotFoundException"},
		{"key pair at the gate itself", peptest.WithStampVersion("1.2209.0.23", false), func(*peptest.Server) psrp.Command { return cmd("Set-RegistrationKeyPair") }, "CommandNotFoundException"},
		{"asset tag on an old stamp", old, func(*peptest.Server) psrp.Command { return cmd(token, psrp.Param("MsAssetTag", "")) }, "NamedParameterNotFound"},
		{"token version on an old stamp", peptest.WithStampVersion("1.2008.0.48", false), func(*peptest.Server) psrp.Command {
			return cmd(token, psrp.Param("MsAssetTag", ""), psrp.Param("TokenVersion", "4.0"))
		}, "'TokenVersion'"},
		{"token 6.0 at the gate itself", peptest.WithStampVersion("1.2309.0.4", false), func(*peptest.Server) psrp.Command {
			return cmd(token, psrp.Param("BillingModel", "Development"), psrp.Param("TokenVersion", "6.0"))
		}, "not supported"},
		{"empty key", nil, func(*peptest.Server) psrp.Command {
			return cmd("New-AzureStackActivation", psrp.Param("ActivationKey", ""))
		}, "EmptyStringNotAllowed"},
		{"key of another stamp", nil, func(*peptest.Server) psrp.Command {
			return cmd("New-AzureStackActivation", psrp.Param("ActivationKey", key(t, officialtest.CloudID(99))))
		}, "is for the cloud identifier"},
		{"no key at all", nil, func(*peptest.Server) psrp.Command {
			return cmd("New-AzureStackActivation", psrp.Param("ActivationKey", "abc"))
		}, "cannot be read"},
		{"dashed name and value apart", nil, func(srv *peptest.Server) psrp.Command {
			return cmd("New-AzureStackActivation", psrp.Parameter{Name: "-ActivationKey", Value: clixml.Nil{}}, psrp.Parameter{Value: str(key(t, srv.CloudID))})
		}, ""},
		{"positional", nil, func(srv *peptest.Server) psrp.Command {
			return cmd("New-AzureStackActivation", psrp.Parameter{Value: str(key(t, srv.CloudID))})
		}, ""},
		{"SwitchParameter object, bare switch, prefix", nil, func(*peptest.Server) psrp.Command {
			return cmd(token, psrp.Param("Billing", "development"),
				psrp.Parameter{Name: "UsageReportingEnabled", Value: &clixml.Object{
					Types: []string{"System.Management.Automation.SwitchParameter"}, Props: []clixml.Member{clixml.M("IsPresent", clixml.Bool(true))}}},
				psrp.Parameter{Name: "-MarketplaceSyndicationEnabled", Value: clixml.Nil{}})
		}, ""},
		{"too many positional", nil, func(*peptest.Server) psrp.Command {
			return cmd("Get-AzureStackStampInformation", psrp.Parameter{Value: str("x")})
		}, "PositionalParameterNotFound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.version == nil {
				c.version = peptest.WithStampVersion(peptest.DefaultVersion, true)
			}
			srv := start(t, c.version)
			records := raw(t, newClient(t, srv, srv.Password), c.command(srv))
			switch {
			case c.id == "" && records != "":
				t.Errorf("refused: %s", records)
			case !strings.Contains(records, c.id):
				t.Errorf("error %q, want one with %q", records, c.id)
			}
		})
	}
}

// raw runs a command that the client's own checks would not let out, and returns
// the id and the message of the pipeline's error, or "".
func raw(t *testing.T, c *client, command psrp.Command) string {
	t.Helper()
	pool := open(t, c)
	id := guid(t)
	pid, _ := psrp.ParseGUID(id)
	splitter := psrp.Fragmenter{Last: 2}
	fragments := splitter.Split(psrp.NewCreatePipeline(pool.ID(), pid, command).Encode())
	if err := c.Command(t.Context(), id, fragments[0]); err != nil {
		t.Fatal(err)
	}
	var in psrp.Defragmenter
	for {
		streams, done, err := c.Receive(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range streams {
			messages, err := in.Write(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				m, err := psrp.DecodeMessage(m)
				if err != nil {
					t.Fatal(err)
				}
				if m.Type != psrp.PipelineStateMessage {
					continue
				}
				v, err := m.Value()
				if err != nil {
					t.Fatal(err)
				}
				state, record, err := psrp.ParsePipelineState(v)
				if err != nil || !done {
					t.Fatalf("state %s, done %t, %v", state, done, err)
				}
				if record == nil {
					return ""
				}
				return record.FullyQualifiedErrorID + ": " + record.Message
			}
		}
		if done {
			t.Fatal("done without a state")
		}
	}
}

func remote(err error) string {
	var r *psrp.RemoteError
	if errors.As(err, &r) {
		return r.Records[0].Message
	}
	return ""
}
