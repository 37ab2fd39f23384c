package sealedtest

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example of [MS-NLMP] 4.2.4: user "User" of "Domain" with the password
// "Password", server challenge 0123456789abcdef, client challenge aa…, session
// key 55….
func TestPublishedVectors(t *testing.T) {
	key := bytes.Repeat([]byte{0x55}, 16)
	owf := ntowf2("Password", "User", "Domain")
	challenge := unhex(t, "0123456789abcdef")
	temp := unhex(t, "01010000000000000000000000000000aaaaaaaaaaaaaaaa0000000002000c0044006f006d00610069006e0001000c005300650072007600650072000000000000000000")
	proof := mac(owf, challenge, temp)
	base := mac(owf, proof)
	encrypted := make([]byte, 16)
	stream(base).XORKeyStream(encrypted, key)
	s := NewSession(key)
	signKey := s.in.sign
	// The client's side of the same keys writes what the example shows.
	client := &Session{in: s.out, out: s.in}
	signature, sealed := client.Seal(utf16le("Plaintext"))
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"NTOWFv2", owf, "0c868a403bfd7a93a3001ef22ef02e3f"},
		{"NTProofStr", proof, "68cd0ab851e51c96aabc927bebef6a1c"},
		{"session base key", base, "8de40ccadbc14a82f15cb0ad0de95ca3"},
		{"encrypted session key", encrypted, "c5dad2544fc9799094ce1ce90bc9d03e"},
		{"client signing key", signKey, "4788dc861b4782f35d43fd98fe1a2d39"},
		{"sealed", sealed, "54e50165bf1936dc996020c1811b0f06fb5f"},
		{"signature", signature, "010000007fb38ec5c55d497600000000"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s is %s, want %s", tt.name, got, tt.want)
		}
	}
}
