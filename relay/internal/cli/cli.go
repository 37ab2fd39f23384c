// Package cli is the command line of azs-relay, one file a verb.
package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// Main runs azs-relay with the words behind the program's name and returns the
// exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return appkit.Main(program(), args, stdin, stdout, stderr)
}

func program() appkit.Program {
	p := appkit.Program{
		Name: "azs-relay", Role: bundle.RoleRelay, Shared: shared,
		Usage: "the internet half of the courier for disconnected Azure Stack Hub registrations",
		Description: "Registers the token that a request carries with Azure Resource Manager, fetches the activation key and seals " +
			"it for the agent. The same request always gives the same answer.",
	}
	p.Verbs = append([]*cli.Command{registerVerb(p), unregisterVerb(p), moveVerb(p), keyVerb(p), listVerb(p), stampsVerb(p), batchVerb(p), roleVerb(p), preflightVerb(p), doctorVerb(p), loginVerb(p), logoutVerb(p), subscriptionsVerb(p)}, appkit.CommonVerbs(p, side())...)
	return p
}

var acceptClock = &cli.BoolFlag{Name: "accept-clock", Usage: "the clock went back and is right now; writes that into the journal"}

func side() appkit.Side {
	return appkit.Side{
		Takes: []bundle.Kind{bundle.KindRequest, bundle.KindReceipt},
		Usable: func(s *appkit.Station, v *bundle.Verified, b *bundle.Bundle) error {
			return nil // whether a request was replaced, its inside decides
		},
		Took: took,
		Next: next,
		Fresh: func(s *appkit.Station, t appkit.Taken) (appkit.Advice, bool) {
			_, known := s.Ledger.Trip(t.Manifest.Bundle.String())
			return appkit.Advice{Trip: t.Manifest.Bundle.String(), Why: fmt.Sprintf("request %s came and nothing was done for it yet", t.Manifest.Bundle),
				Command: "azs-relay register " + t.Path}, t.Manifest.Kind == bundle.KindRequest && !known && s.Env.Clock.Now().Before(t.Manifest.Expires)
		},
		Idle: "azs-relay take STICK",
		Warn: warnings,
		Line: func(_ *ledger.Ledger, t ledger.Trip) string {
			line := fmt.Sprintf("agent %q, stamp %q", t.Data["agent"], t.Data["cloud-id"])
			if op := t.Data["operation"]; op != "" && op != bundle.Register {
				line = op + " of " + line
			}
			if id := t.Data["registration-id"]; id != "" {
				line += ", " + id
			}
			if at := t.Data["key-expires"]; at != "" {
				line += fmt.Sprintf(", key expires %q", at)
			}
			if t.Data["locked"] == "false" {
				line += ", NOT LOCKED"
			}
			return line
		},
	}
}

// took closes the trip of a receipt; a request waits for the operator's order.
func took(ctx context.Context, s *appkit.Station, v *bundle.Verified, b *bundle.Bundle, path string) (string, error) {
	if t, ok := s.Ledger.FindByDigest(b.Digest().String()); ok && (t.State == ledger.Answered || t.State == ledger.Closed) {
		s.Env.Console.Say("request %s was answered already and is %s", t.ID, t.State)
		return "", nil
	}
	if v.Manifest.Kind == bundle.KindRequest {
		return fmt.Sprintf("azs-relay register %s   # or unregister, where azs-agent deactivate made it", path), nil
	}
	id, err := s.Unlock(ctx)
	if err != nil {
		return "", err
	}
	r := &flow.Relay{Ledger: s.Ledger, Identity: id, Peers: s.Peers, Policy: s.Policy, Clock: s.Env.Clock}
	trip, receipt, err := r.Close(b.Text())
	if err != nil {
		return "", err
	}
	s.Env.Console.Say("the answer to request %s was used (%s): the trip is closed", trip.ID, receipt.Outcome)
	return "", nil
}

// next says what a trip waits for.
func next(s *appkit.Station, t ledger.Trip) (appkit.Advice, bool) {
	request := s.KeptAs(bundle.KindRequest, t.ID)
	switch {
	case t.State == ledger.Moving:
		return appkit.Advice{Why: fmt.Sprintf("the move of %s to %s was begun and is not finished: the registration may have no lock", t.Data["registration-id"], t.Data["move-to"]),
			Command: moveCommand(t.Data["registration-id"], t.Data["move-to"])}, true
	case t.Data["operation"] == bundle.Unregister && (t.State == ledger.Seen || t.State == ledger.Admitted || t.State == ledger.Removed):
		if t.Data["agent"] == "" {
			return appkit.Advice{Why: fmt.Sprintf("the removal of %s was begun and is not finished", t.Data["registration-id"]), Command: removeCommand(t.Data["registration-id"])}, true
		}
		return appkit.Advice{Why: fmt.Sprintf("request %s of agent %q is %s and not answered", t.ID, t.Data["agent"], t.State), Command: "azs-relay unregister " + request}, true
	case t.State == ledger.Seen || t.State == ledger.Admitted || t.State == ledger.Removed || t.State == ledger.Registered:
		return appkit.Advice{Why: fmt.Sprintf("request %s of agent %q is %s and not answered", t.ID, t.Data["agent"], t.State),
			Command: "azs-relay register " + request + in(t)}, true
	case t.Data["locked"] == "false" && t.State == ledger.Answered && t.Data["answer-file"] != "":
		return appkit.Advice{Why: fmt.Sprintf("registration %s has no lock: %s", t.Data["registration-id"], t.Data["reason"]),
			Command: "azs-relay register " + request + in(t)}, true
	case t.State == ledger.Answered && t.Data["answer-file"] != "" && t.Data["to"] == "":
		return appkit.Advice{Why: fmt.Sprintf("the answer to request %s is sealed and has not left yet", t.ID),
			Command: fmt.Sprintf("azs-relay put %s STICK", s.Path(t.Data["answer-file"]))}, true
	case t.State == ledger.Answered && t.Data["answer-file"] != "":
		return appkit.Advice{Why: fmt.Sprintf("the answer to request %s is on its way: its receipt closes the trip", t.ID)}, true
	}
	return appkit.Advice{}, false
}

// in names the subscription, where an earlier run settled it; else the request or the
// environment does.
func in(t ledger.Trip) string {
	if sub := t.Data["subscription"]; sub != "" {
		return " --subscription " + sub
	}
	return ""
}

// moveCommand is the command that ends a move.
func moveCommand(from, to string) string {
	a, aerr := azure.ParseRegistrationID(from)
	b, berr := azure.ParseRegistrationID(to)
	if aerr != nil || berr != nil {
		return "azs-relay move …"
	}
	return fmt.Sprintf("azs-relay move --name %q --group %q --subscription %s --to-group %q --to-subscription %s",
		a.Name(), a.Group().Name(), a.Subscription(), b.Group().Name(), b.Subscription())
}

// removeCommand is the command that ends a removal that no request asks for.
func removeCommand(id string) string {
	r, err := azure.ParseRegistrationID(id)
	if err != nil {
		return "azs-relay unregister … --force"
	}
	return fmt.Sprintf("azs-relay unregister --name %q --group %q --subscription %s --force", r.Name(), r.Group().Name(), r.Subscription())
}

// partial turns an outcome that lacks its lock into the failure of the run.
func partial(out *flow.Outcome) error {
	if out.Unlocked == nil {
		return nil
	}
	return fault.New(fault.Partial, "%s is registered and its key is fetched, but it is not locked against deletion: %w", out.ID, out.Unlocked).
		Hint("run the same command again once the right is there; or set the lock in the portal")
}
