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

func env(name string) string { return os.Getenv(name) }

// trusting makes an HTTP client that trusts the CA of a serving azuretest.
func trusting(caFile string) (*http.Client, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fault.New(fault.Medium, "the CA file: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	// Loopback needs no proxy.
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}, nil
}

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
			client, err := trusting(c.String("ca-file"))
			if err != nil {
				return err
			}
			defer client.CloseIdleConnections()
			if err := azuretest.Browse(c.Context, client, c.Args().First()); err != nil {
				return fault.New(fault.Permanent, "browse: %w", err)
			}
			return nil
		},
	}
}
