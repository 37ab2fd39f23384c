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
		Description: "Opens each request, reads what stands in Azure, registers the provider and creates the group where they are " +
			"missing, registers the token, locks the registration against deletion, fetches the activation key, reads " +
			"back, and seals the answer. Killed anywhere and run again, it ends in the same registration and answer. " +
			"With --token-file it registers a plain token of the official cmdlet and writes a plain key. " +
			"--dry-run reads and prints the requests that it would send, and changes nothing.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription (default: what the request expects)", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the registration (default: what the request expects, else AzureStack-<cloud id>)"},
			&cli.StringFlag{Name: "group", Usage: "resource `GROUP` (default: what the request expects, else azurestack)"},
			&cli.StringFlag{Name: "location", Usage: "`LOCATION` of a group that must be created (default: the cloud's)"},
			&cli.BoolFlag{Name: "no-provider-register", Usage: "refuse instead of registering the provider Microsoft.AzureStack"},
			&cli.BoolFlag{Name: "no-lock", Usage: "do not lock the registration against deletion"},
			&cli.StringFlag{Name: "token-file", Usage: "plain registration token `FILE` instead of a bundle; needs --key-out"},
			&cli.StringFlag{Name: "key-out", Usage: "also write the plain activation key to `FILE`"},
			&cli.StringFlag{Name: "out", Usage: "write the answer to `FILE`, or to standard output with -"},
			&cli.StringFlag{Name: "put", Usage: "write the answers to the stick or folder `DIR`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print the exact requests, send none that changes anything"},
			acceptClock,
		}, azureFlags()...),
		Action: appkit.Run(runRegister),
	}, appkit.Help{
		Examples: []string{
			p.Name + " register request.azc --subscription 11111111-2222-3333-4444-555555555555 --put /media/stick",
			p.Name + " register request.azc --dry-run",
			p.Name + " register --token-file RegistrationToken.txt --subscription Production --key-out ActivationKey.txt",
		},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Expired, fault.Medium, fault.Locked, fault.Permanent, fault.Unreachable, fault.Partial},
	})
}

// registering is one run of the verb.
type registering struct {
	env     *appkit.Env
	c       *cli.Context
	station *appkit.Station
	relay   *flow.Relay
	order   flow.Order
	results []result
}

// result is what became of one request.
type result struct {
	Source       string          `json:"source"`
	Trip         string          `json:"trip,omitempty"`
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
	Requests     []azure.Request `json:"requests,omitempty"`
	Exit         int             `json:"exit"`
	Error        string          `json:"error,omitempty"`
}

func runRegister(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c, "[BUNDLE…]"); err != nil {
		return err
	}
	if err := checkRegister(c); err != nil {
		return err
	}
	r := &registering{env: e, c: c, order: flow.Order{
		Subscription: c.String("subscription"), Name: c.String("name"), Group: c.String("group"), Location: c.String("location"),
		NoProviderRegister: c.Bool("no-provider-register"), NoLock: c.Bool("no-lock"),
	}}
	open := e.Station
	if c.Bool("dry-run") {
		open = e.Reading
	}
	var err error
	if r.station, err = open(); err != nil {
		return err
	}
	defer r.station.Close()
	if !c.Bool("dry-run") {
		if err := r.station.Ledger.CheckClock(c.Bool(acceptClock.Name)); err != nil {
			return err
		}
	}
	r.relay = &flow.Relay{Ledger: r.station.Ledger, Peers: r.station.Peers, Clock: e.Clock, Rand: appkit.Random, Say: func(f string, a ...any) { e.Console.Say("  "+f, a...) }}
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
				e.Console.Warn("%s: %v", j.source, err)
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
		return fault.New(fault.KindOf(failures[0]), "none of %d requests was registered; the first: %w", len(jobs), failures[0])
	}
	return fault.New(fault.Partial, "%d of %d requests failed; the first: %w", len(failures), len(jobs), failures[0]).Hint("run the same command again: what is done stays done")
}

func checkRegister(c *cli.Context) error {
	plain := c.String("token-file") != ""
	switch {
	case plain && c.NArg() > 0:
		return fault.New(fault.Usage, "a bundle and --token-file contradict each other")
	case !plain && c.NArg() == 0:
		return fault.New(fault.Usage, "register needs a request, or --token-file").Hint("azs-relay register REQUEST --subscription SUBSCRIPTION")
	case plain && c.String("key-out") == "" && !c.Bool("dry-run"):
		return fault.New(fault.Usage, "a plain token has no agent to seal the answer for, so the key needs a file").Hint("azs-relay register --token-file %s --key-out ActivationKey.txt", c.String("token-file"))
	case plain && (c.String("out") != "" || c.String("put") != ""):
		return fault.New(fault.Usage, "a plain token has no agent to seal the answer for: --out and --put need a request")
	case c.NArg() > 1 && (c.String("out") != "" || c.String("key-out") != "" || c.String("name") != ""):
		return fault.New(fault.Usage, "--out, --key-out and --name are for one request, %d were given", c.NArg()).Hint("azs-relay register … --put DIR")
	}
	return nil
}

// work is one job and where it came from.
type work struct {
	source string
	*flow.Job
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
	for _, path := range r.c.Args().Slice() {
		raw, err := r.env.ReadBundle(path)
		if err != nil {
			return nil, err
		}
		j, err := r.relay.Read(raw)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		jobs = append(jobs, work{path, j})
	}
	sort.SliceStable(jobs, func(a, b int) bool { return jobs[a].Manifest.Seq < jobs[b].Manifest.Seq })
	return jobs, nil
}

func (r *registering) one(ctx context.Context, w work) (result, error) {
	res := result{Source: w.source, Trip: w.Trip, CloudID: w.Ask.CloudID}
	e := r.env
	if w.Peer != nil {
		res.Agent = w.Peer.Label()
		e.Console.Say("request %s of agent %q for stamp %q: token of %d characters", w.Trip, w.Peer.Label(), w.Ask.CloudID, w.Token.Text.Len())
		e.Console.Say("  %s", flow.Skew(w.Job))
		if w.Ask.Note != "" {
			e.Console.Say("  note: %q", w.Ask.Note)
		}
	}
	for _, warning := range w.Token.Warnings {
		e.Console.Warn("%s", warning)
	}
	if r.c.Bool("dry-run") {
		p, err := r.plan(ctx, w)
		if err == nil {
			res.Registration, res.Requests = p.ID.String(), p.Writes()
		}
		return res, err
	}
	out, err := r.relay.Done(w.Job, r.order)
	if err != nil {
		return res, err
	}
	if out == nil || r.c.String("key-out") != "" {
		p, err := r.plan(ctx, w)
		if err != nil {
			return res, err
		}
		if out == nil {
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
	res.Registration, res.Again, res.KeyExpires, res.Locked = out.ID.String(), out.Again, t.Data["key-expires"], t.Data["locked"] == "true"
	if out.Answer != nil {
		if err := r.deliver(out, &res); err != nil {
			return res, err
		}
	}
	return res, partial(out)
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
	return nil
}

// plainKey writes the plain activation key, if it was asked for.
func (r *registering) plainKey(ctx context.Context, p *flow.Plan, out *flow.Outcome, res *result) error {
	file := r.c.String("key-out")
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
			Hint("azs-relay register … --yes --subscription %s", p.Subscription.ID)
	case r.env.Yes || !r.env.Console.CanAsk():
		return nil
	}
	ok, err := r.env.Console.Confirm(fmt.Sprintf("register %s in group %s of subscription %q?", p.ID.Name(), p.ID.Group().Name(), p.Subscription.Name), "--yes")
	if err == nil && !ok {
		err = fault.New(fault.Cancelled, "nothing was sent")
	}
	return err
}

func (r *registering) report() {
	if r.c.String("out") == "-" {
		return // standard output holds the answer
	}
	r.env.Console.Result("register", map[string]any{"dryRun": r.c.Bool("dry-run"), "requests": r.results}, func(w io.Writer) {
		for _, res := range r.results {
			for _, q := range res.Requests {
				_ = q.Print(w) // a lost standard output is reported by the console
			}
			if res.Error != "" && res.File == "" || len(res.Requests) > 0 {
				continue
			}
			again := ""
			if res.Again {
				again = ", as answered before"
			}
			fmt.Fprintf(w, "registered %s%s\n  stamp        %q\n  locked       %v\n  key expires  %s\n", res.Registration, again, res.CloudID, res.Locked, res.KeyExpires)
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
	})
}
