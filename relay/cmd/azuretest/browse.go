package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// browseCommand plays the browser and the person in it, so that a script named
// xdg-open can sign a program in.
func browseCommand() *cli.Command {
	return &cli.Command{
		Name:      "browse",
		Usage:     "open a sign-in page and post its form, as a browser does",
		ArgsUsage: "URL",
		Flags: []cli.Flag{&cli.StringFlag{Name: "line", Required: true, EnvVars: []string{"AZURETEST_LINE"},
			Usage: "`FILE` that the line of the serving azuretest was written to"}},
		Action: func(c *cli.Context) error {
			raw, err := os.ReadFile(c.String("line"))
			if err != nil {
				return fault.New(fault.Medium, "--line: %w", err)
			}
			var line endpoints
			if err := json.Unmarshal(raw, &line); err != nil || line.CAFile == "" {
				return fault.New(fault.Refused, "--line: %q holds no line of azuretest", c.String("line"))
			}
			pem, err := os.ReadFile(line.CAFile)
			if err != nil {
				return fault.New(fault.Medium, "the CA file: %w", err)
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(pem)
			direct := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}} // loopback needs no proxy
			defer direct.CloseIdleConnections()
			if err := azuretest.Browse(c.Context, &http.Client{Transport: direct}, c.Args().First()); err != nil {
				return fault.New(fault.Permanent, "browse: %w", err)
			}
			return nil
		},
	}
}
