package sealedtest

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

// Flags of a challenge ([MS-NLMP] 2.2.2.5).
const (
	Unicode    = 0x1
	Sign       = 0x10
	Seal       = 0x20
	Datagram   = 0x40
	Anonymous  = 0x800
	ESS        = 0x80000
	TargetInfo = 0x800000
	Key128     = 0x20000000
	KeyExch    = 0x40000000

	// Honest are the flags of Windows Server 2016.
	Honest = 0xe2898235 | Seal
)

// Ids of target info ([MS-NLMP] 2.2.2.1).
const (
	avComputer  = 1
	avDomain    = 2
	avFlags     = 6
	avTimestamp = 7
	avBindings  = 10
)

// Challenge is a CHALLENGE_MESSAGE with this target info.
func Challenge(flags uint32, nonce [8]byte, target []byte) []byte {
	name := utf16le("STAMP")
	b := append([]byte("NTLMSSP\x00"), 2, 0, 0, 0)
	b = field(b, len(name), 56)
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = append(b, nonce[:]...)
	b = append(b, make([]byte, 8)...)
	b = field(b, len(target), 56+len(name))
	b = append(b, 10, 0, 0x39, 0x38, 0, 0, 0, 15) // Windows 10.0.14393
	return append(append(b, name...), target...)
}

// Target is a target info with a time, as Windows sends it.
func Target() []byte {
	var b []byte
	b = av(b, avDomain, utf16le("STAMP"))
	b = av(b, avComputer, utf16le("ERCS01"))
	b = av(b, avTimestamp, []byte{0, 0x80, 0x3e, 0xd5, 0xde, 0xb1, 0x9d, 1})
	return av(b, 0, nil)
}

func av(b []byte, id uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, id)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

func field(b []byte, n, offset int) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(n))
	b = binary.LittleEndian.AppendUint16(b, uint16(n))
	return binary.LittleEndian.AppendUint32(b, uint32(offset))
}

// Login is what an AUTHENTICATE_MESSAGE showed.
type Login struct {
	Domain, User string
	MIC          bool
	Bindings     []byte // MD5 of the channel bindings, nil for none
	Key          []byte // exported session key
}

// Verify checks the third message of a login by the password
// ([MS-NLMP] 3.2.5.1.2, 3.3.2).
func Verify(hello, challenge, proof []byte, password string) (*Login, error) {
	if len(proof) < 88 || !bytes.HasPrefix(proof, []byte("NTLMSSP\x00\x03\x00\x00\x00")) {
		return nil, errors.New("no AUTHENTICATE_MESSAGE")
	}
	at := func(i int) []byte {
		n, o := int(binary.LittleEndian.Uint16(proof[i:])), int(binary.LittleEndian.Uint32(proof[i+4:]))
		if o+n > len(proof) {
			return nil
		}
		return proof[o : o+n]
	}
	response, encrypted := at(20), at(52)
	l := &Login{Domain: fromUTF16(at(28)), User: fromUTF16(at(36))}
	if len(response) < 48 || len(encrypted) != 16 {
		return nil, errors.New("no NTLMv2 response with key exchange")
	}
	owf := ntowf2(password, l.User, l.Domain)
	sum := response[:16]
	if !bytes.Equal(sum, mac(owf, challenge[24:32], response[16:])) {
		return nil, fmt.Errorf("wrong password for %q of %q", l.User, l.Domain)
	}
	l.Key = make([]byte, 16)
	stream(mac(owf, sum)).XORKeyStream(l.Key, encrypted)
	for info := response[44:]; ; {
		if len(info) < 4 {
			return nil, errors.New("target info without an end")
		}
		id, n := binary.LittleEndian.Uint16(info), int(binary.LittleEndian.Uint16(info[2:]))
		if id == 0 {
			break
		}
		if len(info) < 4+n {
			return nil, errors.New("target info cut short")
		}
		value := info[4 : 4+n]
		switch {
		case id == avFlags && n == 4:
			l.MIC = value[0]&2 != 0
		case id == avBindings:
			l.Bindings = value
		}
		info = info[4+n:]
	}
	if l.MIC {
		zeroed := bytes.Clone(proof)
		clear(zeroed[72:88])
		if !bytes.Equal(proof[72:88], mac(l.Key, hello, challenge, zeroed)) {
			return nil, errors.New("the MIC does not cover the three messages")
		}
	}
	return l, nil
}

// Session seals on one connection, from the server's side ([MS-NLMP] 3.4.3).
type Session struct{ in, out half }

type half struct {
	sign   []byte
	stream *rc4.Cipher
	seq    uint32
}

// NewSession derives the four keys from the exported session key.
func NewSession(key []byte) *Session {
	derive := func(direction string) half {
		sign := md5.Sum(append(bytes.Clone(key), "session key to "+direction+" signing key magic constant\x00"...))
		seal := md5.Sum(append(bytes.Clone(key), "session key to "+direction+" sealing key magic constant\x00"...))
		return half{sign: sign[:], stream: stream(seal[:])}
	}
	return &Session{in: derive("client-to-server"), out: derive("server-to-client")}
}

func (h *half) signature(plain []byte) []byte {
	seq := binary.LittleEndian.AppendUint32(nil, h.seq)
	h.seq++
	sum := mac(h.sign, seq, plain)[:8]
	h.stream.XORKeyStream(sum, sum)
	return append(append([]byte{1, 0, 0, 0}, sum...), seq...)
}

// Seal returns the signature and the sealed bytes.
func (s *Session) Seal(plain []byte) (signature, sealed []byte) {
	sealed = make([]byte, len(plain))
	s.out.stream.XORKeyStream(sealed, plain)
	return s.out.signature(plain), sealed
}

// Unseal checks and opens what the client sealed.
func (s *Session) Unseal(signature, sealed []byte) ([]byte, error) {
	plain := make([]byte, len(sealed))
	s.in.stream.XORKeyStream(plain, sealed)
	if want := s.in.signature(plain); !bytes.Equal(want, signature) {
		return nil, fmt.Errorf("signature % x, want % x", signature, want)
	}
	return plain, nil
}

func ntowf2(password, user, domain string) []byte {
	h := md4.New()
	h.Write(utf16le(password))
	return mac(h.Sum(nil), utf16le(strings.ToUpper(user)+domain))
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(md5.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func stream(key []byte) *rc4.Cipher {
	c, err := rc4.NewCipher(key)
	if err != nil {
		panic(err) // every key has 16 bytes
	}
	return c
}

func utf16le(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func fromUTF16(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}
