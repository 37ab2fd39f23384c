package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/ageplugin"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/sshkey"
)

// Protection says where new keys are made and how they are kept.
type Protection struct {
	Passphrase secret.Text
	Insecure   bool // no passphrase, spelt out by the operator
	WorkFactor int  // log2 of scrypt's N; 0 is age's default

	Agent    ssh.PublicKey // the signing key, which an ssh-agent holds; nil makes one here
	Plugin   *Plugin       // what holds the age identity; nil makes one here
	Recovery []string      // further age recipients: what is sealed to us is sealed to them too
}

// Plugin names an age identity that an age plugin holds.
type Plugin struct {
	Path      string // absolute
	Identity  string // AGE-PLUGIN-…
	Recipient string // age1tag1…, age1tagpq1…, age1…, age1pq1…
}

// Hardware reports whether no private key is made here at all.
func (p Protection) Hardware() bool { return p.Agent != nil && p.Plugin != nil }

// checkProtection holds the rules that do not depend on the keys themselves.
func (s Store) checkProtection(p Protection) error {
	open := p.Passphrase.Empty()
	switch {
	case open && !p.Insecure && !p.Hardware(), !open && p.Insecure:
		return fault.New(fault.Usage, "an identity has either a passphrase or, spelt out, none").Hint("add --passphrase-file FILE, or --insecure-no-passphrase")
	case open && !s.files.Private():
		return fault.New(fault.Usage, "%s is shared: an identity stands in it under a passphrase only", s.files)
	case p.Plugin != nil && !s.files.Private():
		// Who may write there would choose a program that runs here.
		return fault.New(fault.Usage, "%s is shared: it names no age plugin for its hosts to start", s.files)
	}
	return nil
}

// keys are one generation of a side's keys.
type keys struct {
	signer     ssh.Signer
	ages       []age.Identity
	recipients []string // of new keys only: their own
	agent      bool     // the signing key is in an ssh-agent
	plugin     bool     // the age identity is in an age plugin
	text       []byte   // how they stand in the identity file
}

// The lines of the identity file for keys that are elsewhere.
const (
	agentLine  = "ssh-agent: "  // and the public key as in authorized_keys
	pluginLine = "age-plugin: " // and the path; the plugin's identity is the line behind
)

// newKeys makes keys, or takes those that hardware has. A plugin has to open what
// is sealed to its recipient before the recipient stands on a card.
func (s Store) newKeys(label string, p Protection, rand io.Reader) (*keys, error) {
	k := &keys{}
	if p.Agent != nil {
		if err := sshkey.Held(s.ctx, p.Agent); err != nil {
			return nil, err
		}
		k.signer, k.agent = sshkey.Signer(s.ctx, p.Agent), true
		k.text = append([]byte(agentLine), ssh.MarshalAuthorizedKey(p.Agent)...)
	} else {
		_, key, err := ed25519.GenerateKey(rand)
		if err != nil {
			return nil, fmt.Errorf("make the signing key: %w", err)
		}
		if k.signer, err = ssh.NewSignerFromKey(key); err != nil {
			return nil, fmt.Errorf("make the signing key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(key, label)
		if err != nil {
			return nil, fmt.Errorf("spell the signing key: %w", err)
		}
		k.text = pem.EncodeToMemory(block)
	}
	if p.Plugin != nil {
		id, err := ageplugin.New(s.ctx, p.Plugin.Path, p.Plugin.Identity, s.ui)
		if err != nil {
			return nil, err
		}
		if err := opens(id, p.Plugin.Recipient); err != nil {
			return nil, err
		}
		k.ages, k.recipients, k.plugin = []age.Identity{id}, []string{p.Plugin.Recipient}, true
		k.text = fmt.Appendf(k.text, "%s%s\n%s\n", pluginLine, id.Path(), id)
	} else {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return nil, fmt.Errorf("make the age identity: %w", err)
		}
		k.ages, k.recipients = []age.Identity{id}, []string{id.Recipient().String()}
		k.text = append(k.text, id.String()+"\n"...)
	}
	all := append(slices.Clone(k.recipients), p.Recovery...)
	for _, r := range p.Recovery {
		if _, err := bundle.ParseRecipient(r); err != nil {
			return nil, fault.New(fault.Usage, "recovery recipient: %w", err)
		}
	}
	if err := bundle.CheckRecipients(all); err != nil {
		return nil, fault.New(fault.Usage, "bundles cannot be sealed to the %d recipients at once: %w; post-quantum ones (age1pq1…, age1tagpq1…) stand beside their like only", len(all), err).
			Hint("age-keygen -pq -o recovery.key")
	}
	return k, nil
}

// opens proves that an identity opens what is sealed to a recipient.
func opens(id age.Identity, recipient string) error {
	r, err := bundle.ParseRecipient(recipient)
	if err != nil {
		return fault.New(fault.Usage, "recipient of the age plugin: %w", err)
	}
	var file bytes.Buffer
	w, err := age.Encrypt(&file, r)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("try the age plugin: %w", err)
	}
	_, err = age.Decrypt(&file, id)
	var foreign *age.NoIdentityMatchError
	if errors.As(err, &foreign) {
		return fault.New(fault.Usage, "the age plugin's identity does not open what is sealed to %s", short(recipient))
	}
	return err
}

// short names a recipient, which may have two thousand characters.
func short(recipient string) string {
	if len(recipient) > 40 {
		return recipient[:32] + "…"
	}
	return recipient
}

// parseKeys reads the identity file: generations of keys, each of a signing key
// and an age identity, the newest first. No plugin is started and no agent asked.
func (s Store) parseKeys(text []byte) ([]*keys, error) {
	var all []*keys
	for first := true; first || len(bytes.TrimSpace(text)) > 0; first = false {
		k, rest, err := s.parseGeneration(text)
		if err != nil {
			return nil, err
		}
		k.text = text[:len(text)-len(rest)]
		all, text = append(all, k), rest
	}
	return all, nil
}

func (s Store) parseGeneration(text []byte) (k *keys, rest []byte, err error) {
	k = &keys{}
	if after, ok := bytes.CutPrefix(text, []byte(agentLine)); ok {
		line, more, _ := bytes.Cut(after, []byte("\n"))
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return nil, nil, fault.New(fault.Locked, "signing key of the identity is damaged")
		}
		k.signer, k.agent, rest = sshkey.Signer(s.ctx, key), true, more
	} else {
		block, more := pem.Decode(text)
		if block == nil {
			return nil, nil, fault.New(fault.Locked, "identity holds no signing key")
		}
		if k.signer, err = ssh.ParsePrivateKey(pem.EncodeToMemory(block)); err != nil {
			return nil, nil, fault.New(fault.Locked, "signing key of the identity is damaged")
		}
		rest = more
	}
	line, rest, _ := bytes.Cut(rest, []byte("\n"))
	if path, ok := strings.CutPrefix(string(line), pluginLine); ok {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if !s.files.Private() {
			return nil, nil, fault.New(fault.Locked, "the identity of %s names an age plugin, and is shared: none is started", s.files)
		}
		id, err := ageplugin.New(s.ctx, path, string(line), s.ui)
		if err != nil {
			return nil, nil, err
		}
		k.ages, k.plugin = []age.Identity{id}, true
		return k, rest, nil
	}
	if k.ages, err = age.ParseIdentities(bytes.NewReader(line)); err != nil {
		return nil, nil, fault.New(fault.Locked, "age key of the identity is damaged")
	}
	return k, rest, nil
}

// find returns the keys of a card, or nil.
func find(all []*keys, card *Card) *keys {
	for _, k := range all {
		if bytes.Equal(k.signer.PublicKey().Marshal(), card.Key.Marshal()) {
			return k
		}
	}
	return nil
}
