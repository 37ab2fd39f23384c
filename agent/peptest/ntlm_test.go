package peptest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/bodgit/ntlmssp"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors of [MS-NLMP] 4.2.4: user User, password Password, domain Domain.
const (
	vectorNonce   = "0123456789abcdef"
	vectorTarget  = "02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000"
	vectorBlob    = "0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000" + vectorTarget + "00000000"
	vectorKey     = "0c868a403bfd7a93a3001ef22ef02e3f"
	vectorProof   = "68cd0ab851e51c96aabc927bebef6a1c"
	vectorBase    = "8de40ccadbc14a82f15cb0ad0de95ca3"
	vectorWrapped = "c5dad2544fc9799094ce1ce90bc9d03e"
	vectorRandom  = "55555555555555555555555555555555"
	vectorSealed  = "54e50165bf1936dc996020c1811b0f06fb5f"
	vectorSign    = "010000007fb38ec5c55d497600000000"
)

func TestNTLMv2Vectors(t *testing.T) {
	key := ntowf2("Password", "User", "Domain")
	proof := hmacMD5(key, unhex(t, vectorNonce), unhex(t, vectorBlob))
	base := hmacMD5(key, proof)
	s := newSession(unhex(t, vectorRandom))
	signature, sealed := s.in.seal(utf16le("Plaintext"))
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"NTOWFv2", key, vectorKey},
		{"NTProofStr", proof, vectorProof},
		{"SessionBaseKey", base, vectorBase},
		{"EncryptedRandomSessionKey", rc4Once(base, unhex(t, vectorRandom)), vectorWrapped},
		{"sealed message", sealed, vectorSealed},
		{"signature", signature, vectorSign},
	} {
		if want := unhex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s is %x, [MS-NLMP] has %x", c.name, c.got, want)
		}
	}
}

// vectorAuthenticate is the AUTHENTICATE_MESSAGE of 4.2.4.3 with payload in our
// own order.
func vectorAuthenticate(t *testing.T) []byte {
	t.Helper()
	domain, user := utf16le("Domain"), utf16le("User")
	nt := append(unhex(t, vectorProof), unhex(t, vectorBlob)...)
	key := unhex(t, vectorWrapped)
	m := append(bytes.Clone(ntlmSignature), 3, 0, 0, 0)
	at := 72
	m = appendField(m, 0, at)
	m = appendField(m, len(nt), at)
	m = appendField(m, len(domain), at+len(nt))
	m = appendField(m, len(user), at+len(nt)+len(domain))
	m = appendField(m, 0, at)
	m = appendField(m, len(key), at+len(nt)+len(domain)+len(user))
	m = binary.LittleEndian.AppendUint32(m, flagsRequired|flagUnicode)
	m = append(m, ntlmVersion...)
	for _, part := range [][]byte{nt, domain, user, key} {
		m = append(m, part...)
	}
	return m
}

func TestAcceptTakesTheVectorAndNothingElse(t *testing.T) {
	type change struct {
		name     string
		password string
		edit     func(c *challenge, m []byte)
		want     string // of the error, "" for success
	}
	target := strings.ReplaceAll(vectorTarget, " ", "")
	for _, c := range []change{
		{"the vector", "Password", nil, ""},
		{"wrong password", "password", nil, "wrong user name or password"},
		{"other nonce", "Password", func(c *challenge, _ []byte) { c.nonce[0]++ }, "wrong user name or password"},
		{"changed proof", "Password", func(_ *challenge, m []byte) { m[72]++ }, "wrong user name or password"},
		{"changed blob", "Password", func(_ *challenge, m []byte) { m[72+16+20]++ }, "wrong user name or password"},
		{"other target info", "Password", func(c *challenge, _ []byte) { c.target[4]++ }, "target info 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := &challenge{nonce: unhex(t, vectorNonce), target: unhex(t, target)}
			m := vectorAuthenticate(t)
			if c.edit != nil {
				c.edit(ch, m)
			}
			a, err := parseAuthenticate(m)
			if err != nil {
				t.Fatal(err)
			}
			key, err := ch.accept(a, c.password, nil)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want one with %q", err, c.want)
				}
				return
			}
			if err != nil || !bytes.Equal(key, unhex(t, vectorRandom)) {
				t.Fatalf("session key %x, %v", key, err)
			}
		})
	}
}

func TestSealingDetectsChangesReplaysAndGaps(t *testing.T) {
	key := unhex(t, vectorRandom)
	sig1, box1 := newSession(key).in.seal([]byte("one"))
	s := newSession(key)
	if got, err := s.in.open(sig1, box1); err != nil || string(got) != "one" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := s.in.open(sig1, box1); err == nil {
		t.Error("the same message was taken twice")
	}
	box1[0]++
	if _, err := newSession(key).in.open(sig1, box1); err == nil {
		t.Error("a changed message was taken")
	}
	sender := newSession(key)
	sender.in.seal([]byte("lost"))
	sig2, box2 := sender.in.seal([]byte("two"))
	if _, err := newSession(key).in.open(sig2, box2); err == nil {
		t.Error("a message after a gap was taken")
	}
}

func FuzzParseAuthenticate(f *testing.F) {
	f.Add([]byte("NTLMSSP\x00\x03\x00\x00\x00"))
	f.Add(append([]byte("NTLMSSP\x00\x03\x00\x00\x00"), make([]byte, 80)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAuthenticate(raw)
		if err != nil {
			return
		}
		c := &challenge{nonce: make([]byte, 8), target: make([]byte, 4)}
		if _, err := c.accept(a, "Password", nil); err == nil {
			t.Errorf("%x was accepted", raw)
		}
	})
}

// The MIC and the channel bindings of another implementation are taken, and
// each kind of tampering is not.
func TestAcceptVerifiesMICAndBindings(t *testing.T) {
	for _, c := range []struct {
		name     string
		bindings *ntlmssp.ChannelBindings
		edit     func(c *challenge, m []byte)
		want     string
	}{
		{"as it is", nil, func(*challenge, []byte) {}, ""},
		{"changed MIC", nil, func(_ *challenge, m []byte) { m[72]++ }, "MIC"},
		{"changed flags", nil, func(_ *challenge, m []byte) { m[63] ^= 0x80 }, "MIC"},
		{"changed negotiate message", nil, func(c *challenge, _ []byte) { c.negotiate[12]++ }, "MIC"},
		{"bindings", &ntlmssp.ChannelBindings{ApplicationData: []byte("tls-server-end-point:this")}, func(*challenge, []byte) {}, ""},
		{"bindings of another", &ntlmssp.ChannelBindings{ApplicationData: []byte("tls-server-end-point:that")}, func(*challenge, []byte) {}, "channel bindings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo("user", "secret"), ntlmssp.SetDomain("DOM"), ntlmssp.SetVersion(ntlmssp.DefaultVersion()))
			if err != nil {
				t.Fatal(err)
			}
			first, err := client.Authenticate(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			ch, err := newChallenge(first, make([]byte, 8), 1<<57, "DOM", "dom.local", "HOST", flagsOffered)
			if err != nil {
				t.Fatal(err)
			}
			second, err := client.Authenticate(ch.message, c.bindings)
			if err != nil {
				t.Fatal(err)
			}
			c.edit(ch, second)
			a, err := parseAuthenticate(second)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ch.accept(a, "secret", bindingsHash([]byte("tls-server-end-point:this")))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
