package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
)

func activateVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "activate", Usage: "open the answer and use its activation key once", ArgsUsage: "[BUNDLE]",
		Description: "Opens the relay's answer, compares it with the request that it answers, checks what the activation key claims, " +
			"and activates the stamp (--pep), or writes the key to a file that New-AzsActivationResource accepts (--key-out). " +
			"An answer can be used once; a run that was interrupted is finished by the same command, which asks the endpoint " +
			"what became of an activation before it begins another. A receipt for the relay is made. " +
			"The answer to azs-agent deactivate holds no key, and needs neither --pep nor --key-out. " +
			"--key-file activates the stamp with a plain key of the official scripts instead of an answer. " +
			"The signature of the activation key cannot be checked here: only the stamp can.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "key-out", Usage: "write the activation key to `FILE`, readable by its owner alone"},
			&cli.StringFlag{Name: "receipt-out", Usage: "write the receipt to `FILE`"},
			&cli.StringFlag{Name: "put", Usage: "write the receipt to the stick or folder `DIR`"},
			&cli.StringFlag{Name: "key-file", Usage: "plain activation key `FILE` instead of an answer; needs --pep"},
			&cli.StringFlag{Name: "assume", Usage: "`applied|failed`: what became of an activation whose end nobody saw, as the administrator portal shows it"},
			acceptClock, appkit.ScanFlag(),
		}, pepFlags()...),
		Action: appkit.Run(runActivate),
	}, appkit.Help{
		Examples: []string{p.Name + ` activate answer.azc --pep 192.0.2.1 --pep-user 'AZURESTACK\CloudAdmin' --put /media/stick`, p.Name + " activate answer.azc --key-out activation-key.txt", p.Name + " activate answer.azc --key-out activation-key.txt --put /media/stick",
			p.Name + " activate removed.azc --put /media/stick"},
		Exit: append([]fault.Kind{fault.Replay, fault.Expired, fault.Approval}, pepExits...),
	})
}

func runActivate(ctx context.Context, e *appkit.Env, c *cli.Context) (err error) {
	args, err := appkit.Args(c, "[BUNDLE]")
	if err != nil {
		return err
	}
	scan := len(c.StringSlice("scan")) > 0
	file, plain := c.String("key-out"), c.String("key-file")
	// An address from the environment is for the verbs that need one.
	far := c.String("pep") != "" && (file == "" || c.String("pep") != os.Getenv("AZS_PEP"))
	switch {
	case (len(args) == 0 && !scan) == (plain == ""):
		return fault.New(fault.Usage, "activate takes one answer, --scan or --key-file").Hint("azs-agent activate ANSWER --pep … --pep-user USER")
	case far && file != "":
		return fault.New(fault.Usage, "--pep and --key-out contradict each other")
	case plain != "" && !far:
		return fault.New(fault.Usage, "--key-file needs the privileged endpoint").Hint("azs-agent activate --key-file %s --pep … --pep-user USER", plain)
	}
	assume := c.String("assume")
	if assume != "" && assume != "applied" && assume != "failed" {
		return fault.New(fault.Usage, "--assume is %q, want applied or failed", assume)
	}
	var raw []byte
	if plain != "" {
		raw, err = medium.ReadText(plain, official.MaxRaw)
	} else {
		if args, err = e.Scanned(ctx, c, args); err == nil {
			raw, err = e.ReadBundle(args[0])
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = e.ScanUsed(err) }()
	s, agent, err := open(ctx, e, c)
	if err != nil {
		return err
	}
	defer s.Close()
	removal := false
	if plain == "" {
		if sealed, err := bundle.Split(raw); err == nil { // what is wrong with it, Activate says
			if m, err := sealed.Peek(); err == nil {
				removal = flow.Removal(s.Ledger, m)
			}
		}
	}
	var to flow.Sink
	switch {
	case removal: // has no key, so it goes nowhere
	case !far && file == "":
		return fault.New(fault.Usage, "activate needs the privileged endpoint or a file for the activation key").Hint("azs-agent activate %s --key-out activation-key.txt", append(args, "--scan page")[0])
	case !far:
		to = flow.KeyFile(file)
	default:
		pep, err := endpoint(e, c)
		if err != nil {
			return err
		}
		defer pep.Close(ctx)
		pep.Assume = assume
		if plain != "" {
			return activatePlain(ctx, e, agent, raw, pep)
		}
		to = pep
	}
	a, err := agent.Activate(ctx, raw, to)
	if err != nil {
		return err
	}
	return report(e, c, s, agent, a)
}

// activatePlain hands a plain key to the stamp.
func activatePlain(ctx context.Context, e *appkit.Env, agent *flow.Agent, raw []byte, to *flow.Endpoint) error {
	key, err := agent.ActivateKey(ctx, raw, to)
	if err != nil {
		return err
	}
	for _, w := range key.Warnings {
		e.Console.Warn("%s", w)
	}
	e.Console.Result("activation", map[string]any{"outcome": bundle.OutcomeApplied, "keySha256": bundle.Digest(key.Digest).String(), "keyExpires": key.Claims.ExpiresText, "cloudId": key.Claims.CloudID}, func(w io.Writer) {
		fmt.Fprintf(w, "stamp %q is activated\n  key  %s, expires %s\n", key.Claims.CloudID, key.Describe(), key.Claims.ExpiresText)
	})
	return nil
}

// report delivers the receipt and tells what was done.
func report(e *appkit.Env, c *cli.Context, s *appkit.Station, agent *flow.Agent, a *flow.Activation) error {
	file := c.String("key-out")
	for _, w := range a.Warnings {
		e.Console.Warn("%s", w)
	}
	if a.Key != nil {
		e.Console.Say("key: %s", a.Key.Describe())
	}
	if a.Outcome == bundle.OutcomeWritten {
		e.Console.Say("%s", official.Unverified)
	}
	places, err := e.Write(appkit.Out{File: c.String("receipt-out"), Dir: c.String("put")}, bundle.KindReceipt, a.ReceiptID, a.Receipt.Text())
	for _, p := range places {
		if jerr := agent.Exported(a.Trip, p); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "the answer was used and the receipt is kept, but the receipt did not leave: %w", err).Hint("azs-agent put %s DIR", s.Path(a.ReceiptFile))
	}
	ans := a.Answer
	if a.Key == nil {
		e.Console.Result("removal", map[string]any{
			"trip": a.Trip, "outcome": "removed", "again": a.Again, "cloudId": ans.CloudID, "subscription": ans.Subscription, "resourceGroup": ans.ResourceGroup,
			"registration": ans.Registration, "note": ans.Note, "receipt": s.Path(a.ReceiptFile), "places": appkit.List(places),
		}, func(w io.Writer) {
			fmt.Fprintf(w, "the registration of stamp %q is removed\n  was          %q in group %q of subscription %s\n", ans.CloudID, ans.Registration, ans.ResourceGroup, ans.Subscription)
			if ans.Note != "" {
				fmt.Fprintf(w, "  note         %q\n", ans.Note)
			}
			fmt.Fprintf(w, "  receipt      %s\n", s.Path(a.ReceiptFile))
		})
		return nil
	}
	e.Console.Result("activation", map[string]any{
		"trip": a.Trip, "outcome": a.Outcome, "again": a.Again, "keyFile": file, "keySha256": ans.KeySHA256.String(), "keyExpires": ans.KeyExpires,
		"cloudId": ans.CloudID, "subscription": ans.Subscription, "resourceGroup": ans.ResourceGroup, "registration": ans.Registration,
		"receipt": s.Path(a.ReceiptFile), "places": appkit.List(places), "skewFromSeconds": int(a.SkewFrom.Seconds()), "skewToSeconds": int(a.SkewTo.Seconds()), "warnings": appkit.List(a.Warnings),
	}, func(w io.Writer) {
		if a.Outcome == bundle.OutcomeApplied {
			fmt.Fprintf(w, "stamp %q is activated\n", ans.CloudID)
		} else {
			fmt.Fprintf(w, "activation key for stamp %q\n  file         %s\n", ans.CloudID, file)
		}
		fmt.Fprintf(w, "  registered   %q in group %q of subscription %s\n  key expires  %s\n  digest       %s\n  clocks       relay minus agent lies between %s and %s\n  receipt      %s\n",
			ans.Registration, ans.ResourceGroup, ans.Subscription, ans.KeyExpires, ans.KeySHA256,
			a.SkewFrom.Round(time.Second), a.SkewTo.Round(time.Second), s.Path(a.ReceiptFile))
		if a.Outcome == bundle.OutcomeWritten {
			fmt.Fprintf(w, "  next         New-AzsActivationResource … -ActivationKey (Get-Content -Raw %s).Trim()\n", file)
		}
	})
	return nil
}
