// Package cli is the command line of azs-agent, one file a verb.
package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// Main runs azs-agent and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return appkit.Main(program(), args, stdin, stdout, stderr)
}

func program() appkit.Program {
	p := appkit.Program{
		Name: "azs-agent", Role: bundle.RoleAgent,
		Usage: "the inside half of the courier for disconnected Azure Stack Hub registrations",
		Description: "Seals the registration token of the stamp into a signed, encrypted, one-time request, and turns the relay's " +
			"answer back into the activation key, after checking it against the request.",
	}
	p.Verbs = append([]*cli.Command{infoVerb(p), tokenVerb(p), activateVerb(p), deactivateVerb(p), renewVerb(p), licenseVerb(p), doctorVerb(p), requestsVerb(p), cancelVerb(p)}, appkit.CommonVerbs(p, side())...)
	return p
}

var acceptClock = &cli.BoolFlag{Name: "accept-clock", Usage: "the clock went back and is right now; writes that into the journal"}

// open opens the state folder for writing and unlocks the identity.
func open(ctx context.Context, e *appkit.Env, c *cli.Context) (*appkit.Station, *flow.Agent, error) {
	if c.Bool("show") {
		if err := e.CheckShow(); err != nil {
			return nil, nil, err
		}
	}
	s, err := e.Station()
	if err != nil {
		return nil, nil, err
	}
	if err := s.Ledger.CheckClock(c.Bool(acceptClock.Name)); err != nil {
		s.Close()
		return nil, nil, err
	}
	id, err := s.Unlock(ctx)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, &flow.Agent{Ledger: s.Ledger, Identity: id, Peers: s.Peers, Policy: s.Policy, Clock: e.Clock, Rand: appkit.Random}, nil
}

func side() appkit.Side {
	return appkit.Side{
		Takes: []bundle.Kind{bundle.KindAnswer},
		Usable: func(s *appkit.Station, v *bundle.Verified, b *bundle.Bundle) error {
			return flow.Usable(s.Ledger, v, b.Digest())
		},
		Took: func(_ context.Context, s *appkit.Station, v *bundle.Verified, _ *bundle.Bundle, path string) (string, error) {
			return use(s, v.Manifest, path), nil
		},
		Next: next,
		Fresh: func(s *appkit.Station, t appkit.Taken) (appkit.Advice, bool) {
			trip, ok := s.Ledger.FindByDigest(t.Manifest.Re.String())
			return appkit.Advice{Trip: trip.ID, Why: fmt.Sprintf("the answer to request %s is here and not used yet", trip.ID),
				Command: use(s, t.Manifest, t.Path)}, ok && flow.IsPending(trip)
		},
		Idle: "azs-agent token --token-file RegistrationToken.txt --put STICK",
		Line: func(l *ledger.Ledger, t ledger.Trip) string {
			line := fmt.Sprintf("stamp %q", t.Data["cloud-id"])
			if op := t.Data["operation"]; op != bundle.Register && op != "" {
				line = op + " of " + line
			}
			if at := t.Data["expires"]; flow.IsPending(t) {
				line += ", answer until " + at
			}
			if at := t.Data["key-expires"]; at != "" {
				line += fmt.Sprintf(", key %s, expires %q", t.Data["outcome"], at)
			}
			if grown := flow.Grown(l, t); grown != "" {
				line += ", " + grown
			}
			return line
		},
	}
}

// next says what a trip waits for.
func next(s *appkit.Station, t ledger.Trip) (appkit.Advice, bool) {
	answer := s.KeptAs(bundle.KindAnswer, t.Data["answer"])
	removal := t.Data["operation"] == bundle.Unregister
	switch t.State {
	case ledger.Requested:
		return appkit.Advice{Why: fmt.Sprintf("request %s for stamp %q is sealed and has not left yet", t.ID, t.Data["cloud-id"]),
			Command: fmt.Sprintf("azs-agent put %s STICK", s.Path(t.Data["file"]))}, true
	case ledger.Exported, ledger.Admitted:
		if removal {
			return appkit.Advice{Why: fmt.Sprintf("request %s is on its way: the relay removes the registration (azs-relay unregister), and its answer comes back to azs-agent take STICK", t.ID)}, true
		}
		return appkit.Advice{Why: fmt.Sprintf("request %s is on its way: the relay registers it, and its answer comes back to azs-agent take STICK", t.ID)}, true
	case ledger.Opened, ledger.Applied, ledger.Confirmed:
		if removal && t.Data["receipt"] == "" {
			return appkit.Advice{Why: fmt.Sprintf("answer %s was opened and its removal is not ended here yet", t.Data["answer"]), Command: "azs-agent activate " + answer}, true
		}
	}
	switch t.State {
	case ledger.Opened:
		return appkit.Advice{Why: fmt.Sprintf("answer %s was opened and its key not written yet", t.Data["answer"]),
			Command: "azs-agent activate " + answer + where(t)}, true
	case ledger.Applied:
		if t.Data["receipt"] == "" {
			return appkit.Advice{Why: fmt.Sprintf("the receipt for answer %s is not made yet", t.Data["answer"]),
				Command: "azs-agent activate " + answer + where(t)}, true
		}
	}
	return appkit.Advice{}, false
}

// use is the command for an answer that is kept at path.
func use(s *appkit.Station, m *bundle.Manifest, path string) string {
	if flow.Removal(s.Ledger, m) {
		return "azs-agent activate " + path + "   # ends the removal; it needs no endpoint"
	}
	return "azs-agent activate " + path + " --key-out activation-key.txt"
}

// where is how a run that was broken off gave the key to the stamp.
func where(t ledger.Trip) string {
	if at := t.Data["attempt-address"]; at != "" {
		return " --pep " + at
	}
	return " --key-out activation-key.txt"
}
