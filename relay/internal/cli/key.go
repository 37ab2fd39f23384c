package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
)

func keyVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "key", Usage: "fetch the activation key of a registration again",
		Description: "Fetches the key and seals it to the agent whose request the registration was made for, as an answer to that request; " +
			"the key that the agent was given already gives the same answer bundle. After its receipt came the agent takes no second answer: " +
			"it has to make a new request. --key-out writes the plain key to a file instead, for the official scripts. " +
			"Without --name it is that of the only stamp that this relay registered.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the registration"},
			&cli.StringFlag{Name: "group", Usage: "resource `GROUP` (default: where this relay put it, else azurestack)"},
			&cli.StringFlag{Name: "key-out", Usage: "write the plain activation key to `FILE`, and seal nothing"},
			&cli.StringFlag{Name: "out", Usage: "write the answer to `FILE`, or to standard output with -"},
			&cli.StringFlag{Name: "put", Usage: "write the answer to the stick or folder `DIR`"},
			appkit.ShowFlag(), acceptClock,
		}, azureFlags()...),
		Action: appkit.Run(runKey),
	}, appkit.Help{
		Examples: []string{p.Name + " key --put /media/stick", p.Name + " key --name AzureStack-north --subscription Production --key-out ActivationKey.txt"},
		Exit:     changeExits,
	})
}

func runKey(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	file := c.String("key-out")
	if file != "" && (c.String("out") != "" || c.String("put") != "" || c.Bool("show")) {
		return fault.New(fault.Usage, "--key-out writes a plain key, and --out, --put and --show are for a sealed one: give one kind")
	}
	if c.Bool("show") {
		if err := e.CheckShow(); err != nil {
			return err
		}
	}
	r := &registering{verb: "key", env: e, c: c, order: flow.Order{Subscription: c.String("subscription"), Name: c.String("name"), Group: c.String("group")}}
	if err := r.open(); err != nil {
		return err
	}
	defer r.station.Close()
	var err error
	if file == "" { // who cannot open the answers need not ask for a key
		if r.relay.Identity, err = r.station.Unlock(ctx); err != nil {
			return err
		}
	}
	if err := r.azure(ctx); err != nil {
		return err
	}
	id, err := r.whose(ctx)
	if err != nil {
		return err
	}
	e.Console.Say("fetch the activation key of %s", id)
	key, err := r.relay.PlainKey(ctx, id)
	if err != nil {
		return err
	}
	if err := key.Check(official.Want{RegistrationName: id.Name(), ResourceGroup: id.Group().Name(), SubscriptionID: id.Subscription().String()}, e.Clock.Now()); err != nil {
		return err
	}
	for _, w := range key.Warnings {
		e.Console.Warn("%s", w)
	}
	out, res := &flow.Outcome{ID: id, Key: key}, result{Operation: "key", Registration: id.String(), CloudID: key.Claims.CloudID, KeyExpires: key.Claims.ExpiresText}
	if file != "" {
		if t, ok := r.relay.TripOf(id); ok {
			out.Trip = t.ID
			if err := r.relay.NoteKey(t.ID, key); err != nil {
				return err
			}
		}
		if err := r.plainKey(ctx, &flow.Plan{ID: id}, out, &res); err != nil {
			return err
		}
	} else if out, err = r.relay.SealKey(ctx, id, key); err != nil {
		return err
	} else {
		t, _ := r.station.Ledger.Trip(out.Trip)
		res.Trip, res.Again, res.Locked, res.Agent = out.Trip, out.Again, t.Data["locked"] == "true", t.Data["agent"]
		if err := r.deliver(out, &res); err != nil {
			return err
		}
	}
	r.results = append(r.results, res)
	r.report()
	return nil
}

// whose finds the registration, and asks Azure for the id of a subscription that
// is given by its name.
func (r *registering) whose(ctx context.Context) (azure.RegistrationID, error) {
	if s := r.order.Subscription; s != "" {
		sub, err := azure.ParseSubscriptionID(s)
		if err != nil {
			found, err := r.relay.Azure.Subscription(ctx, s)
			if err != nil {
				return azure.RegistrationID{}, err
			}
			sub = found.ID
		}
		r.order.Subscription = sub.String()
	}
	return r.relay.Whose(r.order)
}
