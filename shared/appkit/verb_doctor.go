package appkit

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame/scan"
	"github.com/azs-courier/azs-courier/shared/medium"
)

// Checkup is what doctor looked at so far.
type Checkup struct {
	checks []check
	first  error // of the first check that failed
}

// check is one thing that doctor looked at.
type check struct {
	Name   string `json:"name"`
	Good   bool   `json:"good"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// Look makes one check: what f found, or why it is bad.
func (u *Checkup) Look(name string, f func() (string, error)) {
	detail, err := f()
	if err == nil {
		u.checks = append(u.checks, check{Name: name, Good: true, Detail: detail})
		return
	}
	u.checks = append(u.checks, check{name, false, err.Error(), fault.HintOf(err)})
	if u.first == nil {
		u.first = err
	}
}

// DoctorVerb is the verb doctor of one side, with the side's own flags and exit
// codes. reach looks at the world outside of this host: the endpoint, Azure.
func DoctorVerb(p Program, usage, world, example string, flags []cli.Flag, exits []fault.Kind, reach func(context.Context, *Env, *cli.Context, *Checkup)) *cli.Command {
	stick := &cli.StringFlag{Name: "stick", Usage: "check that the stick or folder `DIR` can be read and written; a probe file is written and removed"}
	return Describe(&cli.Command{
		Name: "doctor", Usage: usage,
		Description: "Looks at what the next trip needs: the state folder and its journal, the keys, the clock, the other side, the programs that scan may call. " +
			"Changes nothing. " + world + " The exit code is that of the first check that failed.",
		Flags: append([]cli.Flag{stick}, flags...),
		Action: Run(func(ctx context.Context, e *Env, c *cli.Context) error {
			if _, err := Args(c); err != nil {
				return err
			}
			u := new(Checkup)
			u.station(e)
			u.Look("scanning", func() (string, error) { return programs() + "; pictures and typed lines need no other program", nil })
			if dir := c.String(stick.Name); dir != "" {
				u.Look("stick", func() (string, error) { return probe(dir) })
			}
			reach(ctx, e, c, u)
			e.Console.Result("doctor", map[string]any{"checks": u.checks}, u.print)
			return u.first
		}),
	}, Help{
		Examples: []string{p.Name + " doctor", p.Name + " doctor --stick STICK", p.Name + " doctor " + example},
		Exit:     append([]fault.Kind{fault.Refused, fault.Expired, fault.Medium, fault.Locked, fault.NothingYet}, exits...),
	})
}

// station looks at the state.
func (u *Checkup) station(e *Env) {
	var s *Station
	u.Look("state", func() (_ string, err error) {
		if s, err = e.Reading(); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %q in %s, journal of %d lines is whole", s.Card.Role, s.Card.Label, e.Where(), len(s.Ledger.Entries())), nil
	})
	if s == nil {
		return
	}
	defer s.Close()
	u.Look("keys", func() (string, error) {
		former, err := s.Store.Former()
		switch {
		case err != nil:
			return "", err
		case former != nil:
			return fmt.Sprintf("a change of keys is not finished: %s rekey --finish, when every other side has the new card", e.Program), nil
		case !s.Store.Protected():
			return "in clear: who copies them can act as this side", nil
		}
		return "under a passphrase", nil
	})
	u.Look("clock", func() (string, error) {
		return clock.Format(e.Clock.Now()), s.Ledger.CheckClock(false)
	})
	other := bundle.RoleAgent
	if e.Role == bundle.RoleAgent {
		other = bundle.RoleRelay
	}
	u.Look(other, func() (string, error) {
		if len(s.Peers) == 0 {
			return "", fault.New(fault.NothingYet, "no %s is paired yet", other).Hint("%s pair %s-CARD.azc", e.Program, strings.ToUpper(other))
		}
		return fmt.Sprintf("%d paired", len(s.Peers)), nil
	})
}

// programs says which programs scan finds on this host.
func programs() string {
	var words []string
	for _, h := range scan.Helpers() {
		if h.Path == "" {
			words = append(words, fmt.Sprintf("%s, for %s, is not installed", h.Name, h.For))
			continue
		}
		words = append(words, fmt.Sprintf("%s, for %s, is %s", h.Name, h.For, h.Path))
	}
	return strings.Join(words, "; ")
}

// probe reads and writes a stick.
func probe(dir string) (string, error) {
	entries, skipped, err := medium.Take(dir)
	if err != nil {
		return "", err
	}
	if err := medium.Probe(dir); err != nil {
		return "", err
	}
	return fmt.Sprintf("%q can be written; it holds %d bundles, and %d files that are left aside", dir, len(entries), len(skipped)), nil
}

func (u *Checkup) print(w io.Writer) {
	for _, k := range u.checks {
		verdict := "good"
		if !k.Good {
			verdict = "BAD"
		}
		fmt.Fprintf(w, "%-4s  %-9s %s\n", verdict, k.Name, k.Detail)
	}
}
