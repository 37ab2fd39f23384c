package appkit

import (
	"bytes"
	"context"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
)

func evidenceVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "evidence", Usage: "show what can be proved about a trip", ArgsUsage: "TRIP",
		Description: "Prints who did what, when and by whose clock, with the words, digests, signatures and journal lines of the trip " +
			"and how to check them with standard tools; --out also writes one page of HTML for the security officer, to be printed. " +
			"Bundles are checked again but not opened. No key is asked for, nothing is changed, and no secret is in it. " +
			"TRIP is as status prints it.",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "out", Usage: "write the page to `FILE`, such as evidence.html"}},
		Action: Run(runEvidence),
	}, Help{Examples: []string{p.Name + " evidence 7Q2MKX4R9D3T0V6PB8W5YHNC1G", p.Name + " evidence 7Q2MKX4R9D3T0V6PB8W5YHNC1G --out evidence.html"},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.Medium, fault.Locked}})
}

func runEvidence(_ context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "TRIP")
	if err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	t, ok := s.Ledger.Trip(args[0])
	if !ok {
		return fault.New(fault.Usage, "the journal knows no trip %q", args[0]).Hint("%s status", e.Program)
	}
	ev, err := s.evidenceOf(t)
	if err != nil {
		return err
	}
	if out := c.String("out"); out != "" {
		var page bytes.Buffer
		if err := ev.html(&page); err != nil {
			return err
		}
		if err := medium.Save(out, page.Bytes(), false); err != nil {
			return err
		}
		e.Console.Say("page written to %s: print it, or keep it with its SHA-256", out)
	}
	e.Console.Result("evidence", ev, ev.text)
	return nil
}
