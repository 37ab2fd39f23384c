package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/appkit"
)

func doctorVerb(p appkit.Program) *cli.Command {
	return appkit.DoctorVerb(p, "check keys, journal, clock, stick and the reach into Azure",
		"With --subscription it signs in and makes the checks of preflight.",
		"--subscription Production --group azurestack", preflightFlags(), azureFaults, reach)
}

// reach makes the checks of preflight.
func reach(ctx context.Context, e *appkit.Env, c *cli.Context, u *appkit.Checkup) {
	if c.String("subscription") == "" {
		return
	}
	var client *azure.Client
	u.Look("sign-in", func() (detail string, err error) {
		if client, err = connect(ctx, e, c); err != nil {
			return "", err
		}
		who, err := client.WhoAmI(ctx)
		return fmt.Sprintf("%s in %s, tenant %s", nameOf(who), client.Cloud().Name, who.Tenant), err
	})
	if client == nil {
		return
	}
	u.Look("rights", func() (string, error) {
		found, err := examine(ctx, e, c, client)
		return fmt.Sprintf("%d of %d are held in group %q of subscription %q", len(found.Held), len(found.Held)+len(found.Missing), found.Group, found.Subscription.Name), err
	})
}
