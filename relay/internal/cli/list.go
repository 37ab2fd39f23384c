package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func listVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "list", Usage: "list the registrations in a subscription",
		Description: "Reads every page of the registrations that Azure holds, and the locks that act on them. Nothing is changed, and no state folder is needed.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.BoolFlag{Name: "no-locks", Usage: "do not read the locks"},
		}, azureFlags()...),
		Action: appkit.Run(runList),
	}, appkit.Help{
		Examples: []string{p.Name + " list --subscription Production", p.Name + " list --subscription Production --json"},
		Exit:     []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Medium, fault.Permanent, fault.Unreachable},
	})
}

// listed is a registration as list tells it.
type listed struct {
	Registration string   `json:"registrationId"`
	Name         string   `json:"name"`
	Group        string   `json:"resourceGroup"`
	CloudID      string   `json:"cloudId"`
	BillingModel string   `json:"billingModel"`
	Locks        []string `json:"locks,omitempty"` // levels of the locks that act on it
	Locked       *bool    `json:"locked,omitempty"`
}

func runList(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	if c.String("subscription") == "" {
		return fault.New(fault.Usage, "list needs a subscription").Hint("azs-relay list --subscription SUBSCRIPTION")
	}
	client, err := connect(ctx, e, c)
	if err != nil {
		return err
	}
	sub, err := client.Subscription(ctx, c.String("subscription"))
	if err != nil {
		return err
	}
	regs, err := client.Registrations(ctx, sub.ID)
	if err != nil {
		return err
	}
	all := []listed{}
	for _, r := range regs {
		all = append(all, listed{Registration: r.ID.String(), Name: r.ID.Name(), Group: r.ID.Group().Name(), CloudID: r.CloudID, BillingModel: r.BillingModel})
	}
	if !c.Bool("no-locks") {
		locks, err := client.Locks(ctx, sub.ID) // one list for all of them
		if err != nil {
			return err
		}
		for i, r := range regs {
			for _, l := range locks {
				if l.On(r.ID) {
					all[i].Locks = append(all[i].Locks, l.Level)
				}
			}
			locked := len(all[i].Locks) > 0
			all[i].Locked = &locked
		}
	}
	e.Console.Result("list", map[string]any{"subscription": sub.ID, "subscriptionName": sub.Name, "registrations": all}, func(w io.Writer) {
		fmt.Fprintf(w, "%d registrations in subscription %s (%q)\n", len(all), sub.ID, sub.Name)
		for _, r := range all {
			lock := ""
			if r.Locked != nil {
				lock = "NOT LOCKED"
				if *r.Locked {
					lock = fmt.Sprint(r.Locks)
				}
			}
			fmt.Fprintf(w, "%s  group %s  cloud id %q  %s  %s\n", r.Name, r.Group, r.CloudID, r.BillingModel, lock)
		}
	})
	return nil
}
