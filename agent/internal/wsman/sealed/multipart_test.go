package sealed

import (
	"bytes"
	"strings"
	"testing"
)

func TestDecodeBody(t *testing.T) {
	signature := bytes.Repeat([]byte{7}, 16)
	// Sealed bytes may look like anything.
	payload := []byte("\r\n--Encrypted Boundary--\r\n\x00\xff--Encrypted Boundary\r\n")
	windows := string(encodeBody(5, signature, payload))
	good := map[string]string{
		"windows":           windows,
		"exchange":          strings.ReplaceAll(strings.Replace(windows, string(payload), "PAYLOAD", 1), "--Encrypted", "-- Encrypted"),
		"no last line end":  strings.TrimSuffix(windows, "\r\n"),
		"no tabs":           strings.ReplaceAll(windows, "\t", ""),
		"blank lines":       strings.Replace(strings.Replace(windows, "Length=5\r\n", "Length=5\r\n\r\n", 1), "octet-stream\r\n", "octet-stream\r\n\r\n", 1),
		"other order":       strings.Replace(strings.Replace(windows, "\tContent-Type: "+protocol+"\r\n", "", 1), "Length=5\r\n", "Length=5\r\n\tContent-Type: "+protocol+"\r\n", 1),
		"other cases":       strings.Replace(strings.Replace(windows, "Content-Type: application/octet", "CONTENT-TYPE: Application/Octet", 1), "OriginalContent", "originalcontent", 1),
		"length in between": strings.Replace(windows, ";charset=UTF-8;Length=5", "; length=5; charset=UTF-8", 1),
	}
	for name, body := range good {
		want := payload
		if name == "exchange" {
			want = []byte("PAYLOAD")
		}
		plain, sig, data, err := decodeBody([]byte(body))
		if err != nil || plain != 5 || !bytes.Equal(sig, signature) || !bytes.Equal(data, want) {
			t.Errorf("%s: %d % x %q %v", name, plain, sig, data, err)
		}
	}
	bad := map[string]string{
		"nothing":            "",
		"blank line first":   "\r\n" + windows,
		"no length":          strings.Replace(windows, ";Length=5", "", 1),
		"length no number":   strings.Replace(windows, "Length=5", "Length=five", 1),
		"length too large":   strings.Replace(windows, "Length=5", "Length=99999999999999999999", 1),
		"other protocol":     strings.Replace(windows, "HTTP-SPNEGO", "HTTP-Kerberos", 1),
		"one part":           windows[:strings.Index(windows, "\tContent-Type: application/octet")],
		"part missing":       strings.Replace(windows, "\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream", "", 1),
		"second part text":   strings.Replace(windows, "octet-stream", "soap+xml", 1),
		"signature of 15":    strings.Replace(windows, "\x10\x00\x00\x00", "\x0f\x00\x00\x00", 1),
		"signature missing":  strings.Replace(windows, "\x10\x00\x00\x00"+string(signature)+string(payload), "\x10\x00\x00\x00", 1),
		"cut":                windows[:len(windows)-10],
		"something behind":   windows + "x",
		"two ends":           windows + "--\r\n",
		"header of 1 MB":     strings.Replace(windows, "Length=5", strings.Repeat("x", 1<<20)+";Length=5", 1),
		"header without end": strings.Repeat("-", 10),
	}
	for name, body := range bad {
		if _, _, data, err := decodeBody([]byte(body)); err == nil {
			t.Errorf("%s is read as %q", name, data)
		}
	}
}

func TestIsSealed(t *testing.T) {
	for kind, want := range map[string]bool{
		contentType: true,
		`multipart/encrypted; protocol="application/http-spnego-session-encrypted"; boundary="Encrypted Boundary"`:        true,
		`multipart/x-multi-encrypted;protocol="application/HTTP-CredSSP-session-encrypted";boundary="Encrypted Boundary"`: false,
		`application/soap+xml;charset=UTF-8`: false,
		`text/html; x="` + contentType + `"`: false,
		``:                                   false,
	} {
		if got := isSealed(kind); got != want {
			t.Errorf("isSealed(%q) = %t, want %t", kind, got, want)
		}
	}
}

// Whatever an endpoint sends, the parser returns, within the input, and what we
// write it reads back.
func FuzzMultipart(f *testing.F) {
	body := encodeBody(5, make([]byte, 16), []byte("sealed"))
	f.Add(body)
	f.Add(bytes.ReplaceAll(body, []byte("--E"), []byte("-- E")))
	f.Add(bytes.TrimSuffix(body, []byte("--\r\n")))
	f.Add([]byte("--Encrypted Boundary\r\n\r\n--Encrypted Boundary--"))
	f.Fuzz(func(t *testing.T, body []byte) {
		plain, signature, data, err := decodeBody(body)
		if err == nil {
			if plain < 0 || plain > MaxBody || len(signature) != 16 || len(data) > len(body) {
				t.Fatalf("%d, % x, %d of %d bytes", plain, signature, len(data), len(body))
			}
			again, sig, sealed, err := decodeBody(encodeBody(plain, signature, data))
			if err != nil || again != plain || !bytes.Equal(sig, signature) || !bytes.Equal(sealed, data) {
				t.Fatalf("not read back: %v", err)
			}
		}
		if _, sig, sealed, err := decodeBody(encodeBody(len(body), make([]byte, 16), body)); len(body) <= MaxBody && (err != nil || len(sig) != 16 || !bytes.Equal(sealed, body)) {
			t.Fatalf("own body is not read: %v", err)
		}
	})
}
