package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func requestsVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "requests", Usage: "list the requests that wait for an answer",
		Description: "Lists the pending requests, oldest first.",
		Action:      appkit.Run(runRequests),
	}, appkit.Help{Examples: []string{p.Name + " requests"}, Exit: []fault.Kind{fault.Refused, fault.Medium, fault.Locked}})
}

func runRequests(_ context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	pending := flow.Pending(s.Ledger)
	list := []map[string]string{}
	for _, t := range pending {
		list = append(list, map[string]string{"trip": t.ID, "state": t.State, "cloudId": t.Data["cloud-id"], "created": t.Data["created"], "expires": t.Data["expires"], "relay": t.Data["relay"]})
	}
	e.Console.Result("requests", map[string]any{"requests": list}, func(w io.Writer) {
		if len(pending) == 0 {
			fmt.Fprintln(w, "no request waits for an answer")
		}
		for _, t := range pending {
			fmt.Fprintln(w, flow.Describe(t))
		}
	})
	return nil
}

func cancelVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "cancel", Usage: "give a pending request up", ArgsUsage: "ID",
		Description: "An answer to the request is refused from now on, as after a lost stick. The first letters of the id are enough.",
		Action:      appkit.Run(runCancel),
	}, appkit.Help{Examples: []string{p.Name + " cancel 7Q2MKX"}, Exit: []fault.Kind{fault.Usage, fault.Replay, fault.Medium, fault.Locked}})
}

func runCancel(_ context.Context, e *appkit.Env, c *cli.Context) error {
	args, err := appkit.Args(c, "ID")
	if err != nil {
		return err
	}
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	t, err := flow.Cancel(s.Ledger, args[0])
	if err != nil {
		return err
	}
	e.Console.Result("cancelled", map[string]any{"trip": t.ID, "cloudId": t.Data["cloud-id"]}, func(w io.Writer) {
		fmt.Fprintf(w, "request %s for stamp %q is cancelled: its answer will be refused\n", t.ID, t.Data["cloud-id"])
	})
	return nil
}
