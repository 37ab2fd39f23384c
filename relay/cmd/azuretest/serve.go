package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// endpoints is the one line that a serving azuretest prints.
type endpoints struct {
	ARM                   string `json:"arm"`
	Authority             string `json:"authority"`
	Tenant                string `json:"tenant"`
	Subscription          string `json:"subscription"`
	ClientID              string `json:"clientId"`
	ClientSecretFile      string `json:"clientSecretFile"`
	ClientCertificateFile string `json:"clientCertificateFile,omitempty"`
	CAFile                string `json:"caFile"`
	CloudManifestFile     string `json:"cloudManifestFile"`
	Control               string `json:"control"`
}

// run is the program: it serves until ctx ends and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name:            "azuretest",
		Usage:           "a simulated Entra and Azure Resource Manager on loopback, for rehearsals",
		Description:     "Prints one JSON line with the endpoints and the files that a client needs, and serves until it is stopped. Nothing leaves this machine, and nothing that it issues is worth anything elsewhere.",
		HideHelpCommand: true,
		HideVersion:     true,
		Writer:          stdout,
		ErrWriter:       stderr,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return fault.New(fault.Usage, "%w", err).Hint("azuretest --help")
		},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Value: "127.0.0.1:0", Usage: "loopback `HOST:PORT` to serve on; port 0 is any free one"},
			&cli.StringFlag{Name: "dir", Usage: "`FOLDER` for the CA and secret files; without it a temporary one, removed at the end"},
			&cli.StringFlag{Name: "tenant", Usage: "tenant `GUID` (default: a new one)"},
			&cli.StringSliceFlag{Name: "subscription", Usage: "subscription `GUID[=STATE]`, repeatable (default: a new one, Enabled)"},
			&cli.StringFlag{Name: "provider", Value: "Registered", Usage: "registration `STATE` of Microsoft.AzureStack: Registered or NotRegistered"},
			&cli.IntFlag{Name: "provider-polls", Usage: "how many polls still say Registering after the provider was registered"},
			&cli.StringSliceFlag{Name: "group", Usage: "resource group `NAME[=LOCATION]` that exists already, repeatable"},
			&cli.StringSliceFlag{Name: "location", Usage: "location `NAME` of every subscription, repeatable"},
			&cli.StringSliceFlag{Name: "taken-cloud-id", Usage: "cloud `ID` that is registered where the caller cannot see it, repeatable"},
			&cli.StringFlag{Name: "role-file", Usage: "custom role `FILE`, as 'azs-relay role' prints it, that the client and the person have (default: everything)"},
			&cli.StringSliceFlag{Name: "not-action", Usage: "`ACTION` that the client's role does not cover, repeatable (for example 'Microsoft.Authorization/locks/*')"},
			&cli.IntFlag{Name: "page-size", Value: 100, Usage: "registrations in one page of a list"},
			&cli.StringFlag{Name: "key-expires", Usage: "`TIME` (RFC 3339) of expiry in every activation key"},
			&cli.StringFlag{Name: "accept-opaque", Usage: "accept tokens that are not base64 JSON, as tokens of the stamp `CLOUD-ID`"},
			&cli.BoolFlag{Name: "throttle", Usage: "refuse with 429 what exceeds Resource Manager's documented limits"},
			&cli.Float64Flag{Name: "speed", Value: 1, Usage: "let the throttling's clock run `N` times as fast: buckets refill the faster, Retry-After is the shorter"},
			&cli.StringFlag{Name: "quota-id", Usage: "`QUOTA-ID` of every subscription, such as CSP_2015-05-01 (default: that of an Enterprise Agreement)"},
			&cli.IntFlag{Name: "registrations", Usage: "`N` registrations that exist already, in the group fleet of the first subscription"},
			&cli.IntFlag{Name: "move-polls", Usage: "how often a move or a deletion of a group is answered 202 before it ends"},
			&cli.IntFlag{Name: "move-retry-after", Value: 15, Usage: "Retry-After of these answers in `SECONDS`"},
			&cli.BoolFlag{Name: "move-across-subscriptions", Usage: "let every pair of subscriptions exchange registrations, not only those of one CSP partner"},
			&cli.Float64Flag{Name: "fail-share", Usage: "`SHARE` of all calls of Resource Manager that fail, from 0 to 1: 500, 503, 429 or a dropped connection, before or after acting"},
			&cli.Uint64Flag{Name: "fail-seed", Value: 1, Usage: "`SEED` that decides which"},
			&cli.BoolFlag{Name: "mandatory-mfa", Usage: "ask a person for multi-factor authentication before the first change"},
			&cli.BoolFlag{Name: "client-certificate", Usage: "make a client certificate as well and name its file in the line"},
		},
		Action:   serve,
		Commands: []*cli.Command{ctlCommand(), tokenCommand(), browseCommand(), azCommand()},
	}
	err := app.RunContext(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "azuretest: error: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(stderr, "azuretest: hint: %s\n", hint)
	}
	return fault.ExitCode(err)
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fault.New(fault.Usage, "unknown command %q", c.Args().First()).Hint("azuretest --help")
	}
	opts, err := options(c)
	if err != nil {
		return err
	}
	dir := c.String("dir")
	if dir == "" {
		if dir, err = os.MkdirTemp("", "azuretest-"); err != nil {
			return fault.New(fault.Medium, "make a folder for the files: %w", err)
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(fault.Medium, "make the folder %q: %w", dir, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}

	out := endpoints{ClientSecretFile: filepath.Join(dir, "client-secret"), CAFile: filepath.Join(dir, "ca.pem"), CloudManifestFile: filepath.Join(dir, "cloud-manifest.json")}
	client := azuretest.Client{Secret: rand.Text(), NotActions: c.StringSlice("not-action")}
	if file := c.String("role-file"); file != "" {
		if client.Actions, err = readRole(file); err != nil {
			return err
		}
	}
	opts = append(opts, azuretest.WithUser(azuretest.User{Actions: client.Actions, NotActions: client.NotActions}))
	files := map[string][]byte{out.ClientSecretFile: []byte(client.Secret + "\n")}
	if c.Bool("client-certificate") {
		pem, cert, err := azuretest.NewClientCertificate("azuretest client")
		if err != nil {
			return err
		}
		client.Certificates = append(client.Certificates, cert)
		out.ClientCertificateFile = filepath.Join(dir, "client.pem")
		files[out.ClientCertificateFile] = pem
	}
	srv, err := azuretest.Start(c.String("addr"), append(opts, azuretest.WithClient(client))...)
	if err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	defer srv.Close()
	files[out.CAFile] = srv.CAPEM
	// As the official Initialize-AzEnvironment -CloudManifestFilePath takes it.
	files[out.CloudManifestFile] = []byte(`{"Signature":"","DeploymentData":{"CustomEnvironmentEndpoints":{"CustomCloudARMEndpoint":"` + srv.URL + "/\"}}}\n")
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return fault.New(fault.Medium, "write %q: %w", name, err)
		}
	}

	control, stop, err := serveControl(srv)
	if err != nil {
		return err
	}
	defer stop()
	out.ARM, out.Authority, out.Tenant, out.Subscription, out.ClientID, out.Control = srv.URL, srv.Authority, srv.Tenant, srv.Subscription, srv.ClientID, control
	if err := json.NewEncoder(c.App.Writer).Encode(out); err != nil {
		return fault.New(fault.Medium, "print the endpoints: %w", err)
	}
	<-c.Context.Done()
	return nil
}

// readRole reads the actions of a custom role.
func readRole(file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Medium, "--role-file: %w", err)
	}
	var role struct{ Actions []string }
	if err := json.Unmarshal(raw, &role); err != nil || len(role.Actions) == 0 {
		return nil, fault.New(fault.Refused, "--role-file: %q is no role, or has no Actions", file)
	}
	return role.Actions, nil
}

func options(c *cli.Context) ([]azuretest.Option, error) {
	opts := []azuretest.Option{azuretest.WithPageSize(c.Int("page-size"))}
	if n := c.Int("page-size"); n < 1 {
		return nil, fault.New(fault.Usage, "--page-size %d is not positive", n)
	}
	if t := c.String("tenant"); t != "" {
		opts = append(opts, azuretest.WithTenant(t))
	}
	subs := c.StringSlice("subscription")
	if len(subs) == 0 {
		subs = []string{""}
	}
	for _, sub := range subs {
		id, state, _ := strings.Cut(sub, "=")
		opts = append(opts, azuretest.WithSubscription(azuretest.Subscription{ID: id, State: state,
			QuotaID: c.String("quota-id"), Provider: c.String("provider"), ProviderPolls: c.Int("provider-polls")}))
	}
	for _, g := range c.StringSlice("group") {
		name, location, _ := strings.Cut(g, "=")
		opts = append(opts, azuretest.WithGroup(azuretest.Group{Name: name, Location: location}))
	}
	if l := c.StringSlice("location"); len(l) > 0 {
		opts = append(opts, azuretest.WithLocations(l...))
	}
	for _, id := range c.StringSlice("taken-cloud-id") {
		opts = append(opts, azuretest.WithTakenCloudID(id))
	}
	if v := c.String("key-expires"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return nil, fault.New(fault.Usage, "--key-expires: %w", err)
		}
		opts = append(opts, azuretest.WithKeyExpires(t))
	}
	if id := c.String("accept-opaque"); id != "" {
		opts = append(opts, azuretest.WithOpaqueTokens(id))
	}
	if c.Float64("speed") <= 0 {
		return nil, fault.New(fault.Usage, "--speed %g is not positive", c.Float64("speed"))
	}
	opts = append(opts, azuretest.WithSpeed(c.Float64("speed")), azuretest.WithMoves(azuretest.Moves{Polls: c.Int("move-polls"),
		RetryAfter: c.Int("move-retry-after"), AcrossSubscriptions: c.Bool("move-across-subscriptions")}))
	if share := c.Float64("fail-share"); share != 0 {
		opts = append(opts, azuretest.WithTrouble(c.Uint64("fail-seed"), share))
	}
	if c.Bool("mandatory-mfa") {
		opts = append(opts, azuretest.WithMandatoryMFA())
	}
	for i := range c.Int("registrations") {
		name := fmt.Sprintf("fleet-%05d", i)
		opts = append(opts, azuretest.WithRegistration(azuretest.Registration{Group: "fleet", Name: name, CloudID: "cloud-of-" + name}))
	}
	if c.Bool("throttle") {
		opts = append(opts, azuretest.WithThrottling(azuretest.AzureLimits()))
	}
	return opts, nil
}

// serveControl serves the control handler on plain HTTP under a random path, so
// that only who read the line can drive the server.
func serveControl(srv *azuretest.Server) (url string, stop func(), err error) {
	ln, err := azuretest.ListenLoopback("127.0.0.1:0")
	if err != nil {
		return "", nil, fault.New(fault.Unexpected, "serve the control: %w", err)
	}
	path := "/" + rand.Text()
	mux := http.NewServeMux()
	mux.Handle(path+"/", http.StripPrefix(path, srv.Control()))
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = web.Serve(ln) }()
	return "http://" + ln.Addr().String() + path, func() { _ = web.Close(); <-done }, nil
}
