package azuretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
)

// Two keys sign here, for two reasons. Bearers are ES256 by a key of their
// server, so that one server's bearer is worth nothing at another. Activation
// keys are RS256 because real ones are, 342 characters of signature included;
// RSA keys are slow to make, so the process makes one, when it is first needed.

var b64 = base64.RawURLEncoding

// signES256 gives the compact JWS (RFC 7515, RFC 7518 section 3.4) of claims.
func signES256(key *ecdsa.PrivateKey, kid string, claims any) string {
	head, _ := json.Marshal(map[string]string{"typ": "JWT", "alg": "ES256", "kid": kid})
	body, err := json.Marshal(claims)
	if err != nil {
		panic(err) // claims are ours
	}
	signed := b64.EncodeToString(head) + "." + b64.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64.EncodeToString(sig)
}

// verifyES256 checks a compact JWS and decodes its payload into claims.
func verifyES256(key *ecdsa.PublicKey, token string, claims any) error {
	head, payload, sig, signed, err := splitJWS(token)
	if err != nil {
		return err
	}
	if head.Alg != "ES256" || len(sig) != 64 {
		return fmt.Errorf("algorithm %q is not ES256", head.Alg)
	}
	sum := sha256.Sum256([]byte(signed))
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return errors.New("signature does not verify")
	}
	return json.Unmarshal(payload, claims)
}

type jwsHeader struct {
	Alg     string `json:"alg"`
	Kid     string `json:"kid"`
	X5T     string `json:"x5t"`
	X5TS256 string `json:"x5t#S256"`
}

func splitJWS(token string) (head jwsHeader, payload, sig []byte, signed string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return head, nil, nil, "", fmt.Errorf("%d parts where a compact JWS has 3", len(parts))
	}
	raw := make([][]byte, 3)
	for i, p := range parts {
		if raw[i], err = b64.DecodeString(p); err != nil {
			return head, nil, nil, "", fmt.Errorf("part %d: %w", i+1, err)
		}
	}
	if err := json.Unmarshal(raw[0], &head); err != nil {
		return head, nil, nil, "", fmt.Errorf("header: %w", err)
	}
	return head, raw[1], raw[2], parts[0] + "." + parts[1], nil
}

// verifyRSA checks an RS256 or PS256 signature (RFC 7518 sections 3.3 and 3.5).
func verifyRSA(key *rsa.PublicKey, alg, signed string, sig []byte) error {
	sum := sha256.Sum256([]byte(signed))
	switch alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig)
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return fmt.Errorf("algorithm %q is neither RS256 nor PS256", alg)
}

var activationSigner = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return key
})

// signActivationKey gives the compact JWS of an activation key's payload. The
// header has a blank after its comma and no typ, as recorded keys have.
// PKCS #1 v1.5 is deterministic: one payload has one key.
func signActivationKey(payload []byte) string {
	key := activationSigner()
	kid := sha256.Sum256(key.N.Bytes())
	head := fmt.Sprintf(`{"kid":"%s", "alg":"RS256"}`, hex.EncodeToString(kid[:16]))
	signed := b64.EncodeToString([]byte(head)) + "." + b64.EncodeToString(payload)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // a 2048-bit key signs 32 bytes
	}
	return signed + "." + b64.EncodeToString(sig)
}
