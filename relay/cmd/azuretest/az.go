package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// azCommand plays the Azure CLI of a person who signed in without a second
// factor, so that a script named az can give a program its token. What it needs
// to know it has from the relay's own variables.
func azCommand() *cli.Command {
	return &cli.Command{
		Name:            "az",
		Usage:           "answer 'account get-access-token' as the Azure CLI does",
		ArgsUsage:       "account get-access-token --resource RESOURCE …",
		Description:     "Takes the CA file, the endpoint and the tenant from AZS_CA_FILE, AZS_ARM_ENDPOINT and AZS_TENANT.",
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			i := slices.Index(args, "--resource")
			if len(args) < 2 || args[0] != "account" || args[1] != "get-access-token" || i < 0 || i+1 >= len(args) {
				return fault.New(fault.Usage, "az: only 'account get-access-token --resource RESOURCE' is answered")
			}
			token, err := personToken(c.Context, args[i+1])
			if err != nil {
				return fault.New(fault.Permanent, "az: %w", err)
			}
			expires := clock.System{}.Now().Add(50 * time.Minute)
			return json.NewEncoder(c.App.Writer).Encode(map[string]any{"accessToken": token, "expiresOn": expires.Format("2006-01-02 15:04:05.000000"),
				"expires_on": expires.Unix(), "tenant": env("AZS_TENANT"), "tokenType": "Bearer"})
		},
	}
}

// personToken signs the person in by a device code and polls until it is
// granted.
func personToken(ctx context.Context, resource string) (string, error) {
	client, err := trusting(env("AZS_CA_FILE"))
	if err != nil {
		return "", err
	}
	defer client.CloseIdleConnections()
	base := strings.TrimRight(env("AZS_ARM_ENDPOINT"), "/") + "/" + env("AZS_TENANT") + "/oauth2/v2.0/"
	const app = "04b07795-8ddb-461a-bbee-02f9e1bf7b46" // the Azure CLI
	var out struct {
		Code  string `json:"device_code"`
		Token string `json:"access_token"`
		Error string `json:"error"`
		Why   string `json:"error_description"`
	}
	ask := func(path string, form url.Values) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader(form.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		out.Error = ""
		return json.NewDecoder(res.Body).Decode(&out)
	}
	if err := ask("devicecode", url.Values{"client_id": {app}, "scope": {resource + "/.default"}}); err != nil {
		return "", err
	}
	for {
		if err := ask("token", url.Values{"grant_type": {"device_code"}, "client_id": {app}, "device_code": {out.Code}}); err != nil {
			return "", err
		}
		switch out.Error {
		case "":
			return out.Token, nil
		case "authorization_pending":
		default:
			return "", fault.New(fault.Permanent, "%s: %s", out.Error, out.Why)
		}
	}
}
