package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// endpoint is the one line that a serving peptest prints.
type endpoint struct {
	Addresses    []string `json:"addresses"`
	User         string   `json:"user"`
	PasswordFile string   `json:"passwordFile"`
	CloudID      string   `json:"cloudId"`
	Control      string   `json:"control"`
	CAFile       string   `json:"caFile,omitempty"`
}

// run is the program: it serves until ctx ends and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name:            "peptest",
		Usage:           "a simulated privileged endpoint of an Azure Stack Hub stamp on loopback, for rehearsals",
		Description:     "Prints one JSON line with the addresses and the files that a client needs, and serves until it is stopped. Nothing leaves this machine.",
		HideHelpCommand: true,
		HideVersion:     true,
		Writer:          stdout,
		ErrWriter:       stderr,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return fault.New(fault.Usage, "%w", err).Hint("peptest --help")
		},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Value: "127.0.0.1:0", Usage: "loopback `HOST:PORT` to serve on; port 0 is any free one"},
			&cli.StringFlag{Name: "dir", Usage: "`FOLDER` for the password and CA files; without it a temporary one, removed at the end"},
			&cli.StringFlag{Name: "stamp-version", Value: peptest.DefaultVersion, Usage: "`VERSION` of the stamp, which decides what cmdlets and parameters it knows"},
			&cli.BoolFlag{Name: "stamp-version-string", Usage: "tell the version as a string instead of a Version object"},
			&cli.IntFlag{Name: "nodes", Value: 4, Usage: "physical hosts of the stamp"},
			&cli.StringFlag{Name: "cloud-id", Usage: "cloud `GUID` of the stamp (default: a new one)"},
			&cli.DurationFlag{Name: "activation", Value: 2 * time.Second, Usage: "how long an activation or its removal runs"},
			&cli.IntFlag{Name: "addresses", Value: 1, Usage: "how many addresses are served, 1 to 3"},
			&cli.IntFlag{Name: "opening-receives", Value: 3, Usage: "in how many replies a session opens, 2 or 3; real hosts differ"},
			&cli.IntFlag{Name: "max-shells", Value: 30, Usage: "sessions that may be open at a time"},
			&cli.IntFlag{Name: "max-commands", Value: 1000, Usage: "commands of a session that may be open at a time"},
			&cli.StringFlag{Name: "deployment-id", Usage: "deployment `GUID` of the stamp, spelled in upper or lower case as it shall be told (default: a new one)"},
			&cli.StringFlag{Name: "streams", Value: string(peptest.OneFragment), Usage: "how PSRP fragments lie in the Streams of a reply: one, together, split"},
			&cli.BoolFlag{Name: "timed-out-200", Usage: "send the fault w:TimedOut with HTTP status 200"},
			&cli.BoolFlag{Name: "spaced-boundary", Usage: "write '-- Encrypted Boundary', as Exchange does"},
			&cli.BoolFlag{Name: "own-shell-ids", Usage: "give sessions other ids than were asked for"},
			&cli.BoolFlag{Name: "require-mic", Usage: "refuse a login without a MIC"},
			&cli.StringSliceFlag{Name: "fail", Usage: "a fault of this `KIND` from the start, see 'peptest ctl fail --help'; may be repeated"},
			&cli.BoolFlag{Name: "tls", Usage: "serve HTTPS with a certificate of an own CA"},
			&cli.BoolFlag{Name: "basic", Usage: "accept Basic authentication too; needs --tls"},
		},
		Action:   serve,
		Commands: []*cli.Command{ctlCommand()},
	}
	err := app.RunContext(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "peptest: error: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(stderr, "peptest: hint: %s\n", hint)
	}
	return fault.ExitCode(err)
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fault.New(fault.Usage, "unknown command %q", c.Args().First()).Hint("peptest --help")
	}
	opts := []peptest.Option{
		peptest.WithStampVersion(c.String("stamp-version"), c.Bool("stamp-version-string")), peptest.WithNodes(c.Int("nodes")),
		peptest.WithCloudID(c.String("cloud-id")), peptest.WithActivation(c.Duration("activation")), peptest.WithAddresses(c.Int("addresses")),
		peptest.WithOpeningReceives(c.Int("opening-receives")), peptest.WithQuota(c.Int("max-shells"), c.Int("max-commands")),
	}
	if id := c.String("deployment-id"); id != "" {
		opts = append(opts, peptest.WithDeploymentID(id))
	}
	opts = append(opts, peptest.WithStreams(peptest.Streams(c.String("streams"))))
	for name, o := range map[string]peptest.Option{"timed-out-200": peptest.WithTimedOut200(), "spaced-boundary": peptest.WithSpacedBoundary(), "own-shell-ids": peptest.WithOwnShellIDs(),
		"require-mic": peptest.WithMIC()} {
		if c.Bool(name) {
			opts = append(opts, o)
		}
	}
	for _, kind := range c.StringSlice("fail") {
		if err := (peptest.Fault{Kind: peptest.Kind(kind)}).Valid(); err != nil {
			return fault.New(fault.Usage, "--fail: %w", err).Hint("peptest ctl fail --help")
		}
	}
	if c.Bool("tls") {
		opts = append(opts, peptest.WithTLS())
	}
	if c.Bool("basic") {
		if !c.Bool("tls") {
			return fault.New(fault.Usage, "--basic without --tls would take the password in clear").Hint("peptest --tls --basic")
		}
		opts = append(opts, peptest.WithBasic())
	}
	dir := c.String("dir")
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp("", "peptest-"); err != nil {
			return fault.New(fault.Medium, "make a folder for the files: %w", err)
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(fault.Medium, "make the folder %q: %w", dir, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	srv, err := peptest.Start(c.String("addr"), opts...)
	if err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	defer srv.Close()
	for _, kind := range c.StringSlice("fail") {
		srv.Fail(peptest.Fault{Kind: peptest.Kind(kind)})
	}

	out := endpoint{Addresses: srv.Addresses, User: srv.User, CloudID: srv.CloudID, PasswordFile: filepath.Join(dir, "password")}
	files := map[string][]byte{out.PasswordFile: []byte(srv.Password + "\n")}
	if srv.CAPEM != nil {
		out.CAFile = filepath.Join(dir, "ca.pem")
		files[out.CAFile] = srv.CAPEM
	}
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
	out.Control = control
	if err := json.NewEncoder(c.App.Writer).Encode(out); err != nil {
		return fault.New(fault.Medium, "print the addresses: %w", err)
	}
	<-c.Context.Done()
	return nil
}

// serveControl serves the control handler on plain HTTP under a random path, so
// that only who read the line can drive the server.
func serveControl(srv *peptest.Server) (url string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
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
