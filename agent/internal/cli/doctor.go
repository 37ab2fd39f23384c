package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func doctorVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "doctor", Usage: "check keys, journal, clock and the privileged endpoint",
		Description: "Looks at what the next trip needs and changes nothing. With --pep it opens a session on the endpoint and asks the stamp who it is. " +
			"The exit code is that of the first check that failed.",
		Flags:  pepFlags(),
		Action: appkit.Run(runDoctor),
	}, appkit.Help{
		Examples: []string{p.Name + " doctor", p.Name + ` doctor --pep 192.0.2.1,192.0.2.2 --pep-user 'AZURESTACK\CloudAdmin'`},
		Exit:     append([]fault.Kind{fault.Expired}, pepExits...),
	})
}

// check is one thing that the doctor looked at.
type check struct {
	Name   string `json:"name"`
	Good   bool   `json:"good"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

func runDoctor(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	var checks []check
	var first error
	look := func(name string, f func() (string, error)) {
		detail, err := f()
		if err != nil {
			checks = append(checks, check{name, false, err.Error(), fault.HintOf(err)})
			if first == nil {
				first = err
			}
			return
		}
		checks = append(checks, check{Name: name, Good: true, Detail: detail})
	}
	var s *appkit.Station
	look("state", func() (detail string, err error) {
		if s, err = e.Reading(); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %q in %s, journal of %d lines is whole", s.Card.Role, s.Card.Label, e.Home, len(s.Ledger.Entries())), nil
	})
	if s != nil {
		look("keys", func() (string, error) {
			if !s.Store.Protected() {
				return "in clear: who copies the folder can act as this side", nil
			}
			return "under a passphrase", nil
		})
		look("clock", func() (string, error) {
			return clock.Format(e.Clock.Now()), s.Ledger.CheckClock(false)
		})
		look("relay", func() (string, error) {
			if len(s.Peers) == 0 {
				return "", fault.New(fault.NothingYet, "no relay is paired yet").Hint("azs-agent pair RELAY-CARD.azc")
			}
			return fmt.Sprintf("%d paired", len(s.Peers)), nil
		})
	}
	if c.String("pep") != "" {
		look("endpoint", func() (string, error) {
			far, err := endpoint(e, c)
			if err != nil {
				return "", err
			}
			defer far.Close(ctx)
			_, st, err := far.Session(ctx)
			return fmt.Sprintf("stamp %q, version %s, %d nodes", st.CloudID, st.Version, st.Nodes), err
		})
	}
	e.Console.Result("doctor", map[string]any{"checks": checks}, func(w io.Writer) {
		for _, k := range checks {
			verdict := "good"
			if !k.Good {
				verdict = "BAD"
			}
			fmt.Fprintf(w, "%-4s  %-9s %s\n", verdict, k.Name, k.Detail)
		}
	})
	return first
}
