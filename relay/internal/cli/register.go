package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
)

func registerVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "register", Usage: "register what requests ask for and seal the answers", ArgsUsage: "[BUNDLE…]",
		Description: "Opens each request, reads what stands in Azure, shows the plan, registers the provider and creates the group where they are " +
			"missing, registers the token, locks the registration against deletion, fetches the activation key, reads " +
			"back, and seals the answer. A renewal deletes the old registration first: azs-agent renew has told that the stamp is " +
			"deactivated. Killed anywhere and run again, it ends in the same registration and answer. " +
			"With --token-file it registers a plain token of the official cmdlet and writes a plain key. " +
			"--dry-run reads and prints the plan as a numbered list with the requests that it would send, and changes nothing.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription (default: what the request expects)", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the registration (default: what the request expects, else AzureStack-<cloud id>)"},
			&cli.StringFlag{Name: "group", Usage: "resource `GROUP` (default: what the request expects, else azurestack)"},
			&cli.StringFlag{Name: "location", Usage: "`LOCATION` of a group that must be created (default: the cloud's)"},
			&cli.BoolFlag{Name: "no-provider-register", Usage: "refuse instead of registering the provider Microsoft.AzureStack"},
			&cli.BoolFlag{Name: "no-lock", Usage: "do not lock the registration against deletion"},
			&cli.StringFlag{Name: "from-subscription", Usage: "of a renewal: `ID` or name of the subscription that holds the old registration (default: where this relay put it)"},
			&cli.StringFlag{Name: "name-suffix-on-renewal", Usage: "of a renewal: register under a new unique name, NAME-`SUFFIX`"},
			&cli.BoolFlag{Name: "in-place", Usage: "of a renewal: update the registration, which keeps name and group, instead of deleting it first"},
			&cli.StringFlag{Name: "token-file", Usage: "plain registration token `FILE` instead of a bundle; needs --key-out"},
			&cli.StringFlag{Name: "key-out", Usage: "also write the plain activation key to `FILE`"},
			&cli.StringFlag{Name: "out", Usage: "write the answer to `FILE`, or to standard output with -"},
			&cli.StringFlag{Name: "put", Usage: "write the answers to the stick or folder `DIR`"},
			appkit.ShowFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "print the exact requests, send none that changes anything"},
			acceptClock, appkit.ScanFlag(),
		}, azureFlags()...),
		Action: appkit.Run(runRegister),
	}, appkit.Help{
		Examples: []string{
			p.Name + " register request.azc --subscription 11111111-2222-3333-4444-555555555555 --put /media/stick",
			p.Name + " register request.azc --dry-run",
			p.Name + " register renewal.azc --name-suffix-on-renewal 2027 --put /media/stick",
			p.Name + " register renewal.azc --subscription 22222222-3333-4444-5555-666666666666 --from-subscription Production --put /media/stick",
			p.Name + " register --token-file RegistrationToken.txt --subscription Production --key-out ActivationKey.txt",
		},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Expired, fault.Medium, fault.Locked, fault.Permanent, fault.Unreachable, fault.Approval, fault.NothingYet, fault.Partial},
	})
}

// registering is one run of register or unregister.
type registering struct {
	verb    string
	env     *appkit.Env
	c       *cli.Context
	station *appkit.Station
	relay   *flow.Relay
	order   flow.Order
	results []result
	scanned []string // the request that --scan read
}

// result is what became of one request.
type result struct {
	Source       string          `json:"source"`
	Trip         string          `json:"trip,omitempty"`
	Operation    string          `json:"operation,omitempty"`
	Agent        string          `json:"agent,omitempty"`
	CloudID      string          `json:"cloudId,omitempty"`
	Registration string          `json:"registrationId,omitempty"`
	Answer       string          `json:"answer,omitempty"`
	Digest       string          `json:"digest,omitempty"`
	File         string          `json:"file,omitempty"`
	Places       []string        `json:"places,omitempty"`
	KeyFile      string          `json:"keyFile,omitempty"`
	KeyExpires   string          `json:"keyExpires,omitempty"`
	TextBytes    int             `json:"textBytes,omitempty"`
	WireBytes    int             `json:"wireBytes,omitempty"`
	Again        bool            `json:"again,omitempty"`
	Locked       bool            `json:"locked"`
	Removed      string          `json:"removed,omitempty"`
	Notes        []string        `json:"notes,omitempty"`
	Plan         []flow.Step     `json:"plan,omitempty"`
	Requests     []azure.Request `json:"requests,omitempty"`
	Exit         int             `json:"exit"`
	Error        string          `json:"error,omitempty"`

	plan *flow.Plan
}

func runRegister(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c, "[BUNDLE…]"); err != nil {
		return err
	}
	if err := checkRegister(c); err != nil {
		return err
	}
	if c.Bool("show") {
		if err := e.CheckShow(); err != nil {
			return err
		}
	}
	r := &registering{verb: "register", env: e, c: c, order: flow.Order{
		Subscription: c.String("subscription"), Name: c.String("name"), Group: c.String("group"), Location: c.String("location"),
		NoProviderRegister: c.Bool("no-provider-register"), NoLock: c.Bool("no-lock"),
		FromSubscription: c.String("from-subscription"), NameSuffix: c.String("name-suffix-on-renewal"), InPlace: c.Bool("in-place"),
	}}
	var err error
	if r.scanned, err = e.Scanned(ctx, c, c.Args().Slice()); err != nil {
		return err
	}
	return e.ScanUsed(r.run(ctx))
}

// open opens the state folder: for reading only when nothing is to be done.
func (r *registering) open() error {
	e, dry := r.env, r.c.Bool("dry-run")
	open := e.Station
	if dry {
		open = e.Reading
	}
	var err error
	if r.station, err = open(); err != nil {
		return err
	}
	if !dry {
		if err := r.station.Ledger.CheckClock(r.c.Bool(acceptClock.Name)); err != nil {
			r.station.Close()
			return err
		}
	}
	r.relay = &flow.Relay{Ledger: r.station.Ledger, Peers: r.station.Peers, Policy: r.station.Policy, Clock: e.Clock, Rand: appkit.Random, Say: func(f string, a ...any) { e.Console.Say("  "+f, a...) }}
	return nil
}

// run does what every request of the command line asks for, one after the other.
func (r *registering) run(ctx context.Context) error {
	if err := r.open(); err != nil {
		return err
	}
	defer r.station.Close()
	jobs, err := r.read(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for _, j := range jobs {
		res, err := r.one(ctx, j)
		if err != nil {
			res.Exit, res.Error = fault.ExitCode(err), err.Error()
			failures = append(failures, err)
			if len(jobs) > 1 {
				r.env.Console.Warn("%s: %v", j.source, err)
			}
		}
		r.results = append(r.results, res)
		if ctx.Err() != nil {
			break
		}
	}
	r.report()
	switch {
	case len(failures) == 0:
		return nil
	case len(jobs) == 1:
		return failures[0]
	case len(failures) == len(jobs):
		return fault.New(fault.KindOf(failures[0]), "none of %d requests was done; the first: %w", len(jobs), failures[0])
	}
	return fault.New(fault.Partial, "%d of %d requests failed; the first: %w", len(failures), len(jobs), failures[0]).Hint("run the same command again: what is done stays done")
}

func checkRegister(c *cli.Context) error {
	plain, scan := c.String("token-file") != "", len(c.StringSlice("scan")) > 0
	switch {
	case plain && (c.NArg() > 0 || scan):
		return fault.New(fault.Usage, "a bundle and --token-file contradict each other")
	case !plain && c.NArg() == 0 && !scan:
		return fault.New(fault.Usage, "register needs a request, --scan or --token-file").Hint("azs-relay register REQUEST --subscription SUBSCRIPTION")
	case plain && c.String("key-out") == "" && !c.Bool("dry-run"):
		return fault.New(fault.Usage, "a plain token has no agent to seal the answer for, so the key needs a file").Hint("azs-relay register --token-file %s --key-out ActivationKey.txt", c.String("token-file"))
	case plain && (c.String("out") != "" || c.String("put") != "" || c.Bool("show")):
		return fault.New(fault.Usage, "a plain token has no agent to seal the answer for: --out, --put and --show need a request")
	case c.NArg() > 1 && (c.String("out") != "" || c.String("key-out") != "" || c.String("name") != "" || c.Bool("show")):
		return fault.New(fault.Usage, "--out, --show, --key-out and --name are for one request, %d were given", c.NArg()).Hint("azs-relay register … --put DIR")
	}
	return nil
}

// work is one job and where it came from.
type work struct {
	source string
	*flow.Job
}

// bundles names the requests: the arguments, or what was scanned instead.
func (r *registering) bundles() []string {
	if len(r.scanned) > 0 {
		return r.scanned
	}
	return r.c.Args().Slice()
}

// read opens every request before anything is sent, lowest number first, so that
// none overtakes another of the same agent.
func (r *registering) read(ctx context.Context) ([]work, error) {
	if file := r.c.String("token-file"); file != "" {
		raw, err := medium.ReadText(file, official.MaxRaw)
		if err != nil {
			return nil, err
		}
		j, err := r.relay.ReadToken(raw)
		return []work{{file, j}}, err
	}
	var err error
	if r.relay.Identity, err = r.station.Unlock(ctx); err != nil {
		return nil, err
	}
	var jobs []work
	for _, path := range r.bundles() {
		raw, err := r.env.ReadBundle(path)
		if err != nil {
			return nil, err
		}
		j, err := r.relay.Read(raw)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		if op := j.Ask.Operation; (op == bundle.Unregister) != (r.verb == "unregister") {
			verb := "register"
			if op == bundle.Unregister {
				verb = "unregister"
			}
			return nil, fault.New(fault.NotForUs, "%q: request %s asks to %s", path, j.Trip, op).Hint("azs-relay %s %s", verb, path)
		}
		jobs = append(jobs, work{path, j})
	}
	sort.SliceStable(jobs, func(a, b int) bool { return jobs[a].Manifest.Seq < jobs[b].Manifest.Seq })
	return jobs, nil
}

func (r *registering) one(ctx context.Context, w work) (res result, err error) {
	res = result{Source: w.source, Trip: w.Trip, CloudID: w.Ask.CloudID, Operation: w.Ask.Operation}
	e := r.env
	if w.Peer != nil {
		res.Agent = w.Peer.Label()
		e.Console.Say("request %s of agent %q to %s stamp %q%s", w.Trip, w.Peer.Label(), w.Ask.Operation, w.Ask.CloudID, tokenLength(w.Job))
		e.Console.Say("  %s", flow.Skew(w.Job))
		if w.Ask.Note != "" {
			e.Console.Say("  note: %q", w.Ask.Note)
		}
	}
	if w.Token != nil {
		for _, warning := range w.Token.Warnings {
			e.Console.Warn("%s", warning)
		}
	}
	if r.c.Bool("dry-run") {
		p, err := r.plan(ctx, w)
		if err == nil {
			res.Registration, res.Requests, res.Plan, res.Notes, res.plan = p.ID.String(), p.Writes(), p.Steps, p.Notes, p
		}
		return res, err
	}
	ctx, release, err := r.relay.Claim(ctx, w.Job)
	if err != nil {
		return res, err
	}
	defer release(&err)
	out, err := r.relay.Done(w.Job, r.order)
	if err != nil {
		return res, err
	}
	if out == nil || r.keyOut() != "" {
		p, err := r.plan(ctx, w)
		if err != nil {
			return res, err
		}
		if out == nil {
			res.Notes = p.Notes
			r.show(p)
			if err := r.confirm(p); err != nil {
				return res, err
			}
			if out, err = r.relay.Run(ctx, p); err != nil {
				return res, err
			}
		}
		if err := r.plainKey(ctx, p, out, &res); err != nil {
			return res, err
		}
	} else {
		e.Console.Say("  this request was answered already: the same answer again")
	}
	if out.Again && r.relay.Unfinished(out.Trip) && !r.order.NoLock {
		if err := r.azure(ctx); err != nil {
			return res, err
		}
		if err := r.relay.Relock(ctx, out, r.order); err != nil {
			return res, err
		}
	}
	for _, warning := range out.Warnings {
		e.Console.Warn("%s", warning)
	}
	t, _ := r.station.Ledger.Trip(out.Trip)
	res.CloudID = w.Ask.CloudID // of a removal by name, Azure told it
	res.Registration, res.Again, res.KeyExpires, res.Locked, res.Removed = out.ID.String(), out.Again, t.Data["key-expires"], t.Data["locked"] == "true", out.Removed
	if out.Answer != nil {
		if err := r.deliver(out, &res); err != nil {
			return res, err
		}
	}
	return res, partial(out)
}

func tokenLength(j *flow.Job) string {
	if j.Token == nil {
		return ""
	}
	return fmt.Sprintf(": token of %d characters", j.Token.Text.Len())
}

// keyOut is the file for a plain key, which a removal does not have.
func (r *registering) keyOut() string {
	if r.verb == "unregister" {
		return ""
	}
	return r.c.String("key-out")
}

// show tells the plan before the first change.
func (r *registering) show(p *flow.Plan) {
	for _, n := range p.Notes {
		r.env.Console.Say("  note: %s", n)
	}
	for i, s := range p.Steps {
		r.env.Console.Say("  %d. %s", i+1, s.Purpose)
	}
}

// deliver writes the answer to where it was asked for.
func (r *registering) deliver(out *flow.Outcome, res *result) error {
	m, err := out.Answer.Peek()
	if err != nil {
		return err
	}
	text := out.Answer.Text()
	res.Answer, res.Digest, res.File = m.Bundle.String(), out.Answer.Digest().String(), r.station.Path(out.File)
	res.TextBytes, res.WireBytes = len(text), len(out.Answer.Wire())
	res.Places, err = r.env.Write(appkit.Out{File: r.c.String("out"), Dir: r.c.String("put")}, bundle.KindAnswer, m.Bundle, text)
	for _, p := range res.Places {
		if _, jerr := r.station.Ledger.Append("put", out.Trip, map[string]string{"to": ledger.Clean(p)}); jerr != nil {
			return errors.Join(err, jerr)
		}
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "the answer to request %s is sealed and kept, but did not leave: %w", out.Trip, err).Hint("azs-relay put %s DIR", res.File)
	}
	if r.c.Bool("show") {
		r.env.ShowLater(out.Answer, res.File)
	}
	return nil
}

// plainKey writes the plain activation key, if it was asked for.
func (r *registering) plainKey(ctx context.Context, p *flow.Plan, out *flow.Outcome, res *result) error {
	file := r.keyOut()
	if file == "" {
		return nil
	}
	key := out.Key
	if key == nil {
		var err error
		if key, err = r.relay.PlainKey(ctx, p.ID); err != nil {
			return err
		}
	}
	if err := medium.Save(file, official.Write(key.Text), true); err != nil {
		return err
	}
	res.KeyFile = file
	_, err := r.station.Ledger.Append("plain-out", out.Trip, map[string]string{"to": ledger.Clean(file), "key-sha256": bundle.Digest(key.Digest).String()})
	return err
}

// azure signs in once a run, and only when something must be asked.
func (r *registering) azure(ctx context.Context) error {
	if r.relay.Azure != nil {
		return nil
	}
	client, err := connect(ctx, r.env, r.c)
	if err != nil {
		return err
	}
	r.relay.Azure, r.relay.Requests = client, client.Requests
	return nil
}

func (r *registering) plan(ctx context.Context, w work) (*flow.Plan, error) {
	if err := r.azure(ctx); err != nil {
		return nil, err
	}
	p, err := r.relay.Plan(ctx, w.Job, r.order)
	if err != nil {
		return nil, err
	}
	r.env.Console.Say("  subscription %s (%q), tenant %s", p.Subscription.ID, p.Subscription.Name, p.Subscription.TenantID)
	if r.c.Bool("dry-run") {
		for _, warning := range p.Warnings {
			r.env.Console.Warn("%s", warning)
		}
		if w.Unapproved != nil {
			r.env.Console.Warn("%v", w.Unapproved)
		}
	}
	return p, nil
}

// confirm lets the person at the terminal look before the first write. A script
// has nobody to ask and says what it wants by its flags.
func (r *registering) confirm(p *flow.Plan) error {
	pinned := p.Job.Ask.ExpectSubscription != ""
	if _, err := azure.ParseSubscriptionID(r.order.Subscription); err == nil {
		pinned = true
	}
	switch {
	case r.env.Yes && !pinned:
		return fault.New(fault.Usage, "--yes needs a subscription that is pinned: by its id in --subscription, or by --expect-subscription when the request was made").
			Hint("azs-relay %s … --yes --subscription %s", r.verb, p.Subscription.ID)
	case r.env.Yes || !r.env.Console.CanAsk():
		return nil
	}
	ok, err := r.env.Console.Confirm(question(p), "--yes")
	if err == nil && !ok {
		err = fault.New(fault.Cancelled, "nothing was sent")
	}
	return err
}

// question is what is asked before the first change.
func question(p *flow.Plan) string {
	place := func(id azure.RegistrationID) string {
		return fmt.Sprintf("%s in group %s of subscription %s", id.Name(), id.Group().Name(), id.Subscription())
	}
	switch {
	case p.To != nil:
		return fmt.Sprintf("move %s to group %s of subscription %s?", place(p.ID), p.To.Group().Name(), p.To.Subscription())
	case p.Job.Ask.Operation == bundle.Unregister && p.Old != nil:
		return fmt.Sprintf("delete %s?", place(p.Old.ID))
	case p.Job.Ask.Operation == bundle.Unregister:
		return "nothing is there to delete: answer so?"
	case p.Old != nil:
		return fmt.Sprintf("delete %s, and register %s?", place(p.Old.ID), place(p.ID))
	}
	return fmt.Sprintf("register %s in group %s of subscription %q?", p.ID.Name(), p.ID.Group().Name(), p.Subscription.Name)
}

func (r *registering) report() {
	if r.c.String("out") == "-" {
		return // standard output holds the answer
	}
	r.env.Console.Result(r.verb, map[string]any{"dryRun": r.c.Bool("dry-run"), "requests": r.results}, func(w io.Writer) {
		for _, res := range r.results {
			if res.plan != nil {
				_ = res.plan.Print(w) // a lost standard output is reported by the console
			}
			if res.Error != "" && res.File == "" || res.plan != nil {
				continue
			}
			res.print(w)
		}
	})
}

func (res result) print(w io.Writer) {
	again := ""
	if res.Again {
		again = ", as answered before"
	}
	if res.Operation == bundle.Unregister {
		switch {
		case res.Removed == "":
			fmt.Fprintf(w, "no registration was found%s\n  looked for   %s\n  stamp        %q\n", again, res.Registration, res.CloudID)
		default:
			fmt.Fprintf(w, "unregistered %s%s\n  stamp        %q\n", res.Removed, again, res.CloudID)
		}
	} else {
		fmt.Fprintf(w, "registered %s%s\n  stamp        %q\n  locked       %v\n  key expires  %s\n", res.Registration, again, res.CloudID, res.Locked, res.KeyExpires)
		if res.Removed != "" {
			fmt.Fprintf(w, "  removed      %s\n", res.Removed)
		}
	}
	if res.KeyFile != "" {
		fmt.Fprintf(w, "  plain key    %s\n", res.KeyFile)
	}
	if res.Answer != "" {
		fmt.Fprintf(w, "  answer       %s for agent %q, %d bytes of text or %d in wire form\n  digest       %s\n", res.Answer, res.Agent, res.TextBytes, res.WireBytes, res.Digest)
		places := res.Places
		if len(places) == 0 {
			places = []string{res.File}
		}
		for _, p := range places {
			fmt.Fprintf(w, "  written to   %s\n", p)
		}
	}
}
