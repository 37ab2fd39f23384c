package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
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
		Description: "Makes the registration token on the stamp (--pep), or reads the file that Get-AzsRegistrationToken wrote, in any encoding of PowerShell (--token-file). " +
			"Checks that it is whole and seals it for the paired relay together with what the answer must name. The request can be used once. " +
			"An earlier request for the same stamp is superseded.",
		Flags: append(append(append([]cli.Flag{
			&cli.StringFlag{Name: "token-file", Usage: "registration token `FILE` of the official cmdlet"},
			&cli.StringFlag{Name: "cloud-id", Usage: "cloud `ID` of the stamp, for a token that does not tell it"},
			&cli.StringFlag{Name: "plain-out", Usage: "also write the plain token, as the official cmdlets read it, to `FILE`"},
		}, tokenFlags()...), requestFlags()...), pepFlags()...),
		Action: appkit.Run(runToken),
	}, appkit.Help{
		Examples: []string{
			p.Name + ` token --pep 192.0.2.1,192.0.2.2 --pep-user 'AZURESTACK\CloudAdmin' --billing-model Capacity --agreement-number 1234567 --put /media/stick`,
			p.Name + " token --token-file RegistrationToken.txt --expect-subscription 11111111-2222-3333-4444-555555555555 --put /media/stick",
			p.Name + " token --token-file RegistrationToken.txt --with-card --out request.azc",
			p.Name + " token --token-file RegistrationToken.txt --show",
		},
		Exit: append([]fault.Kind{fault.Expired}, pepExits...),
	})
}

// tokenFlags say what a token is made with.
func tokenFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "billing-model", Usage: "one of `Capacity|Custom|Development`; a token file must agree"},
		&cli.StringFlag{Name: "agreement-number", Usage: "Enterprise Agreement `NUMBER`; a token file must agree"},
		&cli.StringFlag{Name: "usage-reporting", Usage: "`true|false`; a token file must agree"},
		&cli.StringFlag{Name: "ms-asset-tag", Usage: "asset `TAG`, for billing model Custom"},
		&cli.StringFlag{Name: "token-version", Usage: "`auto|3.0|4.0|6.0`; auto is what the official module asks for"},
	}
}

// requestFlags say what the answer must name and where the request goes.
func requestFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "registration-name", Usage: "`NAME` that the registration must get (default: AzureStack-<cloud id>)"},
		&cli.StringFlag{Name: "expect-subscription", Usage: "subscription `ID` that the answer must name"},
		&cli.StringFlag{Name: "expect-group", Usage: "resource `GROUP` that the answer must name (default: azurestack)"},
		&cli.StringFlag{Name: "note", Usage: "a line for the relay's operator; travels encrypted"},
		&cli.BoolFlag{Name: "with-card", Usage: "put this side's card into the request, for a relay that does not have it yet"},
		&cli.StringFlag{Name: "relay", Usage: "`LABEL` of the relay, when more than one is paired"},
		&cli.DurationFlag{Name: "valid", Usage: "how long the answer is waited for, by this clock", Value: defaultValid},
		&cli.StringFlag{Name: "out", Usage: "write the request to `FILE`, or to standard output with -"},
		&cli.StringFlag{Name: "put", Usage: "write the request to the stick or folder `DIR`"},
		appkit.ShowFlag(), acceptClock,
	}
}

func runToken(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	file, far := c.String("token-file"), c.String("pep")
	switch {
	case file == "" && far == "":
		return fault.New(fault.Usage, "token needs the privileged endpoint or a file of Get-AzsRegistrationToken").Hint("azs-agent token --token-file RegistrationToken.txt")
	case file != "" && far != "" && far != os.Getenv("AZS_PEP"):
		return fault.New(fault.Usage, "--token-file and --pep contradict each other")
	}
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	o, err := requestOrder(c)
	if err != nil {
		return err
	}
	if file == "" {
		// Before the password is asked for and a session is opened.
		if err := tokenParameters(c, o).Validate(); err != nil {
			return err
		}
		return seal(ctx, e, c, func(a *flow.Agent, far *flow.Endpoint, o flow.TokenOrder) (*flow.Request, error) {
			return a.Token(ctx, far, o)
		})
	}
	s, agent, err := open(ctx, e, c)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := agent.Token(ctx, flow.TokenFile(file), o)
	if err != nil {
		return err
	}
	return deliver(e, c, s, agent, r)
}

// deliver writes a sealed request to where it was asked for and reports it.
func deliver(e *appkit.Env, c *cli.Context, s *appkit.Station, agent *flow.Agent, r *flow.Request) error {
	for _, w := range r.Warnings {
		e.Console.Warn("%s", w)
	}
	tokenLength := 0
	if r.Token != nil {
		tokenLength = r.Token.Text.Len()
		e.Console.Say("token: %s", r.Token.Describe())
	}
	for _, id := range r.Superseded {
		e.Console.Say("request %s for the same stamp is superseded", id)
	}
	if plain := c.String("plain-out"); plain != "" && r.Token != nil {
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
	if c.Bool("show") {
		e.ShowLater(r.Bundle, s.Path(r.File))
	}
	result := map[string]any{
		"trip": r.Trip, "digest": r.Bundle.Digest().String(), "seq": r.Manifest.Seq, "relay": r.Relay, "file": s.Path(r.File), "places": appkit.List(places),
		"cloudId": r.Content.CloudID, "registration": r.Content.ExpectRegistration, "resourceGroup": r.Content.ExpectResourceGroup,
		"subscription": r.Content.ExpectSubscription, "created": clock.Format(r.Manifest.Created), "expires": clock.Format(r.Manifest.Expires),
		"operation": r.Content.Operation, "tokenBytes": tokenLength, "textBytes": len(r.Bundle.Text()), "wireBytes": len(r.Bundle.Wire()), "superseded": appkit.List(r.Superseded), "warnings": appkit.List(r.Warnings),
	}
	talk := func(w io.Writer) {
		fmt.Fprintf(w, "request %s for relay %q\n  stamp         %q, registration %q\n  token         %d characters, in %d bytes of text or %d in wire form\n  digest        %s\n  answer until  %s by this clock\n",
			r.Trip, r.Relay, r.Content.CloudID, r.Content.ExpectRegistration, tokenLength, len(r.Bundle.Text()), len(r.Bundle.Wire()), r.Bundle.Digest(), clock.Format(r.Manifest.Expires))
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

// requestOrder reads the flags of a request; those of a token may be missing.
func requestOrder(c *cli.Context) (flow.TokenOrder, error) {
	o := flow.TokenOrder{
		Relay: c.String("relay"), CloudID: c.String("cloud-id"), BillingModel: c.String("billing-model"), AgreementNumber: strings.TrimSpace(c.String("agreement-number")),
		MsAssetTag: c.String("ms-asset-tag"), Registration: c.String("registration-name"),
		ResourceGroup: c.String("expect-group"), ExpectSubscription: c.String("expect-subscription"), Note: c.String("note"),
		WithCard: c.Bool("with-card"), Valid: c.Duration("valid"),
	}
	if o.Valid < time.Hour || o.Valid > 366*24*time.Hour {
		return o, fault.New(fault.Usage, "--valid is %s, want an hour to a year", o.Valid)
	}
	switch v := c.String("token-version"); v {
	case "", "auto":
	case "3.0", "4.0", "6.0":
		o.TokenVersion = v
	default:
		return o, fault.New(fault.Usage, "--token-version is %q, want auto, 3.0, 4.0 or 6.0", v)
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
