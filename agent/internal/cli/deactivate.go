package cli

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/agent/internal/pep"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func deactivateVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "deactivate", Usage: "remove the stamp's activation and ask the relay to delete the registration",
		Description: "Runs Remove-AzureStackActivation on the privileged endpoint and seals the request that lets the relay delete the registration. " +
			"Subscription, group and name are those of the last registration.",
		Flags:  append(requestFlags(), pepFlags()...),
		Action: appkit.Run(runDeactivate),
	}, appkit.Help{
		Examples: []string{p.Name + ` deactivate --pep 192.0.2.1 --pep-user 'AZURESTACK\CloudAdmin' --put /media/stick`},
		Exit:     append([]fault.Kind{fault.Expired}, pepExits...),
	})
}

func renewVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "renew", Usage: "remove the activation and make a new token, in one request",
		Description: "For the yearly renewal, a changed number of nodes or another billing model: runs Remove-AzureStackActivation and New-RegistrationToken " +
			"and seals both into one request. Values that are not given are those of the last registration.",
		Flags:  append(append(tokenFlags(), requestFlags()...), pepFlags()...),
		Action: appkit.Run(runRenew),
	}, appkit.Help{
		Examples: []string{p.Name + ` renew --pep 192.0.2.1 --pep-user 'AZURESTACK\CloudAdmin' --put /media/stick`},
		Exit:     append([]fault.Kind{fault.Expired}, pepExits...),
	})
}

func runDeactivate(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	return seal(ctx, e, c, func(a *flow.Agent, far *flow.Endpoint, o flow.TokenOrder) (*flow.Request, error) {
		return a.Deactivate(ctx, far, o)
	})
}

func runRenew(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	return seal(ctx, e, c, func(a *flow.Agent, far *flow.Endpoint, o flow.TokenOrder) (*flow.Request, error) {
		return a.Renew(ctx, far, o)
	})
}

// seal is the frame of the verbs that make a request from the endpoint.
func seal(ctx context.Context, e *appkit.Env, c *cli.Context, f func(*flow.Agent, *flow.Endpoint, flow.TokenOrder) (*flow.Request, error)) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	o, err := requestOrder(c)
	if err != nil {
		return err
	}
	s, agent, err := open(ctx, e, c)
	if err != nil {
		return err
	}
	defer s.Close()
	far, err := endpoint(e, c)
	if err != nil {
		return err
	}
	defer far.Close(ctx)
	far.Parameters = tokenParameters(c, o)
	r, err := f(agent, far, o)
	if err != nil {
		return err
	}
	return deliver(e, c, s, agent, r)
}

// tokenParameters are what New-RegistrationToken is asked with.
func tokenParameters(c *cli.Context, o flow.TokenOrder) pep.TokenParameters {
	p := pep.TokenParameters{BillingModel: o.BillingModel, AgreementNumber: o.AgreementNumber, MsAssetTag: o.MsAssetTag, TokenVersion: c.String("token-version")}
	if o.UsageReporting != nil {
		p.UsageReporting = *o.UsageReporting
	}
	return p
}

const defaultValid = 14 * 24 * time.Hour
