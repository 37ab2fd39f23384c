package main

import (
	"crypto/tls"
	"crypto/x509"
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
		Flags: []cli.Flag{&cli.StringFlag{Name: "ca-file", Required: true, EnvVars: []string{"AZS_CA_FILE"},
			Usage: "`FILE` of the serving azuretest's CA"}},
		Action: func(c *cli.Context) error {
			pem, err := os.ReadFile(c.String("ca-file"))
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
