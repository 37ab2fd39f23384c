package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

func stampsVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "stamps", Usage: "list the stamps that this relay registered, and when their keys end",
		Description: "Reads the journal: every stamp that was registered here and not removed since, with the expiry that its last key tells and the days left by this clock. Azure is not asked.",
		Action:      appkit.Run(runStamps),
	}, appkit.Help{Examples: []string{p.Name + " stamps", p.Name + " stamps --json"}, Exit: []fault.Kind{fault.Refused, fault.Medium, fault.Locked}})
}

// stamp is what stamps tells of one.
type stamp struct {
	flow.Stamp
	DaysLeft *int   `json:"daysLeft"` // null when the expiry is not known
	Warning  string `json:"warning,omitempty"`
}

func runStamps(_ context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	defer s.Close()
	now := e.Clock.Now()
	all := []stamp{}
	for _, k := range flow.Stamps(s.Ledger) {
		x := stamp{Stamp: k, Warning: k.Warning(now)}
		if days, ok := k.DaysLeft(now); ok {
			x.DaysLeft = &days
		}
		all = append(all, x)
	}
	e.Console.Result("stamps", map[string]any{"stamps": all}, func(w io.Writer) {
		if len(all) == 0 {
			fmt.Fprintln(w, "no stamp is registered by this relay")
		}
		for _, x := range all {
			left := "no expiry known"
			if x.DaysLeft != nil {
				left = fmt.Sprintf("key ends %s, %d days left", x.KeyExpires, *x.DaysLeft)
			}
			fmt.Fprintf(w, "%s  agent %q  %s\n  %s\n", x.CloudID, x.Agent, x.RegistrationID, left)
		}
	})
	for _, x := range all {
		if x.Warning != "" {
			e.Console.Warn("%s", x.Warning)
		}
	}
	return nil
}

// warnings are what status says of keys that end soon.
func warnings(l *ledger.Ledger, now time.Time) (all []string) {
	for _, s := range flow.Stamps(l) {
		if w := s.Warning(now); w != "" {
			all = append(all, w)
		}
	}
	return all
}
