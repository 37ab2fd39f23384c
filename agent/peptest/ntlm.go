package peptest

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rc4"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	//lint:ignore SA1019 NTLM is made of it, whatever it is worth
	"golang.org/x/crypto/md4"
)

// This file is the accepting side of NTLM version 2 with extended session
// security ([MS-NLMP]): it makes the challenge, verifies the answer, and seals.
// Older versions are refused.

// The negotiate flags in use ([MS-NLMP] 2.2.2.5).
const (
	flagUnicode     = 0x00000001
	flagTarget      = 0x00000004
	flagSign        = 0x00000010
	flagSeal        = 0x00000020
	flagNTLM        = 0x00000200
	flagAlwaysSign  = 0x00008000
	flagDomain      = 0x00010000
	flagESS         = 0x00080000
	flagTargetInfo  = 0x00800000
	flagVersion     = 0x02000000
	flag128         = 0x20000000
	flagKeyExchange = 0x40000000
	flag56          = 0x80000000

	flagsRequired = flagSign | flagSeal | flagESS | flag128 | flagKeyExchange
	flagsOffered  = flagsRequired | flagUnicode | flagTarget | flagNTLM | flagAlwaysSign | flagDomain |
		flagTargetInfo | flagVersion | flag56
)

// Attributes of the target info ([MS-NLMP] 2.2.2.1).
const (
	avEnd             = 0
	avComputer        = 1
	avDomain          = 2
	avDNSComputer     = 3
	avDNSDomain       = 4
	avFlags           = 6
	avTimestamp       = 7
	avChannelBindings = 10

	avFlagMIC = 2
)

var ntlmSignature = []byte("NTLMSSP\x00")

// version of Windows Server 2016, build 14393, NTLM revision 15.
var ntlmVersion = []byte{10, 0, 0x39, 0x38, 0, 0, 0, 15}

// challenge is the server's side of one handshake.
type challenge struct {
	negotiate []byte // the client's first message
	message   []byte // the CHALLENGE_MESSAGE
	nonce     []byte // 8 bytes
	target    []byte // target info
	flags     uint32
	wantMIC   bool // refuse an answer without one
}

// newChallenge answers a NEGOTIATE_MESSAGE. nonce has 8 bytes; filetime is the
// time in units of 100 ns since 1601.
func newChallenge(negotiate, nonce []byte, filetime uint64, domain, dnsDomain, computer string, flags uint32) (*challenge, error) {
	if kind, err := messageKind(negotiate); err != nil || kind != 1 {
		return nil, fmt.Errorf("NTLM message %d (%v), want 1", kind, err)
	}
	if len(negotiate) < 16 {
		return nil, errors.New("NTLM negotiate message is cut short")
	}
	c := &challenge{negotiate: bytes.Clone(negotiate), nonce: nonce, flags: flags}
	av := func(id uint16, value []byte) {
		c.target = binary.LittleEndian.AppendUint16(c.target, id)
		c.target = binary.LittleEndian.AppendUint16(c.target, uint16(len(value)))
		c.target = append(c.target, value...)
	}
	av(avDomain, utf16le(domain))
	av(avComputer, utf16le(computer))
	av(avDNSDomain, utf16le(dnsDomain))
	av(avDNSComputer, utf16le(strings.ToLower(computer)+"."+dnsDomain))
	av(avTimestamp, binary.LittleEndian.AppendUint64(nil, filetime))
	av(avEnd, nil)

	const header = 56
	name := utf16le(domain)
	m := append([]byte{}, ntlmSignature...)
	m = binary.LittleEndian.AppendUint32(m, 2)
	m = appendField(m, len(name), header)
	m = binary.LittleEndian.AppendUint32(m, flags)
	m = append(m, nonce...)
	m = append(m, make([]byte, 8)...)
	m = appendField(m, len(c.target), header+len(name))
	m = append(m, ntlmVersion...)
	m = append(m, name...)
	c.message = append(m, c.target...)
	return c, nil
}

// authenticate is a decoded AUTHENTICATE_MESSAGE ([MS-NLMP] 2.2.1.3).
type authenticate struct {
	raw          []byte
	nt           []byte // NTLMv2 response
	domain, user string
	sessionKey   []byte // encrypted
	flags        uint32
}

func parseAuthenticate(raw []byte) (authenticate, error) {
	a := authenticate{raw: raw}
	if kind, err := messageKind(raw); err != nil || kind != 3 {
		return a, fmt.Errorf("NTLM message %d (%v), want 3", kind, err)
	}
	if len(raw) < 64 {
		return a, errors.New("NTLM authenticate message is cut short")
	}
	field := func(at int) ([]byte, error) {
		n, offset := int(binary.LittleEndian.Uint16(raw[at:])), uint64(binary.LittleEndian.Uint32(raw[at+4:]))
		if offset+uint64(n) > uint64(len(raw)) {
			return nil, fmt.Errorf("NTLM field at %d lies outside of the message", at)
		}
		return raw[offset : offset+uint64(n)], nil
	}
	var err, err2, err3, err4 error
	a.nt, err = field(20)
	domain, err2 := field(28)
	user, err3 := field(36)
	a.sessionKey, err4 = field(52)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return a, err
	}
	a.flags = binary.LittleEndian.Uint32(raw[60:])
	if a.flags&flagUnicode == 0 {
		return a, errors.New("NTLM client does not use Unicode")
	}
	a.domain, a.user = fromUTF16(domain), fromUTF16(user)
	return a, nil
}

// accept verifies the client's answer against the account's password and returns
// the exported session key. bindings is the MD5 of the TLS channel bindings, or
// nil; a client that names bindings must name these. A client may leave them out.
func (c *challenge) accept(a authenticate, password string, bindings []byte) ([]byte, error) {
	if len(a.nt) < 16+28+4 {
		return nil, fmt.Errorf("response of %d bytes is not NTLMv2", len(a.nt))
	}
	proof, blob := a.nt[:16], a.nt[16:]
	key := ntowf2(password, a.user, a.domain)
	if !hmac.Equal(proof, hmacMD5(key, c.nonce, blob)) {
		return nil, errors.New("wrong user name or password")
	}
	if blob[0] != 1 || blob[1] != 1 {
		return nil, fmt.Errorf("NTLMv2 response has version %d.%d", blob[0], blob[1])
	}
	given, err := avPairs(blob[28:])
	if err != nil {
		return nil, err
	}
	own, err := avPairs(c.target)
	if err != nil {
		return nil, err
	}
	for id, value := range own {
		if !bytes.Equal(given[id], value) {
			return nil, fmt.Errorf("target info %d is % x, the challenge had % x", id, given[id], value)
		}
	}
	if t, ok := own[avTimestamp]; ok && !bytes.Equal(t, blob[8:16]) {
		return nil, errors.New("the response does not repeat the challenge's time")
	}
	if b := given[avChannelBindings]; bindings != nil && len(b) == 16 && !bytes.Equal(b, make([]byte, 16)) && !bytes.Equal(b, bindings) {
		return nil, errors.New("channel bindings are those of another TLS connection")
	}
	exported := hmacMD5(key, proof) // the session base key, which is the key exchange key too
	if a.flags&flagKeyExchange != 0 {
		if len(a.sessionKey) != 16 {
			return nil, fmt.Errorf("encrypted session key has %d bytes, want 16", len(a.sessionKey))
		}
		exported = rc4Once(exported, a.sessionKey)
	}
	f := given[avFlags]
	withMIC := len(f) == 4 && binary.LittleEndian.Uint32(f)&avFlagMIC != 0
	if c.wantMIC && !withMIC {
		return nil, errors.New("the message has no MIC")
	}
	if withMIC {
		const at = 72
		if len(a.raw) < at+16 {
			return nil, errors.New("the message lacks the MIC that it announces")
		}
		zeroed := bytes.Clone(a.raw)
		clear(zeroed[at : at+16])
		if !hmac.Equal(a.raw[at:at+16], hmacMD5(exported, c.negotiate, c.message, zeroed)) {
			return nil, errors.New("the MIC does not match the three messages")
		}
	}
	return exported, nil
}

// session seals and unseals on one connection ([MS-NLMP] 3.4). The RC4 streams
// and the sequence numbers run on from message to message.
type session struct {
	in, out sealing
}

type sealing struct {
	signKey []byte
	stream  *rc4.Cipher
	next    uint32
}

const signatureLen = 16

func newSession(exported []byte) *session {
	direction := func(from string) sealing {
		key := func(use string) []byte {
			h := md5.Sum(append(bytes.Clone(exported), "session key to "+from+" "+use+" key magic constant\x00"...))
			return h[:]
		}
		stream, err := rc4.NewCipher(key("sealing"))
		if err != nil {
			panic(err) // 16 bytes are a key
		}
		return sealing{signKey: key("signing"), stream: stream}
	}
	return &session{in: direction("client-to-server"), out: direction("server-to-client")}
}

// seal encrypts plain and returns the signature and the sealed bytes.
func (d *sealing) seal(plain []byte) (signature, sealed []byte) {
	sealed = make([]byte, len(plain))
	d.stream.XORKeyStream(sealed, plain)
	return d.sign(plain), sealed
}

func (d *sealing) open(signature, sealed []byte) ([]byte, error) {
	plain := make([]byte, len(sealed))
	d.stream.XORKeyStream(plain, sealed)
	number := d.next
	if want := d.sign(plain); !hmac.Equal(want, signature) {
		return nil, fmt.Errorf("signature of message %d is % x, want % x", number, signature, want)
	}
	return plain, nil
}

func (d *sealing) sign(plain []byte) []byte {
	number := binary.LittleEndian.AppendUint32(nil, d.next)
	d.next++
	sum := hmacMD5(d.signKey, number, plain)[:8]
	d.stream.XORKeyStream(sum, sum)
	return append(append([]byte{1, 0, 0, 0}, sum...), number...)
}

// ntowf2 is NTOWFv2 of [MS-NLMP] 3.3.2.
func ntowf2(password, user, domain string) []byte {
	h := md4.New()
	h.Write(utf16le(password))
	return hmacMD5(h.Sum(nil), utf16le(strings.ToUpper(user)+domain))
}

func messageKind(m []byte) (uint32, error) {
	if len(m) < 12 || !bytes.HasPrefix(m, ntlmSignature) {
		return 0, errors.New("not an NTLM message")
	}
	return binary.LittleEndian.Uint32(m[8:]), nil
}

func avPairs(b []byte) (map[uint16][]byte, error) {
	pairs := map[uint16][]byte{}
	for {
		if len(b) < 4 {
			return nil, errors.New("target info has no end")
		}
		id, n := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		if id == avEnd {
			return pairs, nil
		}
		if len(b) < 4+n {
			return nil, fmt.Errorf("target info %d is cut short", id)
		}
		pairs[id] = b[4 : 4+n]
		b = b[4+n:]
	}
}

func appendField(b []byte, n, offset int) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(n))
	b = binary.LittleEndian.AppendUint16(b, uint16(n))
	return binary.LittleEndian.AppendUint32(b, uint32(offset))
}

func hmacMD5(key []byte, parts ...[]byte) []byte {
	h := hmac.New(md5.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func rc4Once(key, data []byte) []byte {
	c, err := rc4.NewCipher(key)
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	out := make([]byte, len(data))
	c.XORKeyStream(out, data)
	return out
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func fromUTF16(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}
