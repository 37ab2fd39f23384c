package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func moveVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "move", Usage: "move a registration to another resource group or subscription",
		Description: "Asks Azure whether the move is allowed, takes the lock off, moves, and locks the registration where it is then. " +
			"It is locked in every outcome, also when the move fails or is stopped; a run that was killed is finished, and locked, by the same command. " +
			"The stamp still holds a key that names the old place: it needs a new one. " +
			"Registrations move between subscriptions of the Cloud Solution Provider programme and of one partner only. " +
			"--dry-run prints the plan as a numbered list, and changes nothing.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription that holds the registration", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the registration"},
			&cli.StringFlag{Name: "group", Usage: "resource `GROUP` that holds it", DefaultText: "azurestack"},
			&cli.StringFlag{Name: "to-group", Usage: "resource `GROUP` that it moves into, which must exist"},
			&cli.StringFlag{Name: "to-subscription", Usage: "`ID` or name of the subscription that it moves into (default: the same)"},
			&cli.BoolFlag{Name: "no-lock", Usage: "do not lock the registration after the move"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print the exact requests, send none"},
			acceptClock,
		}, azureFlags()...),
		Action: appkit.Run(runMove),
	}, appkit.Help{
		Examples: []string{
			p.Name + " move --name AzureStack-north --subscription Production --to-group stamps --dry-run",
			p.Name + " move --name AzureStack-north --subscription Production --to-group stamps --to-subscription Partner",
		},
		Exit: append([]fault.Kind{fault.Approval}, changeExits...),
	})
}

func runMove(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	r := &registering{verb: "move", env: e, c: c, order: flow.Order{
		Subscription: c.String("subscription"), Name: c.String("name"), Group: c.String("group"), NoLock: c.Bool("no-lock")}}
	if err := r.open(); err != nil {
		return err
	}
	defer r.station.Close()
	j, err := r.relay.Move(r.order, flow.Target{Group: c.String("to-group"), Subscription: c.String("to-subscription")})
	if err != nil {
		return err
	}
	if err := r.azure(ctx); err != nil {
		return err
	}
	var plan *flow.Plan
	out, err := (*flow.Outcome)(nil), error(nil)
	if c.Bool("dry-run") {
		plan, err = r.relay.Plan(ctx, j, r.order)
	} else {
		out, err = r.relay.Handle(ctx, j, r.order, func(p *flow.Plan) error {
			plan = p
			for _, w := range p.Warnings {
				e.Console.Warn("%s", w)
			}
			r.show(p)
			return r.confirm(p)
		})
	}
	if err != nil {
		return err
	}
	result := map[string]any{"dryRun": out == nil, "from": plan.ID.String(), "to": plan.To.String(), "cloudId": j.Ask.CloudID, "notes": appkit.List(plan.Notes), "warnings": appkit.List(plan.Warnings)}
	if out == nil {
		result["plan"] = plan.Steps
	} else {
		result["locked"], result["newKeyNeeded"] = !r.order.NoLock && out.Unlocked == nil, true
	}
	e.Console.Result("move", result, func(w io.Writer) {
		if out == nil {
			_ = plan.Print(w) // a lost standard output is reported by the console
			return
		}
		fmt.Fprintf(w, "moved %s\n  to           %s\n  locked       %v\n  new key      the stamp needs one: azs-agent token … --expect-group %s, or azs-relay key --name %s --key-out FILE\n",
			plan.ID, plan.To, result["locked"], plan.To.Group().Name(), plan.To.Name())
	})
	if out == nil || out.Unlocked == nil {
		return nil
	}
	return fault.New(fault.Partial, "%s is moved, but it is not locked against deletion: %w", out.ID, out.Unlocked).
		Hint("the same command again locks it, once the right is there")
}
