package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/fleet"
	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
)

// Bounds of --workers: more than 16 at a time only wait for Resource Manager's rates.
const (
	defaultWorkers = 4
	maxWorkers     = 16
)

func batchVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "batch", Usage: "do what all bundles on a stick ask for", ArgsUsage: "DIR",
		Description: "Takes every request in the folder, finds in the fleet file where its stamp belongs, does what it asks for, " +
			"several stamps at a time with one credential and within Resource Manager's documented rates, and writes each answer " +
			"back into the folder as it comes. Receipts close their trips. One stamp's failure stops no other. Stopped or killed " +
			"and run again, it goes on where each stamp stood: nothing is registered twice.\n\n" +
			"The fleet file is CSV with the columns agent, cloud-id, subscription, group, name, location, or YAML with a list of " +
			"the same fields under \"stamps\". A row needs the cloud id of the stamp or the label of its agent, and the id of the subscription.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "fleet", Required: true, Usage: "`FILE` (.csv, .yaml) that says where each stamp belongs", EnvVars: []string{"AZS_FLEET"}},
			&cli.StringFlag{Name: "put", Usage: "write the answers to `DIR` instead of the folder they came from"},
			&cli.StringFlag{Name: "report", Usage: "also write the report as a page to `FILE.html`"},
			&cli.IntFlag{Name: "workers", Value: defaultWorkers, Usage: fmt.Sprintf("`NUMBER` of stamps at a time, 1 to %d", maxWorkers)},
			&cli.DurationFlag{Name: "stamp-deadline", Value: 45 * time.Minute, Usage: "longest `TIME` for one stamp"},
			&cli.BoolFlag{Name: "no-provider-register", Usage: "refuse instead of registering the provider Microsoft.AzureStack"},
			&cli.BoolFlag{Name: "no-lock", Usage: "do not lock the registrations against deletion"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print the plan of every stamp, send nothing that changes anything"},
			acceptClock,
		}, azureFlags()...),
		Action: appkit.Run(runBatch),
	}, appkit.Help{
		Examples: []string{
			p.Name + " batch /media/stick --fleet fleet.csv --report report.html",
			p.Name + " batch /media/stick --fleet fleet.yaml --dry-run",
		},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Expired, fault.Medium, fault.Locked, fault.Permanent, fault.Unreachable, fault.Approval, fault.NothingYet, fault.Partial},
	})
}

// batching is one run of the verb.
type batching struct {
	env     *appkit.Env
	c       *cli.Context
	dir     string
	out     string // where the answers go
	station *appkit.Station
	relay   *flow.Relay
	fleet   *fleet.Fleet
	report  fleet.Report
	items   []flow.Item
	errs    []error
	done    int
}

func runBatch(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	args, err := appkit.Args(c, "DIR")
	if err != nil {
		return err
	}
	if n := c.Int("workers"); n < 1 || n > maxWorkers {
		return fault.New(fault.Usage, "--workers is %d, not 1 to %d", n, maxWorkers)
	}
	if c.Duration("stamp-deadline") <= 0 {
		return fault.New(fault.Usage, "--stamp-deadline is %s, not a time", c.Duration("stamp-deadline"))
	}
	b := &batching{env: e, c: c, dir: args[0], out: c.String("put")}
	if b.out == "" {
		b.out = b.dir
	}
	if b.fleet, err = readFleet(c.String("fleet")); err != nil {
		return err
	}
	if file := c.String("report"); file != "" {
		if _, err := os.Lstat(file); err == nil {
			return fault.New(fault.Usage, "%q exists already; a report replaces nothing", file).Hint("azs-relay batch … --report OTHER.html")
		}
	}
	open := e.Station
	if c.Bool("dry-run") {
		open = e.Reading
	}
	if b.station, err = open(); err != nil {
		return err
	}
	defer b.station.Close()
	if !c.Bool("dry-run") {
		if err := b.station.Ledger.CheckClock(c.Bool(acceptClock.Name)); err != nil {
			return err
		}
	}
	b.report = fleet.Report{Folder: b.dir, Fleet: c.String("fleet"), Relay: b.station.Card.Label, Begun: e.Clock.Now()}
	if err := b.read(ctx); err != nil {
		return err
	}
	if err := b.work(ctx); err != nil {
		return err
	}
	return b.finish(ctx)
}

func readFleet(file string) (*fleet.Fleet, error) {
	data, err := medium.ReadText(file, fleet.MaxBytes)
	if err != nil {
		return nil, err
	}
	return fleet.Parse(file, data)
}

// read opens every bundle in the folder before anything is sent: receipts close
// their trips, requests find their row, what is not for us is left alone.
func (b *batching) read(ctx context.Context) error {
	entries, skipped, err := medium.Take(b.dir)
	if err != nil {
		return err
	}
	for _, s := range skipped {
		b.failed(fleet.Line{File: s.Name}, fault.New(fault.Medium, "%s", s))
	}
	identity, err := b.station.Unlock(ctx)
	if err != nil {
		return err
	}
	b.report.Signer = string(identity.Card.Fingerprint())
	b.relay = &flow.Relay{Ledger: b.station.Ledger, Identity: identity, Peers: b.station.Peers, Policy: b.station.Policy, Clock: b.env.Clock, Rand: appkit.Random,
		Say: func(string, ...any) {}}
	for i, entry := range entries {
		b.env.Console.Progress("opening bundle %d of %d", i+1, len(entries))
		if err := ctx.Err(); err != nil {
			return err
		}
		b.open(entry)
	}
	if len(b.items)+len(b.report.Lines) == 0 {
		return fault.New(fault.NothingYet, "folder %q holds no request and no receipt for this relay", b.dir)
	}
	return nil
}

func (b *batching) open(entry medium.Entry) {
	line := fleet.Line{File: entry.Name}
	sealed, err := bundle.Split(entry.Data)
	if err != nil {
		b.failed(line, err)
		return
	}
	// Unsigned: an answer of ours lies on the stick because it shall travel, and is
	// left alone; whatever else it claims to be is verified below.
	if m, err := sealed.Peek(); err == nil && m.Kind == bundle.KindAnswer {
		return
	}
	if m, err := sealed.Peek(); err == nil && m.Kind == bundle.KindReceipt {
		b.close(line, entry.Data)
		return
	}
	job, err := b.relay.Read(entry.Data)
	if err != nil {
		b.failed(line, err)
		return
	}
	line = lineOf(line.File, job)
	row, err := b.fleet.Find(job.Peer.Label(), job.Ask.CloudID)
	if err != nil {
		b.failed(line, err)
		return
	}
	b.items = append(b.items, flow.Item{Name: entry.Name, Job: job, Order: flow.Order{
		Subscription: row.Subscription, Group: row.Group, Name: row.Name, Location: row.Location,
		NoProviderRegister: b.c.Bool("no-provider-register"), NoLock: b.c.Bool("no-lock"),
	}})
}

func lineOf(file string, j *flow.Job) fleet.Line {
	return fleet.Line{File: file, Trip: j.Trip, Agent: j.Peer.Label(), CloudID: j.Ask.CloudID, Operation: j.Ask.Operation}
}

func (b *batching) close(line fleet.Line, raw []byte) {
	if b.c.Bool("dry-run") {
		return
	}
	trip, receipt, err := b.relay.Close(raw)
	if err != nil {
		b.failed(line, err)
		return
	}
	line.Trip, line.Agent, line.CloudID, line.Outcome = trip.ID, trip.Data["agent"], receipt.CloudID, fleet.Closed
	b.report.Lines = append(b.report.Lines, line)
}

func (b *batching) failed(line fleet.Line, err error) {
	line.Outcome, line.Exit, line.Error, line.Hint = fleet.Failed, fault.ExitCode(err), err.Error(), fault.HintOf(err)
	b.report.Lines = append(b.report.Lines, line)
	b.errs = append(b.errs, err)
	b.env.Console.Warn("%q: %v", line.File, err)
}

// work signs in, asks once, and runs the batch.
func (b *batching) work(ctx context.Context) error {
	if len(b.items) == 0 {
		return nil
	}
	client, err := connect(ctx, b.env, b.c)
	if err != nil {
		return err
	}
	b.relay.Azure, b.relay.Requests = client.Shared(), client.Requests
	if b.c.Bool("dry-run") {
		return b.plans(ctx)
	}
	if err := b.confirm(); err != nil {
		return err
	}
	b.relay.Batch(ctx, b.items, flow.BatchOptions{Workers: b.c.Int("workers"), Deadline: b.c.Duration("stamp-deadline")}, func(e flow.Ended) {
		b.ended(e)
		b.progress(b.env.Clock.Now().Sub(b.report.Begun))
	})
	b.report.Calls = client.Sent()
	return nil
}

func (b *batching) confirm() error {
	subscriptions := map[string]bool{}
	for _, i := range b.items {
		subscriptions[i.Order.Subscription] = true
	}
	if b.env.Yes || !b.env.Console.CanAsk() {
		return nil
	}
	ok, err := b.env.Console.Confirm(fmt.Sprintf("do what %d requests ask for, in %d subscriptions?", len(b.items), len(subscriptions)), "--yes")
	if err == nil && !ok {
		err = fault.New(fault.Cancelled, "nothing was sent")
	}
	return err
}

// ended writes the answer of an item to the stick and its line into the report.
func (b *batching) ended(e flow.Ended) {
	b.done++
	line := lineOf(e.Name, e.Job)
	line.Subscription = e.Order.Subscription
	if e.Outcome != nil {
		line.Registration, line.Warnings = e.Outcome.ID.String(), e.Outcome.Warnings
		t, _ := b.station.Ledger.Trip(e.Outcome.Trip)
		line.KeyExpires = t.Data["key-expires"]
		if err := b.deliver(e.Outcome, &line); e.Err == nil {
			e.Err = err
		}
		if e.Err == nil {
			e.Err = partial(e.Outcome)
		}
	}
	switch {
	case e.Skipped:
		line.Outcome, line.Exit = fleet.Skipped, fault.ExitCode(e.Err)
		b.report.Lines = append(b.report.Lines, line)
		b.errs = append(b.errs, e.Err)
	case e.Err != nil:
		b.failed(line, e.Err)
	default:
		line.Outcome = fleet.Answered
		if e.Outcome.Again {
			line.Outcome = fleet.Again
		}
		b.report.Lines = append(b.report.Lines, line)
		b.env.Console.Say("%s  %s of agent %q: %s", line.Outcome, line.Operation, line.Agent, line.Registration)
	}
}

func (b *batching) deliver(out *flow.Outcome, line *fleet.Line) error {
	if out.Answer == nil {
		return nil
	}
	receipt, err := medium.Put(b.out, out.File, out.Answer.Text())
	if err != nil {
		return fault.New(fault.KindOf(err), "the answer to request %s is sealed and kept, but did not leave: %w", out.Trip, err).
			Hint("azs-relay put %s DIR", b.station.Path(out.File))
	}
	line.Answer = out.File
	_, err = b.station.Ledger.Append("put", out.Trip, map[string]string{"to": ledger.Clean(receipt.Path)})
	return err
}

func (b *batching) progress(spent time.Duration) {
	left := "?"
	if b.done > 0 {
		left = (spent / time.Duration(b.done) * time.Duration(len(b.items)-b.done)).Round(time.Second).String()
	}
	b.env.Console.Progress("%d of %d, %d failed, %.1f a second, %s left", b.done, len(b.items), len(b.errs), float64(b.done)/max(spent.Seconds(), 0.001), left)
}

// plans prints what each stamp needs.
func (b *batching) plans(ctx context.Context) error {
	type planned struct {
		fleet.Line
		Steps []flow.Step `json:"steps,omitempty"`
	}
	all := []planned{}
	var text bytes.Buffer
	for _, i := range b.items {
		line := lineOf(i.Name, i.Job)
		p, err := b.relay.Plan(ctx, i.Job, i.Order)
		if err != nil {
			b.failed(line, err)
			continue
		}
		line.Registration = p.ID.String()
		fmt.Fprintf(&text, "## %q of agent %q\n", i.Name, line.Agent)
		if err := p.Print(&text); err != nil {
			return err
		}
		all = append(all, planned{line, p.Steps})
	}
	b.env.Console.Result("batch", map[string]any{"dryRun": true, "bundles": all}, func(w io.Writer) { _, _ = text.WriteTo(w) })
	return nil
}

// finish writes the report.
func (b *batching) finish(ctx context.Context) error {
	if b.c.Bool("dry-run") {
		return b.verdict()
	}
	r := &b.report
	r.Ended, r.Journal = b.env.Clock.Now(), b.station.Ledger.Head()
	b.env.Console.Result("batch", r, func(w io.Writer) {
		for _, l := range r.Lines {
			fmt.Fprintf(w, "%-9s %q", l.Outcome, l.File)
			if l.Agent != "" {
				fmt.Fprintf(w, " of agent %q", l.Agent)
			}
			if l.Answer != "" {
				fmt.Fprintf(w, " → %s", l.Answer)
			}
			if l.Exit != 0 {
				fmt.Fprintf(w, " (exit %d)", l.Exit)
			}
			if l.Error != "" {
				fmt.Fprintf(w, ": %s", l.Error)
			}
			fmt.Fprintln(w)
		}
		if len(r.Calls) > 0 {
			fmt.Fprint(w, "sent to Resource Manager:")
			for _, kind := range slices.Sorted(maps.Keys(r.Calls)) {
				fmt.Fprintf(w, " %d %s", r.Calls[kind], kind)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d done, %d failed, %d not begun\n", r.Count(fleet.Answered, fleet.Again, fleet.Closed), r.Count(fleet.Failed), r.Count(fleet.Skipped))
	})
	if file := b.c.String("report"); file != "" {
		var page bytes.Buffer
		if err := r.HTML(&page); err != nil {
			return err
		}
		if err := medium.Save(file, page.Bytes(), false); err != nil {
			return errors.Join(b.verdict(), err)
		}
		b.env.Console.Say("report written to %s", file)
	}
	if ctx.Err() != nil {
		return fault.New(fault.Cancelled, "stopped after %d of %d requests", b.done-r.Count(fleet.Skipped), len(b.items)).Hint("run the same command again: what is done stays done")
	}
	return b.verdict()
}

// verdict is the exit of the run: 0, 13 when something was done and something not,
// and the kind of the first failure when nothing was.
func (b *batching) verdict() error {
	all := max(len(b.items)+b.report.Count(fleet.Closed), len(b.report.Lines))
	switch {
	case len(b.errs) == 0:
		return nil
	case len(b.errs) == all:
		return fault.New(fault.KindOf(b.errs[0]), "none of %d bundles was done; the first: %w", all, b.errs[0])
	}
	return fault.New(fault.Partial, "%d of %d bundles failed; the first: %w", len(b.errs), all, b.errs[0]).Hint("run the same command again: what is done stays done")
}
