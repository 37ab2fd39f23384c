// Package sealed carries WSMan envelopes to an endpoint under NTLM message
// sealing ([MS-WSMV] 2.2.9, [MS-NLMP] 3.4), as a transport for the library
// masterzen/winrm.
//
// The property: it never falls back. The password never leaves the machine, only
// NTLMv2 proofs of it; no envelope leaves in clear; a challenge without sealing,
// signing, extended session security, 128-bit keys and key exchange is refused
// before it is answered; a reply that is not sealed, or whose signature does not
// fit, is refused, whatever its status. Basic authentication exists only on TLS
// and only when it was asked for.
//
// One [Transport] is one TCP connection at a time, one NTLM context, and one
// request in flight: the sealing keys run on from message to message. The
// library's own transport shares contexts and sends in clear when it cannot seal,
// which is why it is not used.
//
// The limit: NTLM proves to the endpoint that we know the password and to us that
// it does too; it does not prove which of all machines that know it is there.
// TLS with a pinned certificate does.
package sealed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bodgit/ntlmssp"
	"github.com/masterzen/winrm"
	"github.com/masterzen/winrm/soap"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Options say where the endpoint is and who calls.
type Options struct {
	Address  string // host, host:port, [IPv6] or [IPv6]:port; the port is 5985, on TLS 5986
	User     string // DOMAIN\user, or a user principal name
	Password secret.Text
	TLS      bool
	Roots    *x509.CertPool // nil is the machine's
	Pin      []byte         // SHA-256 of the endpoint's certificate (DER); replaces the check by roots
	Basic    bool           // instead of NTLM; needs TLS
	Dial     time.Duration  // to connect; 0 is 15 s
}

// Transport is one connection to an endpoint. The zero value is not usable; make
// it with [New].
type Transport struct {
	options Options
	address string // host:port
	url     string

	mu      sync.Mutex
	conn    net.Conn
	limit   *io.LimitedReader // what one response may have, header and all
	reader  *bufio.Reader
	session *ntlmssp.SecuritySession
	last    bool // the endpoint said that it closes the connection
	fresh   bool // no envelope was answered on the connection yet
	used    time.Time
}

var _ winrm.Transporter = (*Transport)(nil)

// New checks the options; it does not connect.
func New(o Options) (*Transport, error) {
	if o.Basic && !o.TLS {
		return nil, fault.New(fault.Usage, "basic authentication would show the password: it needs TLS").Hint("azs-agent … --pep-tls")
	}
	if (o.Pin != nil || o.Roots != nil) && !o.TLS {
		return nil, fault.New(fault.Usage, "a certificate is pinned or its roots are named, but TLS is not asked for").Hint("azs-agent … --pep-tls")
	}
	if o.Pin != nil && len(o.Pin) != sha256.Size {
		return nil, fault.New(fault.Usage, "the pin of the endpoint's certificate is not a SHA-256 of 64 hex digits")
	}
	if o.User == "" || o.Password.Empty() {
		return nil, fault.New(fault.Locked, "the privileged endpoint needs a user and a password").Hint(`azs-agent … --pep-user 'DOMAIN\CloudAdmin' --pep-password-file F`)
	}
	address, err := hostPort(o.Address, o.TLS)
	if err != nil {
		return nil, err
	}
	if o.Dial == 0 {
		o.Dial = 15 * time.Second
	}
	scheme := "http"
	if o.TLS {
		scheme = "https"
	}
	return &Transport{options: o, address: address, url: (&url.URL{Scheme: scheme, Host: address, Path: "/wsman"}).String()}, nil
}

func hostPort(address string, useTLS bool) (string, error) {
	port := "5985"
	if useTLS {
		port = "5986"
	}
	host, open := strings.CutPrefix(address, "[")
	host, closed := strings.CutSuffix(host, "]")
	if h, p, err := net.SplitHostPort(address); err == nil {
		host, port, open, closed = h, p, false, false
	}
	_, colons := netip.ParseAddr(host) // nil of an IPv6 address, which alone has some
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || open != closed ||
		strings.ContainsAny(host, " /?#@\\[]\"") || strings.Contains(host, ":") && colons != nil {
		return "", fault.New(fault.Usage, "%q is not an address HOST, HOST:PORT or [IPv6]:PORT", address)
	}
	return net.JoinHostPort(host, port), nil
}

// URL is where the envelopes go.
func (t *Transport) URL() string { return t.url }

// Transport satisfies [winrm.Transporter]. The options of [New] count; an
// endpoint of the library that contradicts them is refused.
func (t *Transport) Transport(e *winrm.Endpoint) error {
	if e == nil {
		return nil
	}
	address, err := hostPort(net.JoinHostPort(strings.Trim(e.Host, "[]"), strconv.Itoa(e.Port)), e.HTTPS)
	switch {
	case err != nil:
		return err
	case address != t.address || e.HTTPS != t.options.TLS:
		return fault.New(fault.Usage, "the transport is for %s, not for %s (TLS %t)", t.url, address, e.HTTPS)
	case e.Insecure || len(e.CACert)+len(e.Key)+len(e.Cert) > 0:
		return fault.New(fault.Usage, "the transport has its own trust in certificates, the library's is not used")
	}
	return nil
}

// Post satisfies [winrm.Transporter]; it waits no longer than [Patience]. A fault's
// body is returned beside an error, as the library does not look for faults.
func (t *Transport) Post(_ *winrm.Client, message *soap.SoapMessage) (string, error) {
	body, status, err := t.PostContext(context.Background(), []byte(message.String()))
	if err == nil && status != http.StatusOK {
		err = fault.New(fault.Refused, "the endpoint answers HTTP status %d", status)
	}
	return string(body), err
}

// Refused is a failure that certainly means that nothing was done: the login
// failed, or there was no connection, so no envelope was sent.
type Refused struct{ Err error }

// Error returns the reason.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns the reason.
func (r *Refused) Unwrap() error { return r.Err }

// Definite reports that the endpoint certainly began nothing. What somebody in
// between could have written, such as a 401 in clear to an envelope that was
// sent, is never definite.
func (r *Refused) Definite() bool { return true }

// Patience is how long an exchange may last, login and all, where the context has
// no deadline.
const Patience = 5 * time.Minute

// quiet is how long a connection may be unused before it is looked at again.
const quiet = time.Second

// PostContext sends an envelope and returns the unsealed reply with its HTTP
// status: 200, or 500 for a fault. It logs in first if there is no connection.
// A connection on which anything went wrong is closed, never used again, and no
// envelope is ever sent a second time.
func (t *Transport) PostContext(ctx context.Context, envelope []byte) (reply []byte, status int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, 0, &Refused{context.Cause(ctx)}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, Patience, fault.New(fault.Unreachable, "the endpoint did not answer within %s", Patience))
		defer cancel()
	}
	if t.conn != nil && time.Since(t.used) > quiet && !t.alive() {
		t.close()
	}
	if t.conn == nil {
		if err := t.connect(ctx); err != nil {
			t.close()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, 0, &Refused{err} // no envelope has left yet
		}
	}
	unwatch := watch(ctx, t.conn)
	reply, status, err = t.exchange(envelope)
	untouched := unwatch()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil || t.last || !untouched {
		t.close()
	}
	t.fresh, t.used = false, time.Now()
	return reply, status, err
}

// alive says whether the endpoint still keeps the connection. Endpoints drop idle
// ones, and an envelope that is sent into a dropped one has an unknown outcome.
func (t *Transport) alive() bool {
	t.limit.N = 1
	_ = t.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := t.reader.Peek(1)
	_ = t.conn.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded) // and so nothing that nobody asked for
}

// Close ends the connection.
func (t *Transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close()
}

func (t *Transport) close() {
	if t.conn != nil {
		t.conn.Close()
	}
	t.conn, t.reader, t.limit, t.session, t.last = nil, nil, nil, nil, false
}

// watch makes the end of ctx end whatever the connection waits for. The returned
// function stops that and says whether the connection was left alone.
func watch(ctx context.Context, conn net.Conn) (unwatch func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// connect dials, checks the certificate and logs in.
func (t *Transport) connect(ctx context.Context) error {
	dialer := net.Dialer{Timeout: t.options.Dial}
	conn, err := dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return fault.New(fault.Unreachable, "the endpoint cannot be reached: %w", err)
	}
	t.conn, t.fresh = conn, true
	unwatch := watch(ctx, conn)
	if err := t.open(ctx); err != nil {
		unwatch()
		return err
	}
	if !unwatch() {
		return context.Cause(ctx)
	}
	return nil
}

func (t *Transport) open(ctx context.Context) error {
	var bindings *ntlmssp.ChannelBindings
	if t.options.TLS {
		var err error
		if bindings, err = t.handshake(ctx); err != nil {
			return err
		}
	}
	t.limit = &io.LimitedReader{R: t.conn}
	t.reader = bufio.NewReader(t.limit)
	if t.options.Basic {
		return nil // the credentials go with each request
	}
	return t.login(bindings)
}

func (t *Transport) handshake(ctx context.Context) (*ntlmssp.ChannelBindings, error) {
	host, _, _ := net.SplitHostPort(t.address)
	config := &tls.Config{ServerName: host, RootCAs: t.options.Roots, MinVersion: tls.VersionTLS12}
	if t.options.Pin != nil {
		// The pin names one certificate; names and roots say less than that.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			if sum := sha256.Sum256(cs.PeerCertificates[0].Raw); !bytes.Equal(sum[:], t.options.Pin) {
				return fault.New(fault.Refused, "the endpoint's certificate has the SHA-256 %s, the pin is %s", hex.EncodeToString(sum[:]), hex.EncodeToString(t.options.Pin))
			}
			return nil
		}
	}
	secured := tls.Client(t.conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		var unknown *tls.CertificateVerificationError
		switch {
		case fault.KindOf(err) == fault.Refused:
			return nil, err
		case errors.As(err, &unknown):
			return nil, fault.New(fault.Refused, "the endpoint's certificate is not trusted: %w", err).Hint("azs-agent … --pep-ca-file F, or --pep-pin SHA256")
		}
		return nil, fault.New(fault.Unreachable, "TLS with the endpoint failed: %w", err)
	}
	t.conn = secured
	return &ntlmssp.ChannelBindings{ApplicationData: endPoint(secured.ConnectionState().PeerCertificates[0])}, nil
}

// endPoint is the channel binding tls-server-end-point (RFC 5929 §4): the
// certificate's hash under the hash of its signature, but at least SHA-256.
func endPoint(cert *x509.Certificate) []byte {
	var h hash.Hash
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = sha512.New384()
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = sha512.New()
	default:
		h = sha256.New()
	}
	h.Write(cert.Raw)
	return append([]byte(ntlmssp.TLSServerEndPoint+":"), h.Sum(nil)...)
}

// maxHeader is the most bytes of a response's header.
const maxHeader = 64 << 10

// Flags of a challenge ([MS-NLMP] 2.2.2.5). Those of forbidden would undo the
// others: a challenge that says "anonymous" makes the library derive the session's
// keys without the password, so that anybody could unseal.
const (
	flagUnicode   = 0x1
	flagSign      = 0x10
	flagSeal      = 0x20
	flagDatagram  = 0x40
	flagAnonymous = 0x800
	flagESS       = 0x80000
	flag128       = 0x20000000
	flagKeyExch   = 0x40000000

	required  = flagUnicode | flagSign | flagSeal | flagESS | flag128 | flagKeyExch
	forbidden = flagDatagram | flagAnonymous
)

// login runs the three NTLM messages on the connection.
func (t *Transport) login(bindings *ntlmssp.ChannelBindings) error {
	user, domain := t.options.User, ""
	if d, u, ok := strings.Cut(user, `\`); ok {
		user, domain = u, d // a user principal name goes whole, with no domain
	}
	client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo(user, t.options.Password.Reveal()), ntlmssp.SetVersion(ntlmssp.DefaultVersion()))
	if err != nil {
		return fmt.Errorf("NTLM: %w", err)
	}
	hello, err := client.Authenticate(nil, nil)
	if err != nil {
		return fmt.Errorf("NTLM: %w", err)
	}
	// Only now, as the first message would carry it in a code page.
	if err := client.SetOption(ntlmssp.SetDomain(domain)); err != nil {
		return fmt.Errorf("NTLM: %w", err)
	}
	status, header, _, err := t.roundTrip(nil, "", "Negotiate "+base64.StdEncoding.EncodeToString(hello))
	if err != nil {
		return err
	}
	challenge, err := readChallenge(status, header)
	if err != nil {
		return err
	}
	if t.last {
		return fault.New(fault.Refused, "the endpoint closes the connection in the middle of the login")
	}
	proof, err := answer(client, challenge, bindings)
	if err != nil {
		return err
	}
	status, _, _, err = t.roundTrip(nil, "", "Negotiate "+base64.StdEncoding.EncodeToString(proof))
	switch {
	case err != nil:
		return err
	case status == http.StatusUnauthorized:
		return t.wrongPassword()
	case status != http.StatusOK:
		return odd(status, "the login")
	case t.last:
		return fault.New(fault.Refused, "the endpoint closes the connection behind the login")
	}
	if t.session = client.SecuritySession(); t.session == nil {
		return fault.New(fault.Refused, "the login gave no keys to seal with")
	}
	return nil
}

func (t *Transport) wrongPassword() error {
	return fault.New(fault.Permanent, "the endpoint refuses user %q with this password", t.options.User).Hint(`check --pep-user 'DOMAIN\CloudAdmin' and the password; repeated wrong passwords lock the account`)
}

// odd is the failure behind an HTTP status that is not foreseen.
func odd(status int, what string) error {
	kind := fault.Refused
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		kind = fault.Unreachable
	}
	return fault.New(kind, "the endpoint answers %s with HTTP status %d %q", what, status, http.StatusText(status))
}

// readChallenge takes the NTLM challenge out of the 401 and refuses one that does
// not promise sealing.
func readChallenge(status int, header http.Header) ([]byte, error) {
	if status != http.StatusUnauthorized {
		return nil, odd(status, "the login")
	}
	for _, value := range strings.Split(strings.Join(header.Values("Www-Authenticate"), ","), ",") {
		scheme, data, _ := strings.Cut(strings.TrimSpace(value), " ")
		if !strings.EqualFold(scheme, "Negotiate") || data == "" {
			continue
		}
		challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(data))
		if err != nil || len(challenge) < 32 || len(challenge) > 64<<10 || !bytes.HasPrefix(challenge, []byte("NTLMSSP\x00\x02\x00\x00\x00")) {
			return nil, fault.New(fault.Refused, "the endpoint's NTLM challenge is damaged")
		}
		if flags := binary.LittleEndian.Uint32(challenge[20:]); flags&required != required || flags&forbidden != 0 {
			return nil, fault.New(fault.Refused, "the endpoint's NTLM challenge does not promise sealing: its flags are %#x, %#x are required and %#x forbidden", flags, uint32(required), uint32(forbidden))
		}
		return challenge, nil
	}
	return nil, fault.New(fault.Refused, "the endpoint offers no NTLM: it asks for %q", header.Values("Www-Authenticate"))
}

// answer makes the third message. The library has not been written for hostile
// challenges, so a panic in it is a refusal.
func answer(client *ntlmssp.Client, challenge []byte, bindings *ntlmssp.ChannelBindings) (proof []byte, err error) {
	defer func() {
		if recover() != nil {
			proof, err = nil, fault.New(fault.Refused, "the endpoint's NTLM challenge is damaged")
		}
	}()
	if proof, err = client.Authenticate(challenge, bindings); err != nil {
		return nil, fault.New(fault.Refused, "the endpoint's NTLM challenge is damaged: %w", err)
	}
	return proof, nil
}

// exchange sends one sealed envelope and unseals the reply.
func (t *Transport) exchange(envelope []byte) ([]byte, int, error) {
	if t.options.Basic {
		return t.clear(envelope)
	}
	sealed, signature, err := t.session.Wrap(envelope)
	if err != nil || len(signature) != signatureSize {
		return nil, 0, fault.New(fault.Unexpected, "an envelope could not be sealed: %w", err)
	}
	status, header, body, err := t.roundTrip(encodeBody(len(envelope), signature, sealed), contentType, "")
	if err != nil {
		return nil, 0, err
	}
	if !isSealed(header.Get("Content-Type")) {
		switch {
		case status == http.StatusUnauthorized && t.fresh:
			return nil, 0, t.wrongPassword()
		case status == http.StatusUnauthorized:
			// What Windows answers to a body that it cannot unseal: the context is gone.
			return nil, 0, fault.New(fault.Unreachable, "the endpoint no longer accepts the login")
		case status != http.StatusOK && status != http.StatusInternalServerError:
			return nil, 0, odd(status, "an envelope")
		}
		return nil, 0, fault.New(fault.Refused, "a reply is not sealed (HTTP status %d, content type %q)", status, header.Get("Content-Type"))
	}
	plain, signature, data, err := decodeBody(body)
	if err != nil {
		return nil, 0, fault.New(fault.Refused, "HTTP status %d: %w", status, err)
	}
	reply, err := t.session.Unwrap(data, signature)
	switch {
	case err != nil:
		return nil, 0, fault.New(fault.Refused, "the signature of a reply does not fit: %w", err)
	case binary.LittleEndian.Uint32(signature) != 1: // which the library leaves out
		return nil, 0, fault.New(fault.Refused, "the signature of a reply has version %d, want 1", binary.LittleEndian.Uint32(signature))
	case len(reply) != plain:
		return nil, 0, fault.New(fault.Refused, "a reply has %d bytes and states %d", len(reply), plain)
	}
	return reply, status, nil
}

// clear sends an envelope under TLS alone, with the password in the header.
func (t *Transport) clear(envelope []byte) ([]byte, int, error) {
	credentials := base64.StdEncoding.EncodeToString([]byte(t.options.User + ":" + t.options.Password.Reveal()))
	status, header, body, err := t.roundTrip(envelope, "application/soap+xml;charset=UTF-8", "Basic "+credentials)
	switch {
	case err != nil:
		return nil, 0, err
	case status == http.StatusUnauthorized:
		return nil, 0, &Refused{t.wrongPassword()} // TLS says that the endpoint wrote it
	case status != http.StatusOK && status != http.StatusInternalServerError:
		return nil, 0, odd(status, "an envelope")
	case !strings.HasPrefix(strings.ToLower(header.Get("Content-Type")), "application/soap+xml"):
		return nil, 0, fault.New(fault.Refused, "the endpoint answers HTTP status %d with %q", status, header.Get("Content-Type"))
	}
	return body, status, nil
}

// roundTrip writes one HTTP request and reads its response, whole and bounded. It
// follows no redirect and knows no proxy.
func (t *Transport) roundTrip(body []byte, kind, authorization string) (int, http.Header, []byte, error) {
	lost := func(err error) (int, http.Header, []byte, error) {
		return 0, nil, nil, fault.New(fault.Unreachable, "the connection to the endpoint broke: %w", err)
	}
	req, err := http.NewRequest(http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.ContentLength = int64(len(body))
	if len(body) == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("User-Agent", "azs-agent")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Connection", "Keep-Alive")
	if kind == "" {
		kind = "application/soap+xml;charset=UTF-8"
	}
	req.Header.Set("Content-Type", kind)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	if err := req.Write(t.conn); err != nil {
		return lost(err)
	}
	t.limit.N = maxHeader
	resp, err := http.ReadResponse(t.reader, req)
	switch {
	case err != nil && t.limit.N <= 0:
		return 0, nil, nil, fault.New(fault.Refused, "the header of a reply has more than %d bytes", maxHeader)
	case err != nil:
		return lost(err)
	}
	t.limit.N = 2 * MaxBody // chunks cost a little
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	resp.Body.Close()
	switch {
	case len(data) > MaxBody || t.limit.N <= 0:
		return 0, nil, nil, fault.New(fault.Refused, "a reply has more than %d bytes", MaxBody)
	case err != nil:
		return lost(err)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return 0, nil, nil, fault.New(fault.Refused, "the endpoint redirects (HTTP status %d), which is not followed", resp.StatusCode)
	}
	t.last = t.last || resp.Close
	return resp.StatusCode, resp.Header, data, nil
}
