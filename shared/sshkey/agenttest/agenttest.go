// Package agenttest is an ssh-agent for tests, with keys that no ssh-agent without
// hardware can have: security keys (sk-ssh-ed25519@openssh.com), made in software.
// It speaks the protocol of a real agent (draft-ietf-sshm-ssh-agent) on a socket.
//
// The limit: its keys are no secret and its user is always present, unless told
// otherwise.
package agenttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// SK is a security key in software: its signatures carry flags and a counter, as
// those of a FIDO token do (OpenSSH PROTOCOL.u2f).
type SK struct {
	Key         ed25519.PrivateKey
	Application string // "ssh:…"
	Absent      bool   // nobody touches it

	mu      sync.Mutex
	counter uint32
}

// PublicKey implements [ssh.Signer].
func (k *SK) PublicKey() ssh.PublicKey {
	pub, err := ssh.ParsePublicKey(ssh.Marshal(struct{ Name, Key, Application string }{
		ssh.KeyAlgoSKED25519, string(k.Key.Public().(ed25519.PublicKey)), k.Application}))
	if err != nil {
		panic(err) // it was just spelt
	}
	return pub
}

// Sign implements [ssh.Signer].
func (k *SK) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counter++
	flags := byte(1) // the user is present
	if k.Absent {
		flags = 0
	}
	app, msg := sha256.Sum256([]byte(k.Application)), sha256.Sum256(data)
	rest := binary.BigEndian.AppendUint32([]byte{flags}, k.counter)
	signed := append(append(app[:], rest...), msg[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.Key, signed), Rest: rest}, nil
}

// Agent holds signers. The other acts of an agent are those of an empty keyring.
type Agent struct {
	agent.Agent
	Signs map[string]ssh.Signer // by comment

	// Mangle, if set, changes what leaves: a broken or hostile agent.
	Mangle func(*ssh.Signature)
}

// New returns an agent that holds the signers, by their comments.
func New(signers map[string]ssh.Signer) *Agent {
	return &Agent{Agent: agent.NewKeyring(), Signs: signers}
}

// List implements [agent.Agent].
func (a *Agent) List() ([]*agent.Key, error) {
	var keys []*agent.Key
	for comment, s := range a.Signs {
		keys = append(keys, &agent.Key{Format: s.PublicKey().Type(), Blob: s.PublicKey().Marshal(), Comment: comment})
	}
	return keys, nil
}

// Sign implements [agent.Agent].
func (a *Agent) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	for _, s := range a.Signs {
		if !bytes.Equal(s.PublicKey().Marshal(), key.Marshal()) {
			continue
		}
		sig, err := s.Sign(nil, data)
		if err == nil && a.Mangle != nil {
			a.Mangle(sig)
		}
		return sig, err
	}
	return nil, errors.New("the key is not here")
}

// Serve answers every connection until the listener is closed, and then waits for
// those that are open.
func (a *Agent) Serve(l net.Listener) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			defer conn.Close()
			_ = agent.ServeAgent(a, conn) // ends when the other side hangs up
		})
	}
}
