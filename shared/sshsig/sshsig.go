// Package sshsig makes and checks SSH signatures in the SSHSIG format (OpenSSH
// PROTOCOL.sshsig), in the narrow profile that a courier bundle needs.
//
// The profile: one fixed hash (SHA-512), an empty reserved field, key types
// ssh-ed25519, sk-ssh-ed25519@openssh.com, ecdsa-sha2-nistp256 and
// ecdsa-sha2-nistp384, and a blob that encodes again to the very bytes it was
// read from. What this package signs, `ssh-keygen -Y verify` checks, and what
// `ssh-keygen -Y sign` makes with such a key, this package checks.
//
// The limit: a signature carries the key that made it, and a valid signature
// by an unknown key proves nothing. [Signature.Verify] says only that the
// embedded key signed the message; whether that key is the pinned one is the
// caller's question, to be asked of [Signature.Key]. An ECDSA signature has a
// second valid form (r, n−s), so a signature is never used as the name of what
// it signs.
package sshsig

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"math/big"

	"golang.org/x/crypto/ssh"
)

const (
	magic   = "SSHSIG"
	version = 1
	hash    = "sha512"

	// MaxBlob is the largest blob that is looked at, in bytes. The largest of
	// the profile, an sk-ssh-ed25519 key with a long application, is far below.
	MaxBlob = 1024
)

// envelope is the blob after the magic, in SSH wire encoding (RFC 4251 §5).
type envelope struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

// preimage is what the key signs, after the magic.
type preimage struct {
	Namespace string
	Reserved  []byte
	Hash      string
	Digest    []byte
}

// Signature is a parsed blob. It has not been verified yet.
type Signature struct {
	Key       ssh.PublicKey // the embedded key: a hint until it is compared with a pinned one
	Namespace string
	sig       *ssh.Signature
}

// Allowed reports whether a key of this type may sign a bundle.
func Allowed(keyType string) bool {
	switch keyType {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384:
		return true
	}
	return false
}

// Sign signs message in a namespace and returns the blob.
func Sign(rand io.Reader, signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	if kt := signer.PublicKey().Type(); !Allowed(kt) {
		return nil, fmt.Errorf("key type %q may not sign", kt)
	}
	if namespace == "" {
		return nil, errors.New("namespace is empty")
	}
	sig, err := signer.Sign(rand, signed(namespace, message))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	blob := append([]byte(magic), ssh.Marshal(envelope{
		Version:   version,
		PublicKey: signer.PublicKey().Marshal(),
		Namespace: namespace,
		Hash:      hash,
		Signature: ssh.Marshal(sig),
	})...)
	// A signer may be a foreign agent: what leaves here must be what Parse takes.
	if _, err := Parse(blob); err != nil {
		return nil, fmt.Errorf("signer made a signature outside the profile: %w", err)
	}
	return blob, nil
}

// Parse reads a blob. It accepts only the profile and only the one encoding.
// The re-encodings of envelope, key and value refuse nothing that golang.org/x/crypto
// lets through today; they are there so that it may become more generous.
func Parse(blob []byte) (*Signature, error) {
	if len(blob) > MaxBlob {
		return nil, fmt.Errorf("signature has %d bytes, at most %d are allowed", len(blob), MaxBlob)
	}
	rest, ok := bytes.CutPrefix(blob, []byte(magic))
	if !ok {
		return nil, errors.New("signature does not start with SSHSIG")
	}
	var env envelope
	if err := ssh.Unmarshal(rest, &env); err != nil {
		return nil, fmt.Errorf("signature blob: %w", err)
	}
	if !bytes.Equal(ssh.Marshal(env), rest) {
		return nil, errors.New("signature blob is not in its one encoding")
	}
	switch {
	case env.Version != version:
		return nil, fmt.Errorf("signature version is %d, want %d", env.Version, version)
	case len(env.Reserved) != 0:
		return nil, errors.New("signature's reserved field is not empty")
	case env.Hash != hash:
		return nil, fmt.Errorf("signature hash is %q, want %q", env.Hash, hash)
	case env.Namespace == "":
		return nil, errors.New("signature namespace is empty")
	}
	key, err := ssh.ParsePublicKey(env.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("signature key: %w", err)
	}
	if !Allowed(key.Type()) {
		return nil, fmt.Errorf("signature key type is %q, want ssh-ed25519, sk-ssh-ed25519 or ecdsa-sha2-nistp256/384", key.Type())
	}
	if !bytes.Equal(key.Marshal(), env.PublicKey) {
		return nil, errors.New("signature key is not in its one encoding")
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(env.Signature, &sig); err != nil {
		return nil, fmt.Errorf("signature value: %w", err)
	}
	if !bytes.Equal(ssh.Marshal(sig), env.Signature) {
		return nil, errors.New("signature value is not in its one encoding")
	}
	if err := checkValue(key.Type(), &sig); err != nil {
		return nil, err
	}
	return &Signature{Key: key, Namespace: env.Namespace, sig: &sig}, nil
}

// checkValue checks the inside of the signature value, which golang.org/x/crypto
// reads more generously than one encoding.
func checkValue(keyType string, sig *ssh.Signature) error {
	if sig.Format != keyType {
		return fmt.Errorf("signature format %q is not the key type %q", sig.Format, keyType)
	}
	wantRest := 0
	switch keyType {
	case ssh.KeyAlgoSKED25519:
		wantRest = 5 // flags byte and counter
		fallthrough
	case ssh.KeyAlgoED25519:
		if len(sig.Blob) != 64 {
			return fmt.Errorf("ed25519 signature has %d bytes, want 64", len(sig.Blob))
		}
	default:
		var rs struct{ R, S *big.Int }
		if err := ssh.Unmarshal(sig.Blob, &rs); err != nil {
			return fmt.Errorf("ecdsa signature: %w", err)
		}
		if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || !bytes.Equal(ssh.Marshal(rs), sig.Blob) {
			return errors.New("ecdsa signature is not in its one encoding")
		}
	}
	if len(sig.Rest) != wantRest {
		return fmt.Errorf("signature has %d bytes behind its value, want %d", len(sig.Rest), wantRest)
	}
	return nil
}

// Verify checks that the embedded key signed message in the namespace.
func (s *Signature) Verify(namespace string, message []byte) error {
	if s.Namespace != namespace {
		return fmt.Errorf("signature is for namespace %q, want %q", s.Namespace, namespace)
	}
	if err := s.Key.Verify(signed(namespace, message), s.sig); err != nil {
		return fmt.Errorf("signature by %s does not fit: %w", ssh.FingerprintSHA256(s.Key), err)
	}
	return nil
}

func signed(namespace string, message []byte) []byte {
	digest := sha512.Sum512(message)
	return append([]byte(magic), ssh.Marshal(preimage{Namespace: namespace, Hash: hash, Digest: digest[:]})...)
}
