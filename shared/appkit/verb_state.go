package appkit

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// Side is where the two programs differ in the verbs that both have.
type Side struct {
	// Takes are the kinds of bundle that come to this side.
	Takes []bundle.Kind
	// Usable refuses a verified bundle that was used before or that nothing waits for.
	Usable func(s *Station, v *bundle.Verified, b *bundle.Bundle) error
	// Took does what needs no decision of the operator with a bundle that was taken
	// to path, and returns the next command, or "".
	Took func(ctx context.Context, s *Station, v *bundle.Verified, b *bundle.Bundle, path string) (next string, err error)
	// Next says what to do about a trip, or nothing when there is nothing to do.
	Next func(s *Station, t ledger.Trip) (Advice, bool)
	// Fresh says what to do about a bundle that was taken and not acted on, if its
	// trip is not over; nil stands for nothing.
	Fresh func(s *Station, t Taken) (Advice, bool)
	// Idle is the command that begins a new trip.
	Idle string
	// Line tells about a trip in one line of status.
	Line func(l *ledger.Ledger, t ledger.Trip) string
	// Warn says what status warns of beside the trips, such as keys that end soon;
	// nil is nothing.
	Warn func(l *ledger.Ledger, now time.Time) []string
}

// Advice is the one thing to do now.
type Advice struct {
	Trip    string `json:"trip,omitempty"`
	Why     string `json:"why"`
	Command string `json:"command,omitempty"` // to paste; "" when somebody else is to act
}

// CommonVerbs are the verbs that both programs have.
func CommonVerbs(p Program, side Side) []*cli.Command {
	return []*cli.Command{
		initVerb(p), cardVerb(p), wordsVerb(p), pairVerb(p), rekeyVerb(p), approversVerb(p), approveVerb(p),
		inspectVerb(p), verifyVerb(p), putVerb(p), takeVerb(p, side), showVerb(p), scanVerb(p, side),
		statusVerb(p, side), nextVerb(p, side), logVerb(p), evidenceVerb(p),
	}
}

func statusVerb(p Program, side Side) *cli.Command {
	return Describe(&cli.Command{
		Name: "status", Usage: "show the state of every trip",
		Description: "Lists the trips, oldest first, and warns when the clock stands behind the journal. Nothing is changed.",
		Action:      Run(func(_ context.Context, e *Env, _ *cli.Context) error { return runStatus(e, side) }),
	}, Help{Examples: []string{p.Name + " status", p.Name + " status --json"}, Exit: []fault.Kind{fault.Refused, fault.Medium, fault.Locked}})
}

type tripJSON struct {
	ID      string            `json:"trip"`
	State   string            `json:"state"`
	Started string            `json:"started"`
	Updated string            `json:"updated"`
	Data    map[string]string `json:"data"`
}

func runStatus(e *Env, side Side) error {
	s, err := e.Reading()
	if err != nil {
		return err
	}
	e.warnClock(s)
	trips := []tripJSON{}
	for _, t := range s.Ledger.Trips() {
		trips = append(trips, tripJSON{t.ID, t.State, clock.Format(t.Started), clock.Format(t.Updated), t.Data})
	}
	warnings := append([]string{}, s.warnRekey()...)
	if side.Warn != nil {
		warnings = append(warnings, side.Warn(s.Ledger, e.Clock.Now())...)
	}
	for _, w := range warnings {
		e.Console.Warn("%s", w)
	}
	e.Console.Result("status", map[string]any{"warnings": List(warnings), "home": e.Where(), "label": s.Card.Label, "peers": len(s.Peers), "journal": s.Ledger.Head(), "trips": trips}, func(w io.Writer) {
		fmt.Fprintf(w, "%s %q, %d pinned, journal of %d lines with head %s\n", s.Card.Role, s.Card.Label, len(s.Peers), len(s.Ledger.Entries()), s.Ledger.Head()[:16])
		for _, t := range s.Ledger.Trips() {
			fmt.Fprintf(w, "%s  %-10s  %s\n", t.ID, t.State, side.Line(s.Ledger, t))
		}
	})
	return nil
}

func (e *Env) warnClock(s *Station) {
	if last, back, went := s.Ledger.ClockWentBack(); went {
		e.Console.Warn("the clock went back by %s: the journal's last entry is of %s", back.Round(time.Second), clock.Format(last))
	}
}

func nextVerb(p Program, side Side) *cli.Command {
	return Describe(&cli.Command{
		Name: "next", Usage: "show the one thing to do now, as a command to paste",
		Description: "Looks at keys, pairing and trips and prints the next command on standard output, and why on standard error.",
		Action:      Run(func(_ context.Context, e *Env, _ *cli.Context) error { return runNext(e, side) }),
	}, Help{Examples: []string{p.Name + " next"}, Exit: []fault.Kind{fault.Refused, fault.Medium, fault.NothingYet}})
}

func runNext(e *Env, side Side) error {
	advice, err := e.next(side)
	if err != nil {
		return err
	}
	e.Console.Say("%s", advice.Why)
	if advice.Command == "" {
		return fault.New(fault.NothingYet, "there is nothing to do here yet")
	}
	e.Console.Result("next", advice, func(w io.Writer) { fmt.Fprintln(w, advice.Command) })
	return nil
}

func (e *Env) next(side Side) (Advice, error) {
	s, err := e.Reading()
	if fault.KindOf(err) == fault.Locked {
		return Advice{Why: "this side has no identity yet", Command: e.Program + " init"}, nil
	}
	if err != nil {
		return Advice{}, err
	}
	defer s.Close()
	if len(s.Peers) == 0 {
		return Advice{Why: "no peer is paired yet: exchange the cards first", Command: e.Program + " pair CARD"}, nil
	}
	waiting := Advice{Why: "no trip is under way", Command: side.Idle}
	for _, t := range s.Ledger.Trips() {
		a, ok := side.Next(s, t)
		if !ok {
			continue
		}
		a.Trip = t.ID
		if a.Command != "" {
			return a, nil
		}
		waiting = a
	}
	if side.Fresh == nil {
		return waiting, nil
	}
	for _, t := range s.taken(side.Takes) {
		if a, ok := side.Fresh(s, t); ok {
			return a, nil
		}
	}
	return waiting, nil
}

func logVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "log", Usage: "print the journal after checking its chain",
		Description: "Every line holds the SHA-256 of the line before it. A line that was changed, removed or inserted is named and nothing is printed.",
		Action:      Run(runLog),
	}, Help{Examples: []string{p.Name + " log", p.Name + " log --json"}, Exit: []fault.Kind{fault.Refused, fault.Medium, fault.Locked}})
}

func runLog(_ context.Context, e *Env, _ *cli.Context) error {
	s, err := e.Reading()
	if err != nil {
		return err
	}
	type entry struct {
		N     uint64            `json:"n"`
		Time  string            `json:"time"`
		Prev  string            `json:"prev"`
		Event string            `json:"event"`
		Trip  string            `json:"trip"`
		Data  map[string]string `json:"data"`
	}
	entries := []entry{}
	for _, x := range s.Ledger.Entries() {
		entries = append(entries, entry{x.N, clock.Format(x.Time), x.Prev, x.Event, x.Trip, x.Data})
	}
	e.Console.Result("log", map[string]any{"head": s.Ledger.Head(), "entries": entries}, func(w io.Writer) {
		for _, x := range entries {
			var data []string
			for k, v := range x.Data {
				data = append(data, fmt.Sprintf("%s=%q", k, v))
			}
			sort.Strings(data)
			fmt.Fprintf(w, "%4d  %s  %-14s %-26s  %s\n", x.N, x.Time, x.Event, x.Trip, strings.Join(data, " "))
		}
		fmt.Fprintf(w, "chain of %d lines is whole, head %s\n", len(entries), s.Ledger.Head())
	})
	return nil
}
