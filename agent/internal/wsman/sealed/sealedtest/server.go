// Package sealedtest is an endpoint for the tests of packages sealed and wsman: it
// accepts NTLMv2 logins, unseals envelopes and seals replies over real TCP, and
// can be made to misbehave in every way that a network or a hostile host can.
//
// It shares no code with the client nor with package peptest, so that it is a
// second opinion on both.
package sealedtest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Account that every endpoint knows.
const (
	Domain   = "STAMP"
	User     = "CloudAdmin"
	Password = "corréct horse 7Q2MKX4R"
)

// Endpoint is one endpoint. Set the fields, then call Start.
type Endpoint struct {
	// Envelope answers an unsealed envelope.
	Envelope func(plain []byte) (status int, reply []byte)

	// Raw, if set, sees every HTTP request, counted from 1, before it is handled.
	// What it returns is written as it is; nil is honesty. hangUp closes the
	// connection after that.
	Raw func(n int, body []byte) (response []byte, hangUp bool)
	// Sealed, if set, makes the whole HTTP response to an envelope; after nil the
	// connection is closed.
	Sealed func(s *Session, status int, plain []byte) []byte
	// Message, if set, is sent as the challenge.
	Message []byte
	// Flags of the challenge; 0 is Honest.
	Flags uint32
	// TLS makes the endpoint speak TLS with a certificate of its own.
	TLS bool
	// Host to listen on; "" is 127.0.0.1.
	Host string

	Addr        string
	Certificate *x509.Certificate

	mu        sync.Mutex
	received  bytes.Buffer
	requests  int
	logins    []Login
	envelopes []string
}

// Start listens on a port of the loopback until the test ends.
func (e *Endpoint) Start(t testing.TB) *Endpoint {
	t.Helper()
	host := e.Host
	if host == "" {
		host = "127.0.0.1"
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	e.Addr = listener.Addr().String()
	var config *tls.Config
	if e.TLS {
		config = e.certify(t)
	}
	var owner sync.WaitGroup
	var open sync.Map
	owner.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Store(conn, nil)
			owner.Go(func() {
				defer conn.Close()
				if config != nil {
					e.serve(tls.Server(conn, config))
				} else {
					e.serve(conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		owner.Wait()
	})
	return e
}

func (e *Endpoint) certify(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if e.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// Received are all bytes that clients sent, behind TLS if there is any.
func (e *Endpoint) Received() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return bytes.Clone(e.received.Bytes())
}

// Requests counts the HTTP requests.
func (e *Endpoint) Requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.requests
}

// Logins are those that succeeded.
func (e *Endpoint) Logins() []Login {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Login(nil), e.logins...)
}

// Envelopes are those that were unsealed, or came in clear under Basic.
func (e *Endpoint) Envelopes() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.envelopes...)
}

type tap struct {
	e *Endpoint
	r io.Reader
}

func (t tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.e.mu.Lock()
	t.e.received.Write(p[:n])
	t.e.mu.Unlock()
	return n, err
}

// serve answers the requests of one connection.
func (e *Endpoint) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(tap{e, conn})
	var hello, challenge []byte
	var session *Session
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		e.mu.Lock()
		e.requests++
		n := e.requests
		e.mu.Unlock()
		var out []byte
		hangUp := false
		if e.Raw != nil {
			out, hangUp = e.Raw(n, body)
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		message, _ := base64.StdEncoding.DecodeString(token)
		switch {
		case out != nil || hangUp:
		case scheme == "Basic":
			out = e.basic(message, body)
		case len(message) > 12 && message[8] == 1:
			hello, challenge = message, e.challenge()
			out = Response(401, "", nil, "WWW-Authenticate: Negotiate "+base64.StdEncoding.EncodeToString(challenge))
		case len(message) > 12 && message[8] == 3:
			if session, err = e.login(conn, hello, challenge, message); err != nil {
				out = Response(401, "", nil, "WWW-Authenticate: Negotiate")
			} else {
				out = Response(200, "", nil)
			}
		default:
			if out, err = e.envelope(session, r.Header.Get("Content-Type"), body); err != nil {
				out = Response(401, "text/plain", []byte(err.Error()))
			}
			hangUp = out == nil
		}
		if _, err := conn.Write(out); err != nil || hangUp {
			return
		}
	}
}

func (e *Endpoint) challenge() []byte {
	if e.Message != nil {
		return e.Message
	}
	flags := e.Flags
	if flags == 0 {
		flags = Honest
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:])
	return Challenge(flags, nonce, Target())
}

func (e *Endpoint) login(conn net.Conn, hello, challenge, proof []byte) (*Session, error) {
	l, err := Verify(hello, challenge, proof, Password)
	if err != nil {
		return nil, err
	}
	if _, ok := conn.(*tls.Conn); ok {
		// RFC 5929 tls-server-end-point in the structure of RFC 2744.
		sum := sha256.Sum256(e.Certificate.Raw)
		data := append([]byte("tls-server-end-point:"), sum[:]...)
		want := md5.Sum(append(binary.LittleEndian.AppendUint32(make([]byte, 16), uint32(len(data))), data...))
		if !bytes.Equal(l.Bindings, want[:]) {
			return nil, fmt.Errorf("channel bindings % x, want % x", l.Bindings, want)
		}
	}
	e.mu.Lock()
	e.logins = append(e.logins, *l)
	e.mu.Unlock()
	return NewSession(l.Key), nil
}

func (e *Endpoint) answer(plain []byte) (int, []byte) {
	e.mu.Lock()
	e.envelopes = append(e.envelopes, string(plain))
	e.mu.Unlock()
	return e.Envelope(plain)
}

func (e *Endpoint) basic(credentials, body []byte) []byte {
	if string(credentials) != Domain+`\`+User+":"+Password {
		return Response(401, "", nil, "WWW-Authenticate: Basic")
	}
	status, reply := e.answer(body)
	return Response(status, "application/soap+xml;charset=UTF-8", reply)
}

func (e *Endpoint) envelope(s *Session, kind string, body []byte) ([]byte, error) {
	const head = "--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n" +
		"--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n"
	if s == nil || kind != ContentType {
		return nil, errors.New("not sealed")
	}
	// Exactly the form of Windows, to the byte.
	var length int
	i := bytes.Index(body, []byte("octet-stream\r\n"))
	if _, err := fmt.Sscanf(string(body), head, &length); err != nil || i < 0 {
		return nil, fmt.Errorf("multipart: %v", err)
	}
	i += len("octet-stream\r\n")
	if fmt.Sprintf(head, length) != string(body[:i]) {
		return nil, fmt.Errorf("multipart head %q", body[:i])
	}
	data, ok := bytes.CutSuffix(body[i:], []byte("--Encrypted Boundary--\r\n"))
	if !ok || len(data) < 20 || binary.LittleEndian.Uint32(data) != 16 {
		return nil, errors.New("multipart end or signature length")
	}
	plain, err := s.Unseal(data[4:20], data[20:])
	if err != nil {
		return nil, err
	}
	if len(plain) != length {
		return nil, fmt.Errorf("%d bytes, stated were %d", len(plain), length)
	}
	status, reply := e.answer(plain)
	if e.Sealed != nil {
		return e.Sealed(s, status, reply), nil
	}
	return Response(status, ContentType, Body(s, reply)), nil
}

// ContentType of a sealed body.
const ContentType = `multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"`

// Body seals a reply.
func Body(s *Session, plain []byte) []byte {
	signature, sealed := s.Seal(plain)
	var b bytes.Buffer
	fmt.Fprintf(&b, "--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n", len(plain))
	b.WriteString("--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n\x10\x00\x00\x00")
	b.Write(signature)
	b.Write(sealed)
	b.WriteString("--Encrypted Boundary--\r\n")
	return b.Bytes()
}

// Response spells an HTTP response.
func Response(status int, contentType string, body []byte, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nServer: Microsoft-HTTPAPI/2.0\r\nContent-Length: %d\r\n", status, http.StatusText(status), len(body))
	if contentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", contentType)
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}
