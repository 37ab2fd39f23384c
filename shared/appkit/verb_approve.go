package appkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/sshkey"
	"github.com/azs-courier/azs-courier/shared/sshsig"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// The notes of approvals in the journal.
const (
	noteApproved  = "approved"
	noteApprovers = "approvers"
)

func approveVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "approve", Usage: "put a second person's signature under a bundle", ArgsUsage: "BUNDLE",
		Description: "Shows the cover sheet, asks, and adds a signature over the same manifest to the bundle: nothing else of it changes, " +
			"and it stays the same bundle to everybody. Any machine can do it, with a state folder or without: the key is an OpenSSH private key (--key), " +
			"one that an ssh-agent holds (--agent-key), or it signs elsewhere with ssh-keygen (--signature). What is inside, `inspect` shows on the side that the bundle is for. " +
			"Whose approvals are wanted, the side that acts on the bundle decides (see approvers).",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Usage: "OpenSSH private key `FILE`; its passphrase is asked for, or read from --passphrase-file"},
			&cli.StringFlag{Name: "agent-key", Usage: "key of the ssh-agent: its SHA256:… fingerprint, its comment or the file of its public half, `KEY`"},
			&cli.StringFlag{Name: "signature", Usage: "signature `FILE` that `ssh-keygen -Y sign -n " + bundle.NamespaceApproval + "` made over the manifest"},
			&cli.StringFlag{Name: "out", Usage: "write the approved bundle to `FILE`, or to standard output with -, instead of over the old one"},
			&cli.StringFlag{Name: "expect-digest", Usage: "approve only the bundle whose cover sheet says digest `HEX`; --yes needs it"},
		},
		Action: Run(runApprove),
	}, Help{
		Examples: []string{
			p.Name + " approve request.azc --key ~/.ssh/id_ed25519",
			p.Name + " approve request.azc --agent-key ~/.ssh/id_ed25519_sk.pub --out approved.azc",
			p.Name + " approve request.azc --signature manifest.sig",
		},
		Exit: []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Medium, fault.Locked},
	})
}

func runApprove(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "BUNDLE")
	if err != nil {
		return err
	}
	given := 0
	for _, name := range []string{"key", "agent-key", "signature"} {
		if c.String(name) != "" {
			given++
		}
	}
	if given != 1 {
		return fault.New(fault.Usage, "approve needs one of --key, --agent-key and --signature").Hint("%s approve %s --key KEYFILE", e.Program, args[0])
	}
	raw, err := e.ReadBundle(args[0])
	if err != nil {
		return err
	}
	b, err := bundle.Split(raw)
	if err != nil {
		return err
	}
	v, sheet, err := sheetOf(b)
	if err != nil {
		return err
	}
	if want := c.String("expect-digest"); want != "" && want != sheet.Digest {
		return fault.New(fault.NotForUs, "bundle %s has digest %s, --expect-digest says %s", sheet.Bundle, sheet.Digest, want)
	}
	var text bytes.Buffer
	sheet.print(&text)
	e.Console.Say("%s", bytes.TrimRight(text.Bytes(), "\n"))
	if err := e.mayApprove(c, sheet); err != nil {
		return err
	}
	approved, key, err := e.approve(ctx, c, b)
	if err != nil {
		return err
	}
	if err := e.writeApproved(c, args[0], raw, approved); err != nil {
		return err
	}
	if err := e.noteApproval(sheet, key); err != nil {
		return err
	}
	e.Console.Result("approved", map[string]any{"kind": sheet.Kind, "bundle": sheet.Bundle, "digest": sheet.Digest,
		"key": bundle.KeyFingerprint(key), "approvals": len(v.Approvers()) + 1},
		func(w io.Writer) {
			fmt.Fprintf(w, "%s %s is approved by %s, %d approvals in all\n", sheet.Kind, sheet.Bundle, bundle.KeyFingerprint(key), len(v.Approvers())+1)
		})
	return nil
}

// mayApprove asks the person, or takes the word of a script that knows the digest.
func (e *Env) mayApprove(c *cli.Context, sheet *cover) error {
	if e.Yes {
		if c.String("expect-digest") == "" {
			return fault.New(fault.Usage, "--yes approves nothing that it does not name: it needs --expect-digest").Hint("%s approve … --yes --expect-digest %s", e.Program, sheet.Digest)
		}
		return nil
	}
	ok, err := e.Console.Confirm(fmt.Sprintf("approve %s %s?", sheet.Kind, sheet.Bundle), "--yes --expect-digest HEX")
	if err == nil && !ok {
		err = fault.New(fault.Cancelled, "nothing was approved")
	}
	return err
}

// approve adds the signature of the key that the flags name.
func (e *Env) approve(ctx context.Context, c *cli.Context, b *bundle.Bundle) (*bundle.Bundle, ssh.PublicKey, error) {
	if file := c.String("signature"); file != "" {
		armored, err := medium.ReadText(file, 16<<10)
		if err != nil {
			return nil, nil, err
		}
		return b.ApproveBy(armored)
	}
	var signer ssh.Signer
	if name := c.String("agent-key"); name != "" {
		key, err := sshkey.Find(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		signer = sshkey.Signer(ctx, key)
	} else {
		var err error
		if signer, err = e.privateKey(c.String("key")); err != nil {
			return nil, nil, err
		}
	}
	approved, err := b.Approve(Random, signer)
	return approved, signer.PublicKey(), err
}

// privateKey reads an OpenSSH private key; a passphrase is asked for only if it has
// one.
func (e *Env) privateKey(file string) (ssh.Signer, error) {
	pem, err := medium.ReadText(file, 16<<10)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		pass, perr := e.passphraseOf(fmt.Sprintf("%q", file))
		if perr != nil {
			return nil, perr
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(pem, []byte(pass.Reveal()))
	}
	if err != nil {
		return nil, fault.New(fault.Locked, "%q is no OpenSSH private key, or its passphrase is wrong", file)
	}
	if t := signer.PublicKey().Type(); !sshsig.Allowed(t) {
		return nil, fault.New(fault.Usage, "the key in %q is of type %q, which signs no manifest", file, t).Hint("ssh-keygen -t ed25519")
	}
	return signer, nil
}

// writeApproved puts the bundle over the old one, which it holds whole, or where
// --out says.
func (e *Env) writeApproved(c *cli.Context, path string, was []byte, b *bundle.Bundle) error {
	switch out := c.String("out"); {
	case out == "-":
		e.Console.Data(b.Text())
		return nil
	case out != "":
		return medium.Save(out, b.Text(), false)
	default:
		return medium.Replace(path, was, b.Text())
	}
}

// noteApproval writes the approval into the journal of a machine that has one.
func (e *Env) noteApproval(sheet *cover, key ssh.PublicKey) error {
	s, err := e.Station()
	if fault.KindOf(err) == fault.Locked { // no state here
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	trip := ""
	if t, ok := s.Ledger.FindByDigest(sheet.Digest); ok {
		trip = t.ID
	}
	_, err = s.Ledger.Append(noteApproved, trip, map[string]string{"bundle": sheet.Bundle, "digest": sheet.Digest, "key": string(bundle.KeyFingerprint(key))})
	return err
}

func approversVerb(p Program) *cli.Command {
	exits := []fault.Kind{fault.Usage, fault.Refused, fault.Medium, fault.Locked}
	return Describe(&cli.Command{
		Name: "approvers", Usage: "say whose approval is needed before this side acts on a bundle",
		Description: "Without a subcommand, shows the rule. From `approvers need N` on, what comes in is acted on only when N of the approvers have signed it beside its author: " +
			"register, unregister and batch, or activate, refuse it with exit code 11 and name who is missing. What has no bundle (a plain token or key, a removal by name, a move) is refused as well. " +
			"Every change is written into the journal; one that asks for less is asked about.",
		Action: Run(runApprovers),
		Subcommands: []*cli.Command{
			Describe(&cli.Command{Name: "add", Usage: "add an approver", ArgsUsage: "LABEL KEY", Description: "KEY is the file of a public SSH key (FILE.pub), or names a key of the ssh-agent. Own and pinned keys approve nothing.", Action: Run(runApproversAdd)},
				Help{Examples: []string{p.Name + " approvers add ana ana.pub"}, Exit: exits}),
			Describe(&cli.Command{Name: "remove", Usage: "remove an approver", ArgsUsage: "LABEL", Description: "The approvals of the approver count no more, also those that were given.", Action: Run(runApproversRemove)},
				Help{Examples: []string{p.Name + " approvers remove ana"}, Exit: exits}),
			Describe(&cli.Command{Name: "need", Usage: "say how many approvals are needed", ArgsUsage: "N", Description: "N of the approvers that were added; 0 asks for none.", Action: Run(runApproversNeed)},
				Help{Examples: []string{p.Name + " approvers need 2"}, Exit: exits}),
		},
	}, Help{Examples: []string{p.Name + " approvers", p.Name + " approvers add ana ana.pub", p.Name + " approvers need 1"}, Exit: exits})
}

func runApprovers(_ context.Context, e *Env, c *cli.Context) error {
	if _, err := Args(c); err != nil {
		return err
	}
	s, err := e.Reading()
	if err != nil {
		return err
	}
	defer s.Close()
	e.showApprovers(s.Policy)
	return nil
}

func (e *Env) showApprovers(a trust.Approvers) {
	type approver struct {
		Label string             `json:"label"`
		Key   bundle.Fingerprint `json:"key"`
	}
	all := []approver{}
	for _, p := range a.All {
		all = append(all, approver{p.Label, bundle.KeyFingerprint(p.Key)})
	}
	e.Console.Result("approvers", map[string]any{"need": a.Need, "approvers": all}, func(w io.Writer) {
		fmt.Fprintf(w, "%d of %d approvals are needed\n", a.Need, len(all))
		for _, p := range all {
			fmt.Fprintf(w, "  %-20s %s\n", p.Label, p.Key)
		}
	})
}

func runApproversAdd(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "LABEL", "KEY")
	if err != nil {
		return err
	}
	key, err := sshkey.Find(ctx, args[1])
	if err != nil {
		return err
	}
	return e.changeApprovers(ctx, func(a *trust.Approvers) error {
		if slices.ContainsFunc(a.All, func(p trust.Approver) bool {
			return p.Label == args[0] && bytes.Equal(p.Key.Marshal(), key.Marshal())
		}) {
			return nil
		}
		a.All = append(a.All, trust.Approver{Label: args[0], Key: key})
		return nil
	})
}

func runApproversRemove(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "LABEL")
	if err != nil {
		return err
	}
	return e.changeApprovers(ctx, func(a *trust.Approvers) error {
		i := slices.IndexFunc(a.All, func(p trust.Approver) bool { return p.Label == args[0] })
		if i < 0 {
			return fault.New(fault.Usage, "no approver has the label %q", args[0]).Hint("%s approvers", e.Program)
		}
		if a.Need >= len(a.All) {
			return fault.New(fault.Usage, "%d approvals are needed: without %q only %d could approve", a.Need, args[0], len(a.All)-1).
				Hint("%s approvers need %d", e.Program, len(a.All)-1)
		}
		a.All = slices.Delete(a.All, i, i+1)
		return nil
	})
}

func runApproversNeed(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "N")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return fault.New(fault.Usage, "%q is no number of approvals", args[0])
	}
	return e.changeApprovers(ctx, func(a *trust.Approvers) error {
		if n < a.Need && !e.Yes {
			ok, err := e.Console.Confirm(fmt.Sprintf("%d approvals instead of %d from now on?", n, a.Need), "--yes")
			if err == nil && !ok {
				err = fault.New(fault.Cancelled, "the rule stays as it was")
			}
			if err != nil {
				return err
			}
		}
		a.Need = n
		return nil
	})
}

// changeApprovers changes the rule and journals it. The journal comes first: a rule
// that changed is never untold.
func (e *Env) changeApprovers(ctx context.Context, change func(*trust.Approvers) error) error {
	s, err := e.Station()
	if err != nil {
		return err
	}
	defer s.Close()
	release, err := s.claimPeers(ctx)
	if err != nil {
		return err
	}
	defer release()
	a, err := s.Store.Approvers()
	if err != nil {
		return err
	}
	was := a
	a.All = slices.Clone(a.All)
	if err := change(&a); err != nil {
		return err
	}
	if was.Need != a.Need || len(was.All) != len(a.All) {
		if err := s.Store.CheckApprovers(&a); err != nil {
			return err
		}
		var all []string
		for _, p := range a.All {
			all = append(all, p.Label+"="+string(bundle.KeyFingerprint(p.Key)))
		}
		data := map[string]string{"need": strconv.Itoa(a.Need), "was": strconv.Itoa(was.Need), "approvers": strings.Join(all, " ")}
		if _, err := s.Ledger.Append(noteApprovers, "", data); err != nil {
			return err
		}
		if err := s.Store.SetApprovers(a); err != nil {
			return err
		}
	}
	e.showApprovers(a)
	return nil
}
