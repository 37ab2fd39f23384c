package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
)

// changeExits are the failures of every verb that changes something in Azure.
var changeExits = []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Expired, fault.Medium, fault.Locked, fault.Permanent, fault.Unreachable, fault.Partial}

func unregisterVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "unregister", Usage: "delete the registration of a stamp that its agent has deactivated", ArgsUsage: "[BUNDLE…]",
		Description: "Opens the request of azs-agent deactivate, finds the registration where the agent expects it, or else by its cloud id, " +
			"takes the lock off, deletes, looks until it is gone, and seals the answer. A registration that does not tell its cloud id is never taken for that of a stamp. " +
			"Without a request the registration is named by --name, by --cloud-id, or by the cloud id in a plain token (--token-file); " +
			"nothing then tells that the stamp is deactivated, so it needs --force. " +
			"--dry-run prints the plan as a numbered list, and changes nothing.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription (default: what the request expects)", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the registration (default: what the request expects)"},
			&cli.StringFlag{Name: "group", Usage: "resource `GROUP` (default: what the request expects, else azurestack)"},
			&cli.StringFlag{Name: "token-file", Usage: "plain registration token `FILE` whose cloud id names the registration"},
			&cli.StringFlag{Name: "cloud-id", Usage: "cloud `ID` of the stamp"},
			&cli.BoolFlag{Name: "force", Usage: "delete without the agent's word that the stamp is deactivated"},
			&cli.StringFlag{Name: "out", Usage: "write the answer to `FILE`, or to standard output with -"},
			&cli.StringFlag{Name: "put", Usage: "write the answers to the stick or folder `DIR`"},
			appkit.ShowFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "print the exact requests, send none that changes anything"},
			acceptClock,
		}, azureFlags()...),
		Action: appkit.Run(runUnregister),
	}, appkit.Help{
		Examples: []string{
			p.Name + " unregister deactivated.azc --put /media/stick",
			p.Name + " unregister --cloud-id 0d4bd0d2-7f5b-4a63-9f0b-2c1d8a1e7b11 --subscription Production --force --dry-run",
			p.Name + " unregister --name AzureStack-north --group azurestack --subscription Production --force",
			p.Name + " unregister --token-file RegistrationToken.txt --subscription Production --force",
		},
		Exit: append([]fault.Kind{fault.Approval}, changeExits...),
	})
}

func runUnregister(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c, "[BUNDLE…]"); err != nil {
		return err
	}
	if c.Bool("show") {
		if err := e.CheckShow(); err != nil {
			return err
		}
	}
	r := &registering{verb: "unregister", env: e, c: c,
		order: flow.Order{Subscription: c.String("subscription"), Name: c.String("name"), Group: c.String("group"), NoLock: true}}
	if c.NArg() > 0 {
		switch {
		case c.String("token-file") != "" || c.String("cloud-id") != "" || c.Bool("force"):
			return fault.New(fault.Usage, "a request contradicts --token-file, --cloud-id and --force: it names its stamp, and that it is deactivated")
		case c.NArg() > 1 && (c.String("out") != "" || c.String("name") != "" || c.Bool("show")):
			return fault.New(fault.Usage, "--out, --name and --show are for one request, %d were given", c.NArg()).Hint("azs-relay unregister … --put DIR")
		}
		return r.run(ctx)
	}
	sel, err := selection(c)
	if err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	defer r.station.Close()
	// The selection names the registration; the order only its place.
	r.order.Name = ""
	j, err := r.relay.Select(sel, r.order, c.Bool("force"))
	if err != nil {
		return err
	}
	res, err := r.one(ctx, work{"--force", j})
	if err == nil {
		r.results = append(r.results, res)
		r.report()
	}
	return err
}

// selection reads the flags that name a registration; they exclude each other.
func selection(c *cli.Context) (flow.Selection, error) {
	file, given := c.String("token-file"), 0
	for _, name := range []string{"name", "token-file", "cloud-id"} {
		if c.String(name) != "" {
			given++
		}
	}
	switch {
	case given == 0:
		return flow.Selection{}, fault.New(fault.Usage, "unregister needs a request, or --name, --cloud-id or --token-file").Hint("azs-relay unregister REQUEST")
	case given > 1:
		return flow.Selection{}, fault.New(fault.Usage, "--name, --cloud-id and --token-file each name a registration: give one of them")
	case c.String("subscription") == "":
		return flow.Selection{}, fault.New(fault.Usage, "without a request nothing says in which subscription the registration is").Hint("azs-relay unregister … --subscription SUBSCRIPTION")
	case c.String("out") != "" || c.String("put") != "":
		return flow.Selection{}, fault.New(fault.Usage, "without a request there is no agent to seal an answer for: --out and --put need one")
	case file == "":
		return flow.Selection{Name: c.String("name"), CloudID: c.String("cloud-id")}, nil
	}
	raw, err := medium.ReadText(file, official.MaxRaw)
	if err != nil {
		return flow.Selection{}, err
	}
	return flow.SelectToken(raw)
}
