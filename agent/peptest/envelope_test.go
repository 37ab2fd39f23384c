package peptest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bodgit/ntlmssp"
)

const goodEnvelope = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"` +
	` xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header>` +
	`<a:Action s:mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete</a:Action><a:To>http://host/wsman</a:To>` +
	`<a:ReplyTo><a:Address s:mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>` +
	`<a:MessageID>uuid:11111111-2222-4333-8444-555555555555</a:MessageID>` +
	`<w:ResourceURI s:mustUnderstand="true">http://schemas.microsoft.com/powershell/PrivilegedEndpoint</w:ResourceURI>` +
	`<w:MaxEnvelopeSize s:mustUnderstand="true">153600</w:MaxEnvelopeSize><w:OperationTimeout>PT60S</w:OperationTimeout>` +
	`<p:SessionId s:mustUnderstand="false">uuid:11111111-2222-4333-8444-555555555555</p:SessionId>` +
	`<w:OptionSet s:mustUnderstand="true"><w:Option Name="protocolversion" MustComply="true">2.3</w:Option></w:OptionSet>` +
	`</s:Header><s:Body/></s:Envelope>`

// Every block of the header that WS-Management asks for is asked for.
func TestHeadersAreChecked(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		code           uint32
		want           string // of the error; "" is none
	}{
		{"as it is", "", "", 0, ""},
		{"no reply address", "<a:ReplyTo>", "<a:From>", codeSchema, "no ReplyTo"},
		{"another reply address", "role/anonymous", "role/none", codeSchema, "anonymous"},
		{"no message id", "uuid:11111111-2222-4333-8444-555555555555</a:MessageID>", "</a:MessageID>", codeSchema, "no MessageID"},
		{"a message id that is none", "uuid:11111111-2222-4333-8444-555555555555</a:MessageID>", "7</a:MessageID>", codeSchema, "no uuid"},
		{"no session id", `<p:SessionId s:mustUnderstand="false">uuid:11111111-2222-4333-8444-555555555555</p:SessionId>`, "", codeSchema, "no SessionId"},
		{"no time", "<w:OperationTimeout>PT60S</w:OperationTimeout>", "", codeSchema, "no OperationTimeout"},
		{"a time that is none", "PT60S", "60", codeSchema, "no duration"},
		{"no size", ">153600<", "><", codeSchema, "no MaxEnvelopeSize"},
		{"a small size", ">153600<", ">100<", codeSchema, "at least 8192"},
		{"a size that need not be understood", `<w:MaxEnvelopeSize s:mustUnderstand="true">`, "<w:MaxEnvelopeSize>", codeSchema, "MaxEnvelopeSize lacks s:mustUnderstand"},
		{"mustUnderstand without its name space", `<w:ResourceURI s:must`, `<w:ResourceURI must`, codeSchema, "not the name space of SOAP"},
		{"a header that is not known", "</s:Header>", `<p:Dance s:mustUnderstand="true"/></s:Header>`, codeUnderstand, "Dance must be understood"},
		{"a header that is not known and need not be", "</s:Header>", `<p:Dance s:mustUnderstand="false"/></s:Header>`, 0, ""},
		{"an option that is not known", `Name="protocolversion"`, `Name="dance"`, codeOptions, `"dance" is not known`},
		{"an option that is not known and need not be", `Name="protocolversion" MustComply="true"`, `Name="dance"`, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(goodEnvelope, c.old) {
				t.Fatalf("the envelope has no %q", c.old)
			}
			text := strings.Replace(goodEnvelope, c.old, c.new, 1)
			if c.new == "<a:From>" {
				text = strings.Replace(text, "</a:ReplyTo>", "</a:From>", 1)
			}
			_, err := parseEnvelope([]byte(text))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var header *headerError
			if !errors.As(err, &header) || header.code != c.code || !strings.Contains(header.text, c.want) {
				t.Errorf("error %v, want %d with %q", err, c.code, c.want)
			}
		})
	}
}

// A login without a MIC is refused where it is demanded, and only there; one that
// had it and lost it is refused always.
func TestALoginWithoutAMIC(t *testing.T) {
	login := func(want, dated bool, edit func([]byte)) error {
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
		ch.wantMIC = want
		if !dated { // a host that tells no time gets no MIC
			i := strings.Index(string(ch.message), string([]byte{avTimestamp, 0, 8, 0}))
			stamped := ch.message[i : i+12]
			copy(stamped, append([]byte{avEnd, 0, 0, 0}, make([]byte, 8)...))
			j := strings.Index(string(ch.target), string([]byte{avTimestamp, 0, 8, 0}))
			ch.target = append(ch.target[:j:j], avEnd, 0, 0, 0)
		}
		second, err := client.Authenticate(ch.message, nil)
		if err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			edit(second)
		}
		a, err := parseAuthenticate(second)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ch.accept(a, "secret", nil)
		return err
	}
	if err := login(true, true, nil); err != nil {
		t.Errorf("with a MIC: %v", err)
	}
	if err := login(false, false, nil); err != nil {
		t.Errorf("without a MIC, which nobody demands: %v", err)
	}
	if err := login(true, false, nil); err == nil || !strings.Contains(err.Error(), "no MIC") {
		t.Errorf("without a MIC: %v", err)
	}
	for _, want := range []bool{true, false} {
		if err := login(want, true, func(m []byte) { clear(m[72:88]) }); err == nil || !strings.Contains(err.Error(), "MIC") {
			t.Errorf("with a MIC of zeros: %v", err)
		}
		flag := []byte{avFlags, 0, 4, 0, avFlagMIC, 0, 0, 0}
		if err := login(want, true, func(m []byte) { m[strings.Index(string(m), string(flag))+4] = 0 }); err == nil {
			t.Error("the bit that says that there is a MIC was cleared, and that was taken")
		}
	}
}

// der writes one TLV of DER.
func der(tag byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	switch n := len(body); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, body...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
	}
}

// NTLM within SPNEGO, as a client sends it that negotiates: each side signs the
// list of mechanisms, and sealing begins anew behind that.
func TestSPNEGO(t *testing.T) {
	srv := NewServer(WithPassword("secret"))
	defer srv.Close()
	mechs := der(0x30, der(0x06, []byte{0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10}))
	for _, c := range []struct {
		name string
		mic  func(*session) []byte // nil sends none
		want string                // of the error
	}{
		{"without a MIC", nil, ""},
		{"with a MIC", func(s *session) []byte { return s.in.sign(mechs) }, ""},
		{"with that of another list", func(s *session) []byte { return s.in.sign(mechs[:4]) }, "mechListMIC"},
		{"with that of the server", func(s *session) []byte { return s.out.sign(mechs) }, "mechListMIC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo("CloudAdmin", "secret"), ntlmssp.SetVersion(ntlmssp.DefaultVersion()))
			if err != nil {
				t.Fatal(err)
			}
			first, err := client.Authenticate(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := client.SetOption(ntlmssp.SetDomain("AZURESTACK")); err != nil {
				t.Fatal(err)
			}
			conn, r := &connection{address: 1}, httptest.NewRequest(http.MethodPost, "/wsman", nil)
			message, mic := conn.take(der(0x60, []byte{6, 6, 0x2b, 6, 1, 5, 5, 2}, der(0xa0, der(0x30, der(0xa0, mechs), der(0xa2, der(4, first))))))
			if !bytes.Equal(message, first) || mic != nil {
				t.Fatalf("first message % x", message)
			}
			res := srv.challenge(r, conn, message, flagsOffered)
			challenge, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(res.header.Get("Www-Authenticate"), "Negotiate "))
			if err != nil || res.status != 401 || challenge[0] != 0xa1 {
				t.Fatalf("challenge %+v, %v", res, err)
			}
			second, err := client.Authenticate(challenge[bytes.Index(challenge, ntlmSignature):], nil)
			if err != nil {
				t.Fatal(err)
			}
			parts := der(0xa2, der(4, second))
			a, err := parseAuthenticate(second)
			if err != nil {
				t.Fatal(err)
			}
			key, err := conn.pending.accept(a, "secret", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.mic != nil {
				parts = append(parts, der(0xa3, der(4, c.mic(newSession(key))))...)
			}
			message, mic = conn.take(der(0xa1, der(0x30, parts)))
			if !bytes.Equal(message, second) {
				t.Fatalf("second message % x", message)
			}
			final, err := srv.login(r, conn, "Negotiate", message, mic)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want one with %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			token, err := base64.StdEncoding.DecodeString(final)
			if err != nil || !bytes.HasPrefix(token, []byte{0xa1}) || bytes.Contains(token, newSession(key).out.sign(mechs)) != (c.mic != nil) {
				t.Errorf("last token % x, %v", token, err)
			}
			sealed, signature, err := client.SecuritySession().Wrap([]byte("envelope"))
			if err != nil {
				t.Fatal(err)
			}
			if text, err := conn.session.in.open(signature, sealed); err != nil || string(text) != "envelope" {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

func FuzzUnwrapSPNEGO(f *testing.F) {
	raw, _ := base64.StdEncoding.DecodeString("YEgGBisGAQUFAqA+MDygDjAMBgorBgEEAYI3AgIKoioEKE5UTE1TU1AAAQAAAJeCCOIAAAAAAAAAAAAAAAAAAAAACgBhSgAAAA8=")
	f.Add(raw)
	f.Add([]byte{0xa1, 0})
	f.Fuzz(func(t *testing.T, token []byte) {
		message, _, mic, err := unwrapSPNEGO(token)
		if err == nil && len(message)+len(mic) > len(token) {
			t.Errorf("%x", token)
		}
	})
}
