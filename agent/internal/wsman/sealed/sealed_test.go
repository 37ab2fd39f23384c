package sealed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/bodgit/ntlmssp"
	"github.com/google/go-cmp/cmp"
	"github.com/masterzen/winrm"
	"github.com/masterzen/winrm/soap"

	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed/sealedtest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

const (
	user = sealedtest.Domain + `\` + sealedtest.User
	// canary stands in every envelope of these tests.
	canary = "<s:Envelope>canary 5Y3K</s:Envelope>"
)

func options(e *sealedtest.Endpoint) Options {
	o := Options{Address: e.Addr, User: user, Password: secret.New(sealedtest.Password), TLS: e.TLS}
	if e.TLS {
		sum := sha256.Sum256(e.Certificate.Raw)
		o.Pin = sum[:]
	}
	return o
}

func dial(t *testing.T, o Options) *Transport {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// within is far longer than anything here takes, so that a hang fails the test.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func echo(plain []byte) (int, []byte) { return 200, append([]byte("re: "), plain...) }

// nothingInClear searches what an endpoint got for the envelope and the password,
// in the spellings in which they could leave.
func nothingInClear(t *testing.T, received []byte) {
	t.Helper()
	var wide []byte
	for _, u := range utf16.Encode([]rune(sealedtest.Password)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + sealedtest.Password))
	for _, s := range []string{"canary", "Envelope>", sealedtest.Password, string(wide), basic, "Basic", base64.StdEncoding.EncodeToString([]byte(canary))} {
		if bytes.Contains(received, []byte(s)) {
			t.Errorf("%q left in clear", s)
		}
	}
	for _, word := range strings.Fields(string(received)) { // and within the NTLM messages
		if raw, err := base64.StdEncoding.DecodeString(word); err == nil && (bytes.Contains(raw, wide) || bytes.Contains(raw, []byte(sealedtest.Password))) {
			t.Error("the password left within a message")
		}
	}
}

func TestMessagesAreSealedOnOneConnection(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%t", tls), func(t *testing.T) {
			e := (&sealedtest.Endpoint{Envelope: echo, TLS: tls}).Start(t)
			c := dial(t, options(e))
			var want []string
			for i := range 9 {
				envelope := canary + strings.Repeat("x", i*i*1000)
				want = append(want, envelope)
				reply, status, err := c.PostContext(within(t), []byte(envelope))
				if err != nil || status != 200 || string(reply) != "re: "+envelope {
					t.Fatalf("message %d: %d %v", i, status, err)
				}
			}
			if diff := cmp.Diff(want, e.Envelopes()); diff != "" {
				t.Errorf("envelopes (-want +got):\n%s", diff)
			}
			// Two requests to log in, then one for each message.
			if got := e.Requests(); got != 11 {
				t.Errorf("%d HTTP requests, want 11", got)
			}
			logins := e.Logins()
			if len(logins) != 1 || logins[0].Domain != sealedtest.Domain || logins[0].User != sealedtest.User || !logins[0].MIC {
				t.Errorf("logins %+v, want one of %s with a MIC", logins, user)
			}
			if tls && logins[0].Bindings == nil {
				t.Error("no channel bindings on TLS")
			}
			nothingInClear(t, e.Received())
		})
	}
}

func TestIPv6(t *testing.T) {
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on the loopback: %v", err)
	}
	probe.Close()
	e := (&sealedtest.Endpoint{Envelope: echo, Host: "::1"}).Start(t)
	c := dial(t, options(e))
	if reply, status, err := c.PostContext(within(t), []byte(canary)); err != nil || status != 200 || string(reply) != "re: "+canary {
		t.Errorf("%q %d %v", reply, status, err)
	}
	if !bytes.Contains(e.Received(), []byte("Host: "+e.Addr+"\r\n")) {
		t.Errorf("no Host %s among the headers", e.Addr)
	}
	nothingInClear(t, e.Received())
}

func TestFaultStatusCarriesItsBody(t *testing.T) {
	e := (&sealedtest.Endpoint{Envelope: func([]byte) (int, []byte) { return 500, []byte("fault") }}).Start(t)
	c := dial(t, options(e))
	for range 2 { // and the connection goes on
		reply, status, err := c.PostContext(within(t), []byte(canary))
		if string(reply) != "fault" || status != 500 || err != nil {
			t.Fatalf("%q %d %v", reply, status, err)
		}
	}
	if got := len(e.Logins()); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
}

func TestUserNames(t *testing.T) {
	for _, tt := range []struct{ in, domain, user string }{
		{`STAMP\CloudAdmin`, "STAMP", "CloudAdmin"},
		{`STAMP\odd\name`, "STAMP", `odd\name`},
		{`Zürich\Bärbel`, "Zürich", "Bärbel"},
		{"cloud@admin@stamp.example", "", "cloud@admin@stamp.example"},
		{"CloudAdmin", "", "CloudAdmin"},
	} {
		e := (&sealedtest.Endpoint{Envelope: echo}).Start(t)
		o := options(e)
		o.User = tt.in
		if _, _, err := dial(t, o).PostContext(within(t), []byte(canary)); err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if got := e.Logins()[0]; got.Domain != tt.domain || got.User != tt.user {
			t.Errorf("%s logs in as %q of %q, want %q of %q", tt.in, got.User, got.Domain, tt.user, tt.domain)
		}
	}
}

// A hostile endpoint, or somebody in between, gets neither an envelope nor the
// password, and its answer is never believed (threat: the session is read or
// forged by a peer that does not know the password).
func TestHostilePeers(t *testing.T) {
	shortFlags := []byte{6, 0, 1, 0, 2, 7, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0} // AvFlags of one byte, with a time
	nonce := [8]byte{1, 2, 3}
	honest := sealedtest.Challenge(sealedtest.Honest, nonce, sealedtest.Target())
	on := func(n int, response []byte) func(int, []byte) ([]byte, bool) {
		return func(i int, _ []byte) ([]byte, bool) {
			if i == n {
				return response, false
			}
			return nil, false
		}
	}
	sealedAs := func(edit func(s *sealedtest.Session, plain []byte) []byte) func(*sealedtest.Session, int, []byte) []byte {
		return func(s *sealedtest.Session, status int, plain []byte) []byte {
			return sealedtest.Response(status, sealedtest.ContentType, edit(s, plain))
		}
	}
	replace := func(old, new string) func(*sealedtest.Session, int, []byte) []byte {
		return sealedAs(func(s *sealedtest.Session, plain []byte) []byte {
			return bytes.Replace(sealedtest.Body(s, plain), []byte(old), []byte(new), 1)
		})
	}
	html := sealedtest.Response(503, "text/html; charset=us-ascii", []byte("<html>Service Unavailable</html>"))
	soapClear := sealedtest.Response(200, "application/soap+xml;charset=UTF-8", []byte(canary))
	tests := []struct {
		name string
		peer *sealedtest.Endpoint
		kind fault.Kind
		want string
	}{
		{"no seal bit", &sealedtest.Endpoint{Flags: sealedtest.Honest &^ sealedtest.Seal}, fault.Refused, "does not promise sealing"},
		{"no sign bit", &sealedtest.Endpoint{Flags: sealedtest.Honest &^ sealedtest.Sign}, fault.Refused, "does not promise sealing"},
		{"no extended session security", &sealedtest.Endpoint{Flags: sealedtest.Honest &^ sealedtest.ESS}, fault.Refused, "does not promise sealing"},
		{"no 128 bit", &sealedtest.Endpoint{Flags: sealedtest.Honest &^ sealedtest.Key128}, fault.Refused, "does not promise sealing"},
		{"no key exchange", &sealedtest.Endpoint{Flags: sealedtest.Honest &^ sealedtest.KeyExch}, fault.Refused, "does not promise sealing"},
		{"no unicode", &sealedtest.Endpoint{Flags: sealedtest.Honest &^ sealedtest.Unicode}, fault.Refused, "does not promise sealing"},
		{"anonymous", &sealedtest.Endpoint{Flags: sealedtest.Honest | sealedtest.Anonymous}, fault.Refused, "forbidden"},
		{"datagram", &sealedtest.Endpoint{Flags: sealedtest.Honest | sealedtest.Datagram}, fault.Refused, "forbidden"},
		{"challenge that breaks the library", &sealedtest.Endpoint{Message: sealedtest.Challenge(sealedtest.Honest, nonce, shortFlags)}, fault.Refused, "damaged"},
		{"challenge cut short", &sealedtest.Endpoint{Message: honest[:40]}, fault.Refused, "damaged"},
		{"challenge of 20 bytes", &sealedtest.Endpoint{Message: honest[:20]}, fault.Refused, "damaged"},
		{"challenge without an end", &sealedtest.Endpoint{Message: honest[:len(honest)-4]}, fault.Refused, "damaged"},
		{"basic only", &sealedtest.Endpoint{Raw: on(1, sealedtest.Response(401, "", nil, `WWW-Authenticate: Basic realm="WSMAN"`))}, fault.Refused, "offers no NTLM"},
		{"kerberos only", &sealedtest.Endpoint{Raw: on(1, sealedtest.Response(401, "", nil, `WWW-Authenticate: Kerberos`))}, fault.Refused, "offers no NTLM"},
		{"no login asked for", &sealedtest.Endpoint{Raw: on(1, sealedtest.Response(200, "", nil))}, fault.Refused, "status 200"},
		{"login answered 500", &sealedtest.Endpoint{Raw: on(1, sealedtest.Response(500, "", nil))}, fault.Refused, "status 500"},
		{"login answered 503", &sealedtest.Endpoint{Raw: on(1, html)}, fault.Unreachable, "status 503"},
		{"login redirected", &sealedtest.Endpoint{Raw: on(1, sealedtest.Response(307, "", nil, "Location: http://127.0.0.1:1/wsman"))}, fault.Refused, "redirect"},
		{"proof redirected", &sealedtest.Endpoint{Raw: on(2, sealedtest.Response(307, "", nil, "Location: http://127.0.0.1:1/wsman"))}, fault.Refused, "redirect"},
		{"proof answered 500", &sealedtest.Endpoint{Raw: on(2, sealedtest.Response(500, "", nil))}, fault.Refused, "status 500"},
		{"proof refused", &sealedtest.Endpoint{Raw: on(2, sealedtest.Response(401, "", nil, "WWW-Authenticate: Negotiate", "WWW-Authenticate: Basic"))}, fault.Permanent, "refuses user"},
		{"connection closed in the login", &sealedtest.Endpoint{Raw: on(1, sealedtest.Response(401, "", nil, "WWW-Authenticate: Negotiate "+base64.StdEncoding.EncodeToString(honest), "Connection: close"))}, fault.Refused, "in the middle of the login"},
		{"connection closed behind the login", &sealedtest.Endpoint{Raw: on(2, sealedtest.Response(200, "", nil, "Connection: close"))}, fault.Refused, "behind the login"},
		{"anybody says the login is fine", &sealedtest.Endpoint{Raw: func(n int, _ []byte) ([]byte, bool) {
			switch n {
			case 1:
				return nil, false
			case 2:
				return sealedtest.Response(200, "", nil), false
			}
			return sealedtest.Response(200, sealedtest.ContentType, sealedtest.Body(sealedtest.NewSession(make([]byte, 16)), []byte(canary))), false
		}}, fault.Refused, "signature of a reply does not fit"},
		{"clear reply", &sealedtest.Endpoint{Raw: on(3, soapClear)}, fault.Refused, "not sealed"},
		{"clear fault", &sealedtest.Endpoint{Raw: on(3, sealedtest.Response(500, "application/soap+xml", []byte("<s:Fault/>")))}, fault.Refused, "not sealed"},
		{"empty reply", &sealedtest.Endpoint{Raw: on(3, sealedtest.Response(200, "", nil))}, fault.Refused, "not sealed"},
		{"503 in HTML", &sealedtest.Endpoint{Raw: on(3, html)}, fault.Unreachable, "status 503"},
		{"401 to the first envelope", &sealedtest.Endpoint{Raw: on(3, sealedtest.Response(401, "", nil))}, fault.Permanent, "refuses user"},
		{"redirected envelope", &sealedtest.Endpoint{Raw: on(3, sealedtest.Response(302, "", nil, "Location: http://127.0.0.1:1/wsman"))}, fault.Refused, "redirect"},
		{"garbage", &sealedtest.Endpoint{Raw: on(3, sealedtest.Response(200, sealedtest.ContentType, []byte("\x00\xff garbage --Encrypted Boundary")))}, fault.Refused, "damaged"},
		{"no HTTP", &sealedtest.Endpoint{Raw: on(3, []byte("SSH-2.0-OpenSSH\r\n\r\n"))}, fault.Unreachable, "broke"},
		{"sealed under another type", &sealedtest.Endpoint{Sealed: func(s *sealedtest.Session, _ int, plain []byte) []byte {
			return sealedtest.Response(200, "multipart/mixed", sealedtest.Body(s, plain))
		}}, fault.Refused, "not sealed"},
		{"flipped signature", &sealedtest.Endpoint{Sealed: replace("\x10\x00\x00\x00\x01\x00\x00\x00", "\x10\x00\x00\x00\x02\x00\x00\x00")}, fault.Refused, "version 2"},
		{"flipped byte", &sealedtest.Endpoint{Sealed: sealedAs(func(s *sealedtest.Session, plain []byte) []byte {
			b := sealedtest.Body(s, plain)
			b[len(b)-30] ^= 1
			return b
		})}, fault.Refused, "signature of a reply does not fit"},
		{"replayed number", &sealedtest.Endpoint{Sealed: sealedAs(func(s *sealedtest.Session, plain []byte) []byte {
			sealedtest.Body(s, plain)
			return sealedtest.Body(s, plain)
		})}, fault.Refused, "signature of a reply does not fit"},
		{"another length", &sealedtest.Endpoint{Sealed: replace("Length=", "Length=1")}, fault.Refused, "states 1"},
		{"length of 4 GiB", &sealedtest.Endpoint{Sealed: replace("Length=", "Length=4294967296")}, fault.Refused, "out of range"},
		{"negative length", &sealedtest.Endpoint{Sealed: replace("Length=", "Length=-")}, fault.Refused, "out of range"},
		{"signature of 4 GiB", &sealedtest.Endpoint{Sealed: replace("\x10\x00\x00\x00", "\xff\xff\xff\xff")}, fault.Refused, "16 bytes"},
		{"no end", &sealedtest.Endpoint{Sealed: replace("Boundary--\r\n", "")}, fault.Refused, "no end"},
		{"header without an end", &sealedtest.Endpoint{Raw: on(3, append([]byte("HTTP/1.1 200 OK\r\n"), bytes.Repeat([]byte("X: y\r\n"), 20000)...))}, fault.Refused, "header of a reply"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.peer.Envelope = echo
			e := tt.peer.Start(t)
			reply, _, err := dial(t, options(e)).PostContext(within(t), []byte(canary))
			if err == nil {
				t.Fatalf("the reply %q is believed", reply)
			}
			if got := fault.KindOf(err); got != tt.kind || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q of kind %s, want %q of kind %s", err, got, tt.want, tt.kind)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), sealedtest.Password) {
				t.Error("the password is in the error")
			}
			var d interface{ Definite() bool }
			if sent := bytes.Contains(e.Received(), []byte("Encrypted Boundary")); sent == (errors.As(err, &d) && d.Definite()) {
				t.Errorf("envelope sent %t, error says that nothing was begun %t", sent, !sent)
			}
			nothingInClear(t, e.Received())
		})
	}
}

// What a hostile endpoint sends without an end is given up at a bound.
func TestEndlessReplies(t *testing.T) {
	for _, tt := range []struct{ name, head, piece string }{
		{"body without a length", "HTTP/1.1 200 OK\r\nContent-Type: " + sealedtest.ContentType + "\r\n\r\n", strings.Repeat("x", 1<<16)},
		{"length of 4 GiB", "HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n", strings.Repeat("x", 1<<16)},
		{"small chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1;aaaaaaaaaaaa\r\nx\r\n", 1<<12)},
		{"header lines", "HTTP/1.1 200 OK\r\n", strings.Repeat("X-Pad: yyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 1<<10)},
		{"one header line", "HTTP/1.1 200 OK\r\nX-Pad: ", strings.Repeat("y", 1<<16)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			var owner sync.WaitGroup
			owner.Go(func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if _, err := conn.Write([]byte(tt.head)); err != nil {
					return
				}
				for {
					if _, err := conn.Write([]byte(tt.piece)); err != nil {
						return
					}
				}
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c := dial(t, Options{Address: listener.Addr().String(), User: user, Password: secret.New("x")})
			_, _, err = c.PostContext(within(t), []byte(canary))
			runtime.ReadMemStats(&after)
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("error %v, want a refusal", err)
			}
			if all := after.TotalAlloc - before.TotalAlloc; all > 32<<20 {
				t.Errorf("%d bytes allocated", all)
			}
			owner.Wait()
		})
	}
}

// A peer that goes silent is given up when the context ends, for its reason.
func TestPeerThatNeverAnswers(t *testing.T) {
	for n := 1; n <= 3; n++ {
		hanging := make(chan struct{})
		release := make(chan struct{})
		e := &sealedtest.Endpoint{Envelope: echo, Raw: func(i int, _ []byte) ([]byte, bool) {
			if i != n {
				return nil, false
			}
			close(hanging)
			<-release
			return nil, true
		}}
		e.Start(t)
		t.Cleanup(func() { close(release) }) // before the endpoint's own
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-hanging; cancel(fault.New(fault.Unreachable, "waited long enough")) }()
		_, _, err := dial(t, options(e)).PostContext(ctx, []byte(canary))
		if err == nil || !strings.Contains(err.Error(), "waited long enough") || fault.KindOf(err) != fault.Unreachable {
			t.Errorf("request %d hangs: %v, want the reason of the context", n, err)
		}
		nothingInClear(t, e.Received())
	}
}

// After any failure the next message has a connection and a login of its own.
func TestNextMessageAfterABreak(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
		hang bool
	}{
		{"cut", nil, true},
		{"half a response", []byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), true},
		{"context gone", sealedtest.Response(401, "", nil), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := (&sealedtest.Endpoint{Envelope: echo, Raw: func(n int, _ []byte) ([]byte, bool) {
				if n == 4 {
					return tt.raw, tt.hang
				}
				return nil, false
			}}).Start(t)
			c := dial(t, options(e))
			for i, broken := range []bool{false, true, false, false} {
				_, _, err := c.PostContext(within(t), []byte(canary))
				if broken != (err != nil) {
					t.Fatalf("message %d: %v, want broken %t", i, err, broken)
				}
				var d interface{ Definite() bool }
				if broken && (fault.KindOf(err) != fault.Unreachable || errors.As(err, &d)) {
					t.Errorf("error %v of kind %s is definite: the envelope had left", err, fault.KindOf(err))
				}
			}
			if got := len(e.Logins()); got != 2 {
				t.Errorf("%d logins, want 2", got)
			}
			if got := len(e.Envelopes()); got != 3 {
				t.Errorf("%d envelopes, want 3: the broken one is not sent again", got)
			}
		})
	}
}

// An idle connection that the endpoint dropped is replaced before the next
// envelope goes into it; one on which something came unasked is not used either.
func TestIdleConnection(t *testing.T) {
	for _, tt := range []struct {
		name  string
		extra []byte
		hang  bool
		login int
	}{
		{"kept", nil, false, 1},
		{"dropped", nil, true, 2},
		{"bytes nobody asked for", []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), false, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &sealedtest.Endpoint{Envelope: echo}
			done := make(chan struct{})
			e.Sealed = func(s *sealedtest.Session, status int, plain []byte) []byte {
				return append(sealedtest.Response(status, sealedtest.ContentType, sealedtest.Body(s, plain)), tt.extra...)
			}
			e.Start(t)
			relay := cutter(t, e.Addr, done)
			o := options(e)
			o.Address = relay
			c := dial(t, o)
			if _, _, err := c.PostContext(within(t), []byte(canary)); err != nil {
				t.Fatal(err)
			}
			if tt.hang {
				done <- struct{}{} // cut now
				<-done             // it is cut
			}
			c.used = time.Time{} // long ago
			if _, _, err := c.PostContext(within(t), []byte(canary)); err != nil {
				t.Fatal(err)
			}
			if got := len(e.Logins()); got != tt.login {
				t.Errorf("%d logins, want %d", got, tt.login)
			}
			if got := len(e.Envelopes()); got != 2 {
				t.Errorf("%d envelopes, want 2", got)
			}
		})
	}
}

// cutter passes bytes on to addr and closes its first connection on a word from
// cut, which it confirms.
func cutter(t *testing.T, addr string, cut chan struct{}) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var owner sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); listener.Close(); owner.Wait() })
	pass := func(from, to net.Conn) {
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				from.Close()
				to.Close()
				return
			}
		}
	}
	owner.Go(func() {
		for i := 0; ; i++ {
			a, err := listener.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", addr)
			if err != nil {
				a.Close()
				return
			}
			owner.Go(func() { pass(a, b) })
			owner.Go(func() { pass(b, a) })
			owner.Go(func() {
				first := cut
				if i > 0 {
					first = nil
				}
				select {
				case <-first:
					a.Close()
					b.Close()
					cut <- struct{}{}
				case <-stop:
					a.Close()
					b.Close()
				}
			})
		}
	})
	return listener.Addr().String()
}

// A context that ends just behind a reply does not poison the next message.
func TestContextThatEndsBehindTheReply(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := (&sealedtest.Endpoint{Envelope: echo}).Start(t)
	c := dial(t, options(e))
	if _, _, err := c.PostContext(ctx, []byte(canary)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, _, err := c.PostContext(ctx, []byte(canary)); !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Cancelled {
		t.Errorf("with an ended context: %v", err)
	}
	if _, _, err := c.PostContext(within(t), []byte(canary)); err != nil {
		t.Error(err)
	}
	if got := len(e.Envelopes()); got != 2 {
		t.Errorf("%d envelopes, want 2", got)
	}
}

// Many goroutines on one transport wait for each other: the sealing keys run on
// from message to message, and the library's own transport breaks here.
func TestConcurrentUse(t *testing.T) {
	e := (&sealedtest.Endpoint{Envelope: echo}).Start(t)
	c := dial(t, options(e))
	ctx := within(t)
	var owner sync.WaitGroup
	for g := range 4 {
		owner.Go(func() {
			for i := range 6 {
				envelope := canary + strconv.Itoa(g*6+i)
				if reply, _, err := c.PostContext(ctx, []byte(envelope)); err != nil || string(reply) != "re: "+envelope {
					t.Errorf("%s: %q %v", envelope, reply, err)
				}
			}
		})
	}
	owner.Wait()
	if len(e.Envelopes()) != 24 || len(e.Logins()) != 1 {
		t.Errorf("%d envelopes in %d logins, want 24 in 1", len(e.Envelopes()), len(e.Logins()))
	}
}

// The environment's proxy is not asked (threat: a variable sends the session to a
// machine in between).
func TestEnvironmentProxyIsIgnored(t *testing.T) {
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://"+trap.Addr().String())
	}
	e := (&sealedtest.Endpoint{Envelope: echo}).Start(t)
	if _, _, err := dial(t, options(e)).PostContext(within(t), []byte(canary)); err != nil {
		t.Fatal(err)
	}
	if len(e.Envelopes()) != 1 {
		t.Error("the envelope did not come")
	}
	// Whoever had connected would stand in the listener's queue.
	_ = trap.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	if conn, err := trap.Accept(); err == nil {
		conn.Close()
		t.Error("the proxy of the environment was asked")
	}
}

func TestTrustInCertificates(t *testing.T) {
	e := (&sealedtest.Endpoint{Envelope: echo, TLS: true}).Start(t)
	other := (&sealedtest.Endpoint{Envelope: echo, TLS: true}).Start(t)
	pool := func(c *x509.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(c)
		return p
	}
	pin := sha256.Sum256(other.Certificate.Raw)
	wrong := options(other)
	tests := []struct {
		name string
		edit func(*Options)
		kind fault.Kind
		want string
	}{
		{"own pin", func(*Options) {}, 0, ""},
		{"another pin", func(o *Options) { o.Pin = pin[:] }, fault.Refused, hex.EncodeToString(pin[:])},
		{"own roots", func(o *Options) { o.Pin, o.Roots = nil, pool(e.Certificate) }, 0, ""},
		{"other roots", func(o *Options) { o.Pin, o.Roots = nil, pool(other.Certificate) }, fault.Refused, "not trusted"},
		{"the machine's roots", func(o *Options) { o.Pin = nil }, fault.Refused, "not trusted"},
		{"wrong pin and right roots", func(o *Options) { o.Pin, o.Roots = wrong.Pin, pool(e.Certificate) }, fault.Refused, "pin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(e)
			tt.edit(&o)
			_, _, err := dial(t, o).PostContext(within(t), []byte(canary))
			if tt.kind == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if fault.KindOf(err) != tt.kind && !errors.As(err, new(*Refused)) || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v of kind %s, want %q of kind %s", err, fault.KindOf(err), tt.want, tt.kind)
			}
			if got := fault.KindOf(err); got != tt.kind {
				t.Errorf("kind %s, want %s", got, tt.kind)
			}
		})
	}
}

// Somebody who passes TLS on under a certificate of his own cannot pass the login
// on: it is bound to the certificate that the client saw.
func TestLoginIsBoundToTheCertificate(t *testing.T) {
	e := &sealedtest.Endpoint{Envelope: echo, TLS: true}
	e.Start(t)
	o := options(e)
	mine := *e.Certificate
	mine.Raw = append([]byte("another"), e.Certificate.Raw...)
	e.Certificate = &mine // what the endpoint expects the client to have seen
	_, _, err := dial(t, o).PostContext(within(t), []byte(canary))
	if fault.KindOf(err) != fault.Permanent {
		t.Errorf("error %v, want the login refused", err)
	}
}

func TestBasicOnlyOnTLS(t *testing.T) {
	e := (&sealedtest.Endpoint{Envelope: echo, TLS: true}).Start(t)
	o := options(e)
	o.Basic = true
	reply, status, err := dial(t, o).PostContext(within(t), []byte(canary))
	if string(reply) != "re: "+canary || status != 200 || err != nil {
		t.Errorf("%q %d %v", reply, status, err)
	}
	o.Password = secret.New("wrong")
	if _, _, err := dial(t, o).PostContext(within(t), []byte(canary)); fault.KindOf(err) != fault.Permanent {
		t.Errorf("wrong password: %v", err)
	}
	o.TLS, o.Pin = false, nil
	if _, err := New(o); fault.KindOf(err) != fault.Usage {
		t.Errorf("basic without TLS: %v", err)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Address: "192.0.2.1", User: user, Password: secret.New("x")}
	for _, tt := range []struct {
		name string
		edit func(*Options)
		kind fault.Kind
		url  string
	}{
		{"plain", func(*Options) {}, 0, "http://192.0.2.1:5985/wsman"},
		{"tls", func(o *Options) { o.TLS = true }, 0, "https://192.0.2.1:5986/wsman"},
		{"port", func(o *Options) { o.Address = "ercs01:15985" }, 0, "http://ercs01:15985/wsman"},
		{"IPv6", func(o *Options) { o.Address = "2001:db8::1" }, 0, "http://[2001:db8::1]:5985/wsman"},
		{"IPv6 in brackets", func(o *Options) { o.Address = "[2001:db8::1]" }, 0, "http://[2001:db8::1]:5985/wsman"},
		{"IPv6 and port", func(o *Options) { o.Address = "[2001:db8::1]:80" }, 0, "http://[2001:db8::1]:80/wsman"},
		{"half a bracket", func(o *Options) { o.Address = "[2001:db8::1" }, fault.Usage, ""},
		{"too many colons", func(o *Options) { o.Address = "192.0.2.1:80:80" }, fault.Usage, ""},
		{"nothing", func(o *Options) { o.Address = "" }, fault.Usage, ""},
		{"URL", func(o *Options) { o.Address = "http://192.0.2.1" }, fault.Usage, ""},
		{"port 0", func(o *Options) { o.Address = "192.0.2.1:0" }, fault.Usage, ""},
		{"port 99999", func(o *Options) { o.Address = "192.0.2.1:99999" }, fault.Usage, ""},
		{"user in the address", func(o *Options) { o.Address = "u:p@192.0.2.1" }, fault.Usage, ""},
		{"pin without TLS", func(o *Options) { o.Pin = make([]byte, 32) }, fault.Usage, ""},
		{"short pin", func(o *Options) { o.TLS, o.Pin = true, make([]byte, 20) }, fault.Usage, ""},
		{"no user", func(o *Options) { o.User = "" }, fault.Locked, ""},
		{"no password", func(o *Options) { o.Password = secret.Text{} }, fault.Locked, ""},
	} {
		o := good
		tt.edit(&o)
		c, err := New(o)
		if fault.KindOf(err) != tt.kind {
			t.Errorf("%s: %v, want kind %s", tt.name, err, tt.kind)
		}
		if err == nil && c.URL() != tt.url {
			t.Errorf("%s: %s, want %s", tt.name, c.URL(), tt.url)
		}
	}
}

// The library's client opens a shell over this transport, and a fault is an error
// to it.
func TestLibraryClient(t *testing.T) {
	const created = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><s:Body>` +
		`<w:SelectorSet><w:Selector Name="ShellId">5C1D6B4E</w:Selector></w:SelectorSet></s:Body></s:Envelope>`
	e := (&sealedtest.Endpoint{Envelope: func(plain []byte) (int, []byte) {
		if bytes.Contains(plain, []byte("transfer/Create")) {
			return 200, []byte(created)
		}
		return 500, []byte("fault")
	}}).Start(t)
	c := dial(t, options(e))
	host, port, _ := net.SplitHostPort(e.Addr)
	number, _ := strconv.Atoi(port)
	parameters := *winrm.DefaultParameters
	parameters.TransportDecorator = func() winrm.Transporter { return c }
	client, err := winrm.NewClientWithParameters(&winrm.Endpoint{Host: host, Port: number}, "", "", &parameters)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := client.CreateShell()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Close(); fault.KindOf(err) != fault.Refused {
		t.Errorf("a fault: %v, want kind refused", err)
	}
	if reply, err := c.Post(client, soap.NewMessage()); reply != "fault" || err == nil {
		t.Errorf("%q %v, want the fault's body and an error", reply, err)
	}
	if got := e.Envelopes(); len(got) != 3 || !strings.Contains(got[1], "5C1D6B4E") {
		t.Errorf("envelopes %q", got)
	}
	nothingInClear(t, e.Received())
	for _, wrong := range []*winrm.Endpoint{{Host: host, Port: number + 1}, {Host: host, Port: number, HTTPS: true}, {Host: host, Port: number, Insecure: true}} {
		if err := c.Transport(wrong); fault.KindOf(err) != fault.Usage {
			t.Errorf("endpoint %+v: %v", wrong, err)
		}
	}
}

// The challenge of [MS-NLMP] 4.2.4.3, which has no time, so that the library sends
// an LMv2 response and no MIC.
func TestPublishedChallenge(t *testing.T) {
	challenge, err := hex.DecodeString("4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef00000000000000002400240044000000060070170000000f" +
		"53006500720076006500720002000c0044006f006d00610069006e0001000c0053006500720076006500720000000000")
	if err != nil {
		t.Fatal(err)
	}
	e := (&sealedtest.Endpoint{Envelope: echo, Message: challenge}).Start(t)
	if _, _, err := dial(t, options(e)).PostContext(within(t), []byte(canary)); err != nil {
		t.Fatal(err)
	}
	if got := e.Logins(); len(got) != 1 || got[0].MIC {
		t.Errorf("logins %+v, want one without a MIC", got)
	}
}

// Challenges may come among other offers, on one line or several.
func TestChallengeAmongOffers(t *testing.T) {
	challenge := sealedtest.Challenge(sealedtest.Honest, [8]byte{}, sealedtest.Target())
	token := base64.StdEncoding.EncodeToString(challenge)
	for _, offers := range [][]string{
		{"Negotiate " + token}, {"Kerberos", "negotiate " + token}, {"Basic realm=\"WSMAN\", Negotiate " + token + ", Kerberos"},
	} {
		got, err := readChallenge(401, http.Header{"Www-Authenticate": offers})
		if err != nil || !bytes.Equal(got, challenge) {
			t.Errorf("%q: %v", offers, err)
		}
	}
}

// Whatever challenge comes, the library's panics stay inside.
func FuzzChallenge(f *testing.F) {
	f.Add(sealedtest.Challenge(sealedtest.Honest, [8]byte{}, sealedtest.Target()))
	f.Add(sealedtest.Challenge(sealedtest.Honest, [8]byte{}, []byte{6, 0, 1, 0, 2, 7, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, challenge []byte) {
		header := http.Header{"Www-Authenticate": {"Negotiate " + base64.StdEncoding.EncodeToString(challenge)}}
		got, err := readChallenge(401, header)
		if err != nil {
			return
		}
		client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo("u", "p"))
		if err != nil {
			t.Fatal(err)
		}
		hello, err := client.Authenticate(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := answer(client, got, &ntlmssp.ChannelBindings{ApplicationData: []byte("x")})
		if err != nil {
			return
		}
		// Where it is answered at all, the keys come from the password.
		if _, err := sealedtest.Verify(hello, got, proof, "p"); err != nil {
			t.Skip(err) // an odd challenge may have lost its target info on the way
		}
		if _, err := sealedtest.Verify(hello, got, proof, ""); err == nil {
			t.Fatal("verified without the password")
		}
	})
}
