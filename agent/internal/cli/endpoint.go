package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/agent/internal/pep"
	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// pepFlags say where the privileged endpoint is and who calls.
func pepFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "pep", Usage: "`ADDRESSES` of the privileged endpoint, one to three with commas, tried in turn", EnvVars: []string{"AZS_PEP"}},
		&cli.StringFlag{Name: "pep-user", Usage: "`USER` of the endpoint: DOMAIN\\CloudAdmin or user@domain", EnvVars: []string{"AZS_PEP_USER"}},
		&cli.StringFlag{Name: "pep-password-file", Usage: "`FILE` that holds the password; otherwise it is asked for", EnvVars: []string{"AZS_PEP_PASSWORD_FILE"}},
		&cli.StringFlag{Name: "pep-password-command", Usage: "`COMMAND` of a credential helper that prints the password; words are split at blanks, no shell", EnvVars: []string{"AZS_PEP_PASSWORD_COMMAND"}},
		&cli.BoolFlag{Name: "pep-tls", Usage: "TLS on port 5986 instead of sealed messages alone on 5985", EnvVars: []string{"AZS_PEP_TLS"}},
		&cli.StringFlag{Name: "pep-ca-file", Usage: "PEM `FILE` of the roots of the endpoint's certificate", EnvVars: []string{"AZS_PEP_CA_FILE"}},
		&cli.StringFlag{Name: "pep-pin", Usage: "`SHA256` of the endpoint's certificate, 64 hex digits, instead of roots", EnvVars: []string{"AZS_PEP_PIN"}},
		&cli.BoolFlag{Name: "pep-basic", Usage: "basic authentication instead of NTLM; only on TLS", EnvVars: []string{"AZS_PEP_BASIC"}},
		&cli.DurationFlag{Name: "pep-timeout", Value: pep.Opening, Usage: "how long an address may take to open a session before the next one is tried", EnvVars: []string{"AZS_PEP_TIMEOUT"}},
		&cli.DurationFlag{Name: "wait", Usage: "how long to wait for a stamp that is busy with another action", EnvVars: []string{"AZS_PEP_WAIT"}},
	}
}

// endpoint reads the flags of the endpoint; nothing is sent yet.
func endpoint(e *appkit.Env, c *cli.Context) (*flow.Endpoint, error) {
	o := sealed.Options{User: c.String("pep-user"), TLS: c.Bool("pep-tls"), Basic: c.Bool("pep-basic")}
	var addresses []string
	for _, a := range strings.Split(c.String("pep"), ",") {
		if a = strings.TrimSpace(a); a != "" {
			addresses = append(addresses, a)
		}
	}
	switch {
	case len(addresses) == 0:
		return nil, fault.New(fault.Usage, "the address of the privileged endpoint is missing").Hint("%s … --pep 192.0.2.1,192.0.2.2,192.0.2.3", e.Program)
	case len(addresses) > 3:
		return nil, fault.New(fault.Usage, "--pep names %d addresses; a stamp has three", len(addresses))
	case c.Duration("pep-timeout") <= 0 || c.Duration("wait") < 0:
		return nil, fault.New(fault.Usage, "--pep-timeout %s and --wait %s: a session takes some time, and nobody waits for less than none", c.Duration("pep-timeout"), c.Duration("wait"))
	case o.User == "":
		return nil, fault.New(fault.Usage, "the user of the privileged endpoint is missing").Hint(`%s … --pep-user 'DOMAIN\CloudAdmin'`, e.Program)
	}
	if file := c.String("pep-ca-file"); file != "" {
		pem, err := medium.ReadText(file, 1<<20)
		if err != nil {
			return nil, err
		}
		if o.Roots = x509.NewCertPool(); !o.Roots.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Usage, "%q holds no PEM certificate", file)
		}
	}
	if pin := c.String("pep-pin"); pin != "" {
		var err error
		if o.Pin, err = hex.DecodeString(strings.ReplaceAll(strings.ToLower(pin), ":", "")); err != nil {
			return nil, fault.New(fault.Usage, "--pep-pin is not 64 hex digits")
		}
	}
	var err error
	if o.Password, err = password(e, c); err != nil {
		return nil, err
	}
	return &flow.Endpoint{
		Options: pep.Options{Addresses: addresses, Dial: pep.Dial(o, appkit.Random), Random: appkit.Random, Sleep: sleep, Say: e.Console.Say,
			Limits: pep.Limits{Opening: c.Duration("pep-timeout")}},
		Wait: c.Duration("wait"),
		Tell: func(sentence string) { e.Console.Say("  %s", sentence) },
	}, nil
}

// password asks one of three sources, in the order file, helper, terminal. It is
// never an argument and never stored.
func password(e *appkit.Env, c *cli.Context) (secret.Text, error) {
	file, command := c.String("pep-password-file"), c.String("pep-password-command")
	switch {
	case file != "" && command != "":
		return secret.Text{}, fault.New(fault.Usage, "--pep-password-file and --pep-password-command contradict each other")
	case file != "":
		return e.LoadSecretFile(file)
	case command == "":
		return e.Console.Secret(fmt.Sprintf("password of %s", c.String("pep-user")), "--pep-password-file F")
	}
	words := strings.Fields(command)
	if len(words) == 0 {
		return secret.Text{}, fault.New(fault.Usage, "--pep-password-command is empty")
	}
	helper := exec.Command(words[0], words[1:]...)
	out, err := helper.Output() // the helper's own messages are not shown: they may hold the password
	line, _, _ := bytes.Cut(out, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if err != nil || len(line) == 0 {
		return secret.Text{}, fault.New(fault.Locked, "the credential helper %q gave no password", words[0]).Hint("%s … --pep-password-file F", e.Program)
	}
	return secret.New(string(line)), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
