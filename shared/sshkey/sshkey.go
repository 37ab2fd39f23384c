// Package sshkey signs with a key that somebody else holds: an ssh-agent, and
// behind it a security key, a TPM or a smart card.
//
// The security property: the private key never comes here. What does come, a
// signature, is verified against the public key that was asked for before anybody
// sees it, so an agent that is replaced or broken can only fail to sign. The
// public key is named by its whole fingerprint, by a file or by a comment that
// only one key has; once chosen, the key itself is kept, never its comment.
//
// The limit: an agent that signs for this account signs for every program of this
// account. Keys that ask for a touch (sk-ssh-ed25519@openssh.com) or for a
// confirmation (ssh-add -c) are the remedy.
package sshkey

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// maxPublic is the most bytes of a file with a public key.
const maxPublic = 16 << 10

// Find returns the public key that name means: the path of a public key file as
// ssh-keygen writes it (it ends in .pub), or, of the keys in the agent, the
// fingerprint SHA256:… or the comment of one. It has to be of a type that may
// sign (sshsig). No such key is [fault.Locked]; a name that two keys have is
// [fault.Usage].
func Find(ctx context.Context, name string) (ssh.PublicKey, error) {
	if strings.HasSuffix(name, ".pub") {
		return readPublic(name)
	}
	keys, err := list(ctx)
	if err != nil {
		return nil, err
	}
	var found []*agent.Key
	for _, k := range keys {
		if ssh.FingerprintSHA256(k) == name || k.Comment == name {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fault.New(fault.Locked, "the ssh-agent holds no key %q, it holds %q", name, names(keys)).Hint("ssh-add KEYFILE")
	case len(found) > 1:
		return nil, fault.New(fault.Usage, "%d keys in the ssh-agent are called %q: %q", len(found), name, names(found)).Hint("ssh-add -l")
	}
	return parse(found[0].Blob, name)
}

func readPublic(path string) (ssh.PublicKey, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fault.New(fault.Medium, "public key file: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxPublic:
		return nil, fault.New(fault.Medium, "public key file %q is not a regular file of at most %d bytes", path, maxPublic)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "public key file: %w", err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fault.New(fault.Usage, "file %q holds no public key as ssh-keygen writes it", path)
	}
	return parse(key.Marshal(), path)
}

// parse reads a key blob and holds it to the types that may sign.
func parse(blob []byte, name string) (ssh.PublicKey, error) {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fault.New(fault.Usage, "key %q cannot be read: %w", name, err)
	}
	if !sshsig.Allowed(key.Type()) {
		return nil, fault.New(fault.Usage, "key %q is of the type %s, want ssh-ed25519, sk-ssh-ed25519@openssh.com, ecdsa-sha2-nistp256 or ecdsa-sha2-nistp384", name, key.Type()).
			Hint("ssh-keygen -t ed25519")
	}
	return key, nil
}

func names(keys []*agent.Key) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, ssh.FingerprintSHA256(k)+" "+k.Comment)
	}
	return out
}

// Signer returns a signer for the key, which the ssh-agent is asked for anew at
// each signature. An agent that is missing or locked, or has the key no more, is
// [fault.Locked]. Nothing is asked before the first signature. A security key
// may wait for its touch until ctx ends.
func Signer(ctx context.Context, key ssh.PublicKey) ssh.Signer { return held{ctx, key} }

// held is a key that an agent holds.
type held struct {
	ctx context.Context
	key ssh.PublicKey
}

func (h held) PublicKey() ssh.PublicKey { return h.key }

// Sign implements [ssh.Signer]. The random source is the agent's own.
func (h held) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	fingerprint := ssh.FingerprintSHA256(h.key)
	var sig *ssh.Signature
	err := withAgent(h.ctx, func(a agent.Agent) (err error) {
		if err := holds(a, h.key); err != nil {
			return err
		}
		if sig, err = a.Sign(h.key, data); err != nil {
			return fault.New(fault.Locked, "the ssh-agent does not sign with %s: %w; the touch or the confirmation was missing, perhaps", fingerprint, err).Hint("ssh-add -l")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := h.key.Verify(data, sig); err != nil {
		return nil, fault.New(fault.Locked, "what the ssh-agent returned is no signature of %s: %w", fingerprint, err).Hint("ssh-add -T PUBLICKEYFILE")
	}
	return sig, nil
}

// Held reports whether the ssh-agent would be asked in vain for a signature of the
// key: nil, or [fault.Locked] as [Signer] has it. Nobody is asked for a touch.
func Held(ctx context.Context, key ssh.PublicKey) error {
	return withAgent(ctx, func(a agent.Agent) error { return holds(a, key) })
}

func holds(a agent.Agent, key ssh.PublicKey) error {
	keys, err := a.List()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if bytes.Equal(k.Blob, key.Marshal()) {
			return nil
		}
	}
	if len(keys) == 0 { // a locked agent says the same
		return fault.New(fault.Locked, "the ssh-agent holds no key, or is locked; the signing key is %s", ssh.FingerprintSHA256(key)).Hint("ssh-add -X   # or, when it is not locked, ssh-add KEYFILE")
	}
	return fault.New(fault.Locked, "the ssh-agent does not hold the signing key %s any more, it holds %q", ssh.FingerprintSHA256(key), names(keys)).Hint("ssh-add KEYFILE")
}

func list(ctx context.Context) (keys []*agent.Key, err error) {
	err = withAgent(ctx, func(a agent.Agent) error {
		keys, err = a.List()
		return err
	})
	return keys, err
}

// withAgent connects to the agent for one conversation, which ends with ctx.
func withAgent(ctx context.Context, talk func(agent.Agent) error) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err = talk(agent.NewClient(conn))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case fault.KindOf(err) != fault.Unexpected:
		return err
	}
	return fault.New(fault.Locked, "the ssh-agent does not answer as one: %w", err).Hint("ssh-add -l")
}
