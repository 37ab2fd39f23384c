package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
)

func tokenVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "token", Usage: "seal a registration token into a request",
		Description: "Reads the file that Get-AzsRegistrationToken wrote, in any encoding of PowerShell, checks that it is whole, " +
			"and seals it for the paired relay together with what the answer must name. The request can be used once. " +
			"An earlier request for the same stamp is superseded.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "token-file", Usage: "registration token `FILE` of the official cmdlet"},
			&cli.StringFlag{Name: "billing-model", Usage: "Capacity, Custom or Development; must agree with the token"},
			&cli.StringFlag{Name: "agreement-number", Usage: "Enterprise Agreement `NUMBER`; must agree with the token"},
			&cli.StringFlag{Name: "cloud-id", Usage: "cloud `ID` of the stamp, for a token that does not tell it"},
			&cli.StringFlag{Name: "usage-reporting", Usage: "`true|false`; must agree with the token"},
			&cli.StringFlag{Name: "ms-asset-tag", Usage: "asset `TAG`, for billing model Custom"},
			&cli.StringFlag{Name: "token-version", Usage: "`3.0|4.0|6.0` that the token was made with, when known"},
			&cli.StringFlag{Name: "registration-name", Usage: "`NAME` that the registration must get (default: AzureStack-<cloud id>)"},
			&cli.StringFlag{Name: "expect-subscription", Usage: "subscription `ID` that the answer must name"},
			&cli.StringFlag{Name: "expect-group", Usage: "resource group that the answer must name", Value: "azurestack"},
			&cli.StringFlag{Name: "note", Usage: "a line for the relay's operator; travels encrypted"},
			&cli.BoolFlag{Name: "with-card", Usage: "put this side's card into the request, for a relay that does not have it yet"},
			&cli.StringFlag{Name: "relay", Usage: "`LABEL` of the relay, when more than one is paired"},
			&cli.DurationFlag{Name: "valid", Usage: "how long the answer is waited for, by this clock", Value: 14 * 24 * time.Hour},
			&cli.StringFlag{Name: "out", Usage: "write the request to `FILE`, or to standard output with -"},
			&cli.StringFlag{Name: "put", Usage: "write the request to the stick or folder `DIR`"},
			&cli.StringFlag{Name: "plain-out", Usage: "also write the plain token, as the official cmdlets read it, to `FILE`"},
			acceptClock,
		},
		Action: appkit.Run(runToken),
	}, appkit.Help{
		Examples: []string{
			p.Name + " token --token-file RegistrationToken.txt --expect-subscription 11111111-2222-3333-4444-555555555555 --put /media/stick",
			p.Name + " token --token-file RegistrationToken.txt --with-card --out request.azc",
		},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.Expired, fault.Medium, fault.Locked, fault.NothingYet},
	})
}

func runToken(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	o, err := tokenOrder(c)
	if err != nil {
		return err
	}
	s, agent, err := open(ctx, e, c)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := agent.Token(ctx, flow.TokenFile(c.String("token-file")), o)
	if err != nil {
		return err
	}
	for _, w := range r.Warnings {
		e.Console.Warn("%s", w)
	}
	e.Console.Say("token: %s", r.Token.Describe())
	for _, id := range r.Superseded {
		e.Console.Say("request %s for the same stamp is superseded", id)
	}
	if plain := c.String("plain-out"); plain != "" {
		if err := medium.Save(plain, official.Write(r.Token.Text), true); err != nil {
			return err
		}
		if err := agent.PlainOut(r.Trip, plain); err != nil {
			return err
		}
	}
	places, err := e.Write(appkit.Out{File: c.String("out"), Dir: c.String("put")}, bundle.KindRequest, r.Manifest.Bundle, r.Bundle.Text())
	for _, p := range places {
		if jerr := agent.Exported(r.Trip, p); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "request %s is sealed and kept, but did not leave: %w", r.Trip, err).Hint("azs-agent put %s DIR", s.Path(r.File))
	}
	result := map[string]any{
		"trip": r.Trip, "digest": r.Bundle.Digest(), "seq": r.Manifest.Seq, "relay": r.Relay, "file": s.Path(r.File), "places": places,
		"cloudId": r.Content.CloudID, "registration": r.Content.ExpectRegistration, "resourceGroup": r.Content.ExpectResourceGroup,
		"subscription": r.Content.ExpectSubscription, "created": clock.Format(r.Manifest.Created), "expires": clock.Format(r.Manifest.Expires),
		"tokenBytes": r.Token.Text.Len(), "textBytes": len(r.Bundle.Text()), "wireBytes": len(r.Bundle.Wire()), "superseded": r.Superseded, "warnings": r.Warnings,
	}
	talk := func(w io.Writer) {
		fmt.Fprintf(w, "request %s for relay %q\n  stamp         %q, registration %q\n  token         %d characters, in %d bytes of text or %d in wire form\n  digest        %s\n  answer until  %s by this clock\n",
			r.Trip, r.Relay, r.Content.CloudID, r.Content.ExpectRegistration, r.Token.Text.Len(), len(r.Bundle.Text()), len(r.Bundle.Wire()), r.Bundle.Digest(), clock.Format(r.Manifest.Expires))
		if len(places) == 0 {
			places = []string{s.Path(r.File)}
		}
		for _, p := range places {
			fmt.Fprintf(w, "  written to    %s\n", p)
		}
	}
	if c.String("out") != "-" { // standard output holds the bundle
		e.Console.Result("request", result, talk)
	}
	return nil
}

func tokenOrder(c *cli.Context) (flow.TokenOrder, error) {
	o := flow.TokenOrder{
		Relay: c.String("relay"), CloudID: c.String("cloud-id"), BillingModel: c.String("billing-model"), AgreementNumber: c.String("agreement-number"),
		MsAssetTag: c.String("ms-asset-tag"), TokenVersion: c.String("token-version"), Registration: c.String("registration-name"),
		ResourceGroup: c.String("expect-group"), ExpectSubscription: c.String("expect-subscription"), Note: c.String("note"),
		WithCard: c.Bool("with-card"), Valid: c.Duration("valid"),
	}
	switch {
	case c.String("token-file") == "":
		return o, fault.New(fault.Usage, "token needs the file of Get-AzsRegistrationToken").Hint("azs-agent token --token-file RegistrationToken.txt")
	case o.Valid < time.Hour || o.Valid > 366*24*time.Hour:
		return o, fault.New(fault.Usage, "--valid is %s, want an hour to a year", o.Valid)
	case o.TokenVersion != "" && o.TokenVersion != "3.0" && o.TokenVersion != "4.0" && o.TokenVersion != "6.0":
		return o, fault.New(fault.Usage, "--token-version is %q, want 3.0, 4.0 or 6.0", o.TokenVersion)
	}
	switch v := c.String("usage-reporting"); v {
	case "":
	case "true", "false":
		on := v == "true"
		o.UsageReporting = &on
	default:
		return o, fault.New(fault.Usage, "--usage-reporting is %q, want true or false", v)
	}
	return o, nil
}
