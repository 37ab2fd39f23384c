package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
)

func activateVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "activate", Usage: "open the answer and use its activation key once", ArgsUsage: "BUNDLE",
		Description: "Opens the relay's answer, compares it with the request that it answers, checks what the activation key claims, " +
			"and writes the key to a file that New-AzsActivationResource accepts. An answer can be used once; a run that was " +
			"interrupted is finished by the same command. A receipt for the relay is made. " +
			"The signature of the activation key cannot be checked here: only the stamp can.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key-out", Usage: "write the activation key to `FILE`, readable by its owner alone"},
			&cli.StringFlag{Name: "receipt-out", Usage: "write the receipt to `FILE`"},
			&cli.StringFlag{Name: "put", Usage: "write the receipt to the stick or folder `DIR`"},
			acceptClock,
		},
		Action: appkit.Run(runActivate),
	}, appkit.Help{
		Examples: []string{p.Name + " activate answer.azc --key-out activation-key.txt", p.Name + " activate answer.azc --key-out activation-key.txt --put /media/stick"},
		Exit:     []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Expired, fault.Medium, fault.Locked},
	})
}

func runActivate(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	args, err := appkit.Args(c, "BUNDLE")
	if err != nil {
		return err
	}
	if c.String("key-out") == "" {
		return fault.New(fault.Usage, "activate needs a place for the activation key").Hint("azs-agent activate %s --key-out activation-key.txt", args[0])
	}
	raw, err := e.ReadBundle(args[0])
	if err != nil {
		return err
	}
	s, agent, err := open(ctx, e, c)
	if err != nil {
		return err
	}
	defer s.Close()
	file := c.String("key-out")
	a, err := agent.Activate(ctx, raw, flow.KeyFile(file))
	if err != nil {
		return err
	}
	for _, w := range a.Warnings {
		e.Console.Warn("%s", w)
	}
	e.Console.Say("key: %s\n%s", a.Key.Describe(), official.Unverified)
	places, err := e.Write(appkit.Out{File: c.String("receipt-out"), Dir: c.String("put")}, bundle.KindReceipt, a.ReceiptID, a.Receipt.Text())
	for _, p := range places {
		if jerr := agent.Exported(a.Trip, p); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "the key is in %s and the receipt is kept, but the receipt did not leave: %w", file, err).Hint("azs-agent put %s DIR", s.Path(a.ReceiptFile))
	}
	ans := a.Answer
	e.Console.Result("activation", map[string]any{
		"trip": a.Trip, "outcome": a.Outcome, "again": a.Again, "keyFile": file, "keySha256": ans.KeySHA256, "keyExpires": ans.KeyExpires,
		"cloudId": ans.CloudID, "subscription": ans.Subscription, "resourceGroup": ans.ResourceGroup, "registration": ans.Registration,
		"receipt": s.Path(a.ReceiptFile), "places": places, "skewFromSeconds": int(a.SkewFrom.Seconds()), "skewToSeconds": int(a.SkewTo.Seconds()), "warnings": a.Warnings,
	}, func(w io.Writer) {
		fmt.Fprintf(w, "activation key for stamp %q\n  registered   %q in group %q of subscription %s\n  key          %s, expires %s\n  digest       %s\n  clocks       relay minus agent lies between %s and %s\n  receipt      %s\n  next         New-AzsActivationResource … -ActivationKey (Get-Content -Raw %s).Trim()\n",
			ans.CloudID, ans.Registration, ans.ResourceGroup, ans.Subscription, file, ans.KeyExpires, ans.KeySHA256,
			a.SkewFrom.Round(time.Second), a.SkewTo.Round(time.Second), s.Path(a.ReceiptFile), file)
	})
	return nil
}
