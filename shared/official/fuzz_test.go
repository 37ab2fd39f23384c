package official_test

import (
	"crypto/sha256"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

func seeds(f *testing.F) {
	token, key := modelled(f, officialtest.Spec{Seed: 1, Server: officialtest.Server{NIC: 1, CPU: 1, Disk: 1, Memory: 1}})
	for _, text := range []string{token, key, opaque(1, 96), token[:400], key[:400], recase(token, 1, 0.5), recase(key, 1, 0.5),
		"", "=", ".", "..", "a.b.c", "e30=", "e30.e30.", "eyJ", b64(`{"a":{"a":1},"A":2}`)} {
		for _, encode := range encodings {
			f.Add(encode(text))
			f.Add(encode("\r\n“" + wrap(text, 80, " \r\n") + "”\r\n"))
		}
	}
}

// accepted checks what holds for every text that a reader accepted.
func accepted(t *testing.T, raw []byte, text secret.Text, enc official.Encoding, digest [sha256.Size]byte) {
	got := text.Reveal()
	if utf8.Valid(raw) && (enc == official.UTF8 || enc == official.UTF8BOM) {
		rest := string(raw)
		for _, r := range got {
			i := strings.IndexRune(rest, r)
			if i < 0 {
				t.Fatalf("the text is not made of the file's characters in their order")
			}
			rest = rest[i+1:]
		}
	}
	if digest != sha256.Sum256([]byte(got)) {
		t.Error("the digest is not the text's")
	}
	for want := official.UTF8; want <= official.UTF16BE; want++ { // in one order, for the fuzzer's sake
		again, enc, err := official.Clean(encodings[want](got))
		if err != nil || again != got || enc != want {
			t.Errorf("written in %v it is read as %v, same %t, error %v", want, enc, again == got, err)
		}
	}
	if again, _, err := official.Clean(official.Write(text)); err != nil || again != got {
		t.Errorf("written and cleaned: same %t, error %v", again == got, err)
	}
}

func FuzzReadToken(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := official.ReadToken(raw)
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("%v is of kind %v", err, fault.KindOf(err))
			}
			return
		}
		accepted(t, raw, tok.Text, tok.Encoding, tok.Digest)
		again, err := official.ReadToken(official.Write(tok.Text))
		if err != nil || again.Form != tok.Form || again.Digest != tok.Digest {
			t.Errorf("written and read again: %v", err)
		}
	})
}

func FuzzReadKey(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, err := official.ReadKey(raw)
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("%v is of kind %v", err, fault.KindOf(err))
			}
			return
		}
		accepted(t, raw, key.Text, key.Encoding, key.Digest)
		if _, err := official.ReadToken(raw); err == nil && key.Claims.SubscriptionID != "" && key.Claims.RegistrationName != "" {
			t.Error("the same file is a token and a key")
		}
		if _, err := official.ReadKey(official.Write(key.Text)); err != nil {
			t.Errorf("written and read again: %v", err)
		}
	})
}
