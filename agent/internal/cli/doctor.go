package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/appkit"
)

func doctorVerb(p appkit.Program) *cli.Command {
	return appkit.DoctorVerb(p, "check keys, journal, clock, stick and the privileged endpoint",
		"With --pep it opens a session on the endpoint and asks the stamp who it is.",
		`--pep 192.0.2.1,192.0.2.2 --pep-user 'AZURESTACK\CloudAdmin'`, pepFlags(), pepExits, reach)
}

// reach asks the stamp who it is.
func reach(ctx context.Context, e *appkit.Env, c *cli.Context, u *appkit.Checkup) {
	if c.String("pep") == "" {
		return
	}
	u.Look("endpoint", func() (string, error) {
		far, err := endpoint(e, c)
		if err != nil {
			return "", err
		}
		defer far.Close(ctx)
		_, st, err := far.Session(ctx)
		return fmt.Sprintf("stamp %q, version %s, %d nodes", st.CloudID, st.Version, st.Nodes), err
	})
}
