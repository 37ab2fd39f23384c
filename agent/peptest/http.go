package peptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

const (
	soapType   = "application/soap+xml;charset=UTF-8"
	sealedType = `multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"`
	boundary   = "--Encrypted Boundary"
	maxBody    = 2 << 20 // of a request; Windows' largest envelope is 500 KiB by default
)

type connKey struct{}

// connection is the state of one TCP connection: at most one NTLM context.
// net/http serves one request of a connection at a time.
type connection struct {
	address int    // from 1
	spnego  bool   // the client wraps its NTLM
	mechs   []byte // DER of the mechanisms that it offered
	pending *challenge
	session *session
	user    string // "" before the login
}

func (c *connection) reset() { c.pending, c.session, c.user = nil, nil, "" }

// take reads an NTLM message, bare or within SPNEGO.
func (c *connection) take(token []byte) (message, mic []byte) {
	if bytes.HasPrefix(token, ntlmSignature) {
		return token, nil
	}
	inner, mechs, mic, err := unwrapSPNEGO(token)
	if err != nil {
		return token, nil
	}
	if mechs != nil {
		c.spnego, c.mechs = true, mechs
	}
	return inner, mic
}

// response is an HTTP response in the making.
type response struct {
	status int
	header http.Header
	body   []byte
}

func plain(status int, body string) response {
	return response{status, http.Header{"Content-Type": {"text/plain"}}, []byte(body)}
}

// exchange serves one HTTP request.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()

	conn := r.Context().Value(connKey{}).(*connection)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	entry := Request{Address: conn.address, Bytes: len(body)}
	defer s.record(&entry)
	switch {
	case err != nil:
		entry.Status = http.StatusRequestEntityTooLarge
		w.WriteHeader(entry.Status)
	case r.URL.Path != "/wsman":
		entry.Status = http.StatusNotFound
		w.WriteHeader(entry.Status)
	case r.Method != http.MethodPost:
		entry.Status = http.StatusMethodNotAllowed
		w.WriteHeader(entry.Status)
	default:
		s.authenticated(w, r, conn, body, &entry)
	}
}

// authenticated does the login and hands on what carries an envelope.
func (s *Server) authenticated(w http.ResponseWriter, r *http.Request, conn *connection, body []byte, entry *Request) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token, tokenErr := base64.StdEncoding.DecodeString(value)
	var mic []byte
	if scheme == "Negotiate" && tokenErr == nil {
		token, mic = conn.take(token)
	}
	kind, _ := messageKind(token)
	switch {
	case scheme == "Negotiate" && tokenErr == nil && kind == 1:
		entry.Action = "Negotiate"
	case scheme == "Negotiate":
		entry.Action = "Authenticate"
	case scheme == "Basic" && r.TLS != nil && s.config.basic && tokenErr == nil:
		domain, user := s.account()
		name, password, _ := strings.Cut(string(token), ":")
		if ok := strings.EqualFold(name, domain+`\`+user) || strings.EqualFold(name, user); ok && same(password, s.Password) {
			conn.user = s.User
			s.envelope(w, r, conn, body, false, entry)
			return
		}
		entry.Action = "Authenticate"
	case conn.user == "" || scheme != "" || len(body) == 0:
		entry.Action = "Probe"
	default:
		s.envelope(w, r, conn, body, true, entry)
		return
	}

	f := s.strike(onRequest, conn.address, entry.Action, "")
	if f != nil && s.struck(w, r, conn, f, entry) {
		return
	}
	switch {
	case entry.Action == "Probe":
		conn.reset()
		s.send(w, conn, s.unauthorized(r, ""), entry)
	case entry.Action == "Negotiate":
		flags := uint32(flagsOffered)
		if f != nil {
			flags &^= lacks[f.Kind]
			entry.Fault = f.Kind
		}
		s.send(w, conn, s.challenge(r, conn, token, flags), entry)
	default:
		final, err := s.login(r, conn, scheme, token, mic)
		if err != nil {
			conn.reset()
			entry.Note = err.Error()
			s.send(w, conn, s.unauthorized(r, ""), entry)
			return
		}
		if len(body) > 0 {
			s.envelope(w, r, conn, body, true, entry)
			return
		}
		res := response{status: http.StatusOK}
		if final != "" {
			res.header = http.Header{"Www-Authenticate": {"Negotiate " + final}}
		}
		s.send(w, conn, res, entry)
	}
}

func (s *Server) unauthorized(r *http.Request, token string) response {
	h := http.Header{"Www-Authenticate": {strings.TrimSpace("Negotiate " + token)}}
	if r.TLS != nil && s.config.basic && token == "" {
		h.Add("Www-Authenticate", `Basic realm="WSMAN"`)
	}
	return response{http.StatusUnauthorized, h, nil}
}

func (s *Server) challenge(r *http.Request, conn *connection, token []byte, flags uint32) response {
	conn.reset()
	nonce := make([]byte, 8)
	_, _ = rand.Read(nonce) // does not fail
	const unixInFiletime = 116444736000000000
	now := uint64(s.config.now().UnixNano()/100 + unixInFiletime)
	c, err := newChallenge(token, nonce, now, domainName, dnsDomainName, computerName, flags)
	if err != nil {
		return plain(http.StatusBadRequest, err.Error())
	}
	c.wantMIC = s.config.mic
	conn.pending = c
	reply := c.message
	if conn.spnego {
		reply = wrapSPNEGO(incomplete, c.message, nil)
	}
	return s.unauthorized(r, base64.StdEncoding.EncodeToString(reply))
}

// login verifies the second message of the client. final is the last word to a
// client that wraps its NTLM into SPNEGO, in base64.
func (s *Server) login(r *http.Request, conn *connection, scheme string, token, mic []byte) (final string, err error) {
	pending := conn.pending
	conn.pending = nil
	if scheme != "Negotiate" {
		return "", errors.New("wrong name or password by Basic")
	}
	a, err := parseAuthenticate(token)
	if err != nil {
		return "", err
	}
	if pending == nil {
		return "", errors.New("login without a challenge on this connection")
	}
	domain, user := s.account()
	byDomain := strings.EqualFold(a.user, user) && (strings.EqualFold(a.domain, domain) || strings.EqualFold(a.domain, dnsDomainName))
	if !byDomain && !(a.domain == "" && strings.EqualFold(a.user, user+"@"+dnsDomainName)) {
		return "", fmt.Errorf("no account %q in domain %q", a.user, a.domain)
	}
	key, err := pending.accept(a, s.Password, s.bindings(r))
	if err != nil {
		return "", err
	}
	if missing := pending.flags & flagsRequired &^ a.flags; missing != 0 {
		return "", fmt.Errorf("the client does not take the flags %#x", missing)
	}
	if conn.spnego {
		// Each direction signs the list of mechanisms; sealing then begins anew.
		once := newSession(key)
		if mic != nil && !bytes.Equal(mic, once.in.sign(conn.mechs)) {
			return "", errors.New("the mechListMIC does not fit the mechanisms that were offered")
		}
		var own []byte
		if mic != nil {
			own = once.out.sign(conn.mechs)
		}
		final = base64.StdEncoding.EncodeToString(wrapSPNEGO(completed, nil, own))
	}
	conn.session, conn.user = newSession(key), s.User
	return final, nil
}

// bindings returns the MD5 of the channel bindings of type tls-server-end-point
// (RFC 5929, [MS-NLMP] 2.2.2.1), or nil without TLS.
func (s *Server) bindings(r *http.Request) []byte {
	if r.TLS == nil {
		return nil
	}
	hash := sha256.Sum256(s.ca.leaf)
	return bindingsHash(append([]byte("tls-server-end-point:"), hash[:]...))
}

// bindingsHash is the MD5 of a gss_channel_bindings_struct without addresses.
func bindingsHash(data []byte) []byte {
	raw := binary.LittleEndian.AppendUint32(make([]byte, 16), uint32(len(data)))
	sum := md5.Sum(append(raw, data...))
	return sum[:]
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// envelope serves one WSMan request of a connection that is logged in. Without
// wantSeal, and within TLS, the body may be in clear.
func (s *Server) envelope(w http.ResponseWriter, r *http.Request, conn *connection, body []byte, wantSeal bool, entry *Request) {
	sealed := strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/encrypted")
	if sealed && conn.session != nil {
		var err error
		if body, err = unwrap(conn.session, body); err != nil {
			conn.reset()
			entry.Note = err.Error()
			s.send(w, conn, plain(http.StatusBadRequest, "unsealing failed"), entry)
			return
		}
	} else if wantSeal && r.TLS == nil || sealed {
		conn.reset()
		entry.Note = "a body in clear"
		s.send(w, conn, s.unauthorized(r, ""), entry)
		return
	}
	entry.Sealed = sealed

	request, err := parseEnvelope(body)
	entry.Action, entry.Shell, entry.Command, entry.MessageID = request.operation(), request.shellID(), request.commandID(), request.Header.MessageID
	var out answer
	switch {
	case err != nil:
		entry.Note = err.Error()
		out = faultAnswer(codeSchema, "")
		var header *headerError
		if errors.As(err, &header) {
			out = faultAnswer(header.code, header.text)
		}
	default:
		if f := s.strike(onRequest, conn.address, entry.Action, ""); f != nil {
			if f.Kind == WSManFault {
				entry.Fault = f.Kind
				out = faultAnswer(f.Code, f.Text)
				break
			}
			if s.struck(w, r, conn, f, entry) {
				return
			}
		}
		ctx, cancel := context.WithCancel(r.Context())
		stop := context.AfterFunc(s.ctx, cancel)
		out = s.operate(ctx, conn, request)
		entry.Cmdlet = s.cmdletOf(entry.Shell, entry.Command)
		if b := request.Body.Signal; b != nil {
			entry.Signal = strings.TrimSpace(b.Code)
		}
		stop()
		cancel()
	}
	if out.status == 0 { // the client left, or the server ends
		entry.Note = "nobody waits for the reply"
		s.drop(w, entry)
		return
	}
	entry.WSManFault = out.code

	f := s.strike(onReply, conn.address, entry.Action, "")
	relatesTo := request.Header.MessageID
	if f != nil {
		entry.Fault = f.Kind
		if f.Kind == WrongRelatesTo {
			relatesTo = "uuid:" + newGUID().String()
		}
	}
	if f != nil && f.Kind == DeepSOAP {
		const deep = 100_000
		out.body = strings.Repeat("<a>", deep) + strings.Repeat("</a>", deep)
	}
	if out.code == codeTimedOut && s.config.timedOut200 {
		out.status = http.StatusOK
	}
	text := out.envelope(relatesTo)
	res := response{out.status, http.Header{"Content-Type": {soapType}}, text}
	if sealed && (f == nil || f.Kind != Clear) {
		signature, box := conn.session.out.seal(text)
		length, plain := uint32(signatureLen), len(text)
		if f != nil && f.Kind == BadSeal {
			box[len(box)/2] ^= 1
		}
		if f != nil && f.Kind == HugeLength {
			length = 1<<32 - 1
		}
		if f != nil && f.Kind == HugeOriginal {
			plain = 1<<32 - 1
		}
		res.header.Set("Content-Type", sealedType)
		res.body = wrap(plain, length, signature, box)
		if s.config.spaced {
			res.body = bytes.ReplaceAll(res.body, []byte(boundary), []byte("-- Encrypted Boundary"))
		}
	}
	s.spoil(w, r, conn, res, f, entry)
}

// struck does the faults that stand in for the whole exchange, and says whether
// it was one.
func (s *Server) struck(w http.ResponseWriter, r *http.Request, conn *connection, f *Fault, entry *Request) bool {
	switch f.Kind {
	case BlackHole:
		entry.Fault = f.Kind
		s.record(entry)
		select {
		case <-r.Context().Done():
		case <-s.ctx.Done():
		}
		s.drop(w, entry)
		return true
	case DropBefore:
		entry.Fault = f.Kind
		s.drop(w, entry)
		return true
	case Dies:
		entry.Fault = f.Kind
		s.record(entry)
		s.refuse(conn.address)
		s.reset(conn.address)
		s.drop(w, entry)
		return true
	case Vanish:
		s.vanish()
		entry.Fault = f.Kind
		return false
	}
	res := response{header: http.Header{}}
	switch f.Kind {
	case Unauthorized:
		res = s.unauthorized(r, "")
	case BasicOnly:
		res.status = http.StatusUnauthorized
		res.header.Set("WWW-Authenticate", `Basic realm="WSMAN"`)
	case HTML:
		res.status = http.StatusServiceUnavailable
		res.header.Set("Content-Type", "text/html; charset=us-ascii")
		res.body = []byte("<!DOCTYPE HTML><HTML><HEAD><TITLE>Service Unavailable</TITLE></HEAD><BODY><h2>Service Unavailable</h2></BODY></HTML>\r\n")
	case Redirect:
		res.status = http.StatusTemporaryRedirect
		res.header.Set("Location", "http://127.0.0.1:9/wsman")
	default: // a challenge that lacks a bit
		return false
	}
	conn.reset()
	entry.Fault = f.Kind
	s.write(w, res, entry)
	return true
}

// send sends a response that carries no envelope.
func (s *Server) send(w http.ResponseWriter, conn *connection, res response, entry *Request) {
	var f *Fault
	if res.status < http.StatusBadRequest || entry.Action == "Probe" || entry.Action == "Negotiate" || entry.Action == "Authenticate" {
		f = s.strike(onReply, conn.address, entry.Action, "")
	}
	s.spoil(w, nil, conn, res, f, entry)
}

// spoil sends a response, changed by a fault.
func (s *Server) spoil(w http.ResponseWriter, r *http.Request, conn *connection, res response, f *Fault, entry *Request) {
	if f == nil {
		s.write(w, res, entry)
		return
	}
	entry.Fault = f.Kind
	switch f.Kind {
	case DropAfter:
		s.drop(w, entry)
	case DropIdle:
		w.Header().Set("Content-Length", strconv.Itoa(len(res.body)))
		s.write(w, res, entry)
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		s.drop(w, entry)
	case Cut:
		w.Header().Set("Content-Length", strconv.Itoa(len(res.body)+1))
		res.body = res.body[:len(res.body)/2]
		s.write(w, res, entry)
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		s.drop(w, entry)
	case Garbage:
		res.body = []byte(boundary + "\r\n\tLength=\r\n" + boundary + "\r\n")
		s.write(w, res, entry)
	case Endless:
		entry.Status = res.status
		s.record(entry)
		s.endless(w, res)
	case EndlessHeader, SlowHeader:
		entry.Status = res.status
		s.record(entry)
		s.header(w, res, f.Kind == SlowHeader)
	case SlowBody:
		entry.Status = res.status
		s.record(entry)
		s.slow(w, res)
	default: // BadSeal, HugeLength, HugeOriginal, DeepSOAP, Clear, WrongRelatesTo are in the response already
		s.write(w, res, entry)
	}
}

func (s *Server) write(w http.ResponseWriter, res response, entry *Request) {
	entry.Status = res.status
	for k, v := range res.header {
		w.Header()[k] = v
	}
	w.Header().Set("Server", "Microsoft-HTTPAPI/2.0")
	s.record(entry) // before the client can know
	w.WriteHeader(res.status)
	_, _ = w.Write(res.body)
}

// endless writes until the client or the server ends.
func (s *Server) endless(w http.ResponseWriter, res response) {
	for k, v := range res.header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.status)
	chunk := bytes.Repeat([]byte("A"), 64<<10)
	_, err := w.Write(res.body[:len(res.body)/2])
	for err == nil && s.ctx.Err() == nil {
		_, err = w.Write(chunk)
	}
}

// drip is the time between the bytes of a slow reply.
const drip = 5 * time.Millisecond

// slow writes a body a byte at a time until the client or the server ends.
func (s *Server) slow(w http.ResponseWriter, res response) {
	for k, v := range res.header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.status)
	flusher := http.NewResponseController(w)
	tick := time.NewTicker(drip)
	defer tick.Stop()
	for i := 0; ; i++ {
		b := byte('A') // behind the body
		if i < len(res.body) {
			b = res.body[i]
		}
		if _, err := w.Write([]byte{b}); err != nil || flusher.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// header writes a header that never ends, a byte at a time or as fast as it goes,
// until the client or the server ends.
func (s *Server) header(w http.ResponseWriter, res response, slow bool) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() })
	defer stop()
	line := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", res.status, http.StatusText(res.status))
	tick := time.NewTicker(drip)
	defer tick.Stop()
	for i := 0; ; i++ {
		for len(line) > 0 {
			n := len(line)
			if slow {
				n = 1
				select {
				case <-tick.C:
				case <-s.ctx.Done():
					return
				}
			}
			if _, err := c.Write(line[:n]); err != nil {
				return
			}
			line = line[n:]
		}
		line = fmt.Appendf(nil, "X-Filler-%d: %s\r\n", i, strings.Repeat("a", 1000))
	}
}

// drop closes the connection without another byte.
func (s *Server) drop(w http.ResponseWriter, entry *Request) {
	s.record(entry)
	if hijacker, ok := w.(http.Hijacker); ok {
		if c, _, err := hijacker.Hijack(); err == nil {
			_ = c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler) // bytes went out already: net/http closes the connection
}

// wrap writes the multipart body of a sealed message.
func wrap(plain int, length uint32, signature, sealed []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n", boundary)
	fmt.Fprintf(&b, "\tOriginalContent: type=%s;Length=%d\r\n", soapType, plain)
	fmt.Fprintf(&b, "%s\r\n\tContent-Type: application/octet-stream\r\n", boundary)
	b.Write(binary.LittleEndian.AppendUint32(nil, length))
	b.Write(signature)
	b.Write(sealed)
	b.WriteString(boundary + "--\r\n")
	return b.Bytes()
}

// unwrap reads a sealed multipart body. The boundary is also taken with a space
// after its dashes, as some clients write it.
func unwrap(s *session, body []byte) ([]byte, error) {
	sig, box, length, err := splitSealed(body)
	if err != nil {
		return nil, err
	}
	text, err := s.in.open(sig, box)
	if err != nil {
		return nil, err
	}
	if len(text) != length {
		return nil, fmt.Errorf("the sealed message has %d bytes and announces %d", len(text), length)
	}
	return text, nil
}

func splitSealed(body []byte) (signature, sealed []byte, length int, err error) {
	in := bufio.NewReader(bytes.NewReader(body))
	length, octets := -1, false
	for read := 0; !octets; {
		line, err := in.ReadString('\n')
		if err != nil || len(line) > 1024 {
			return nil, nil, 0, errors.New("a sealed body lacks its octet-stream part")
		}
		read += len(line)
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case strings.EqualFold(name, "OriginalContent"):
			_, n, _ := strings.Cut(value, "Length=")
			if length, err = strconv.Atoi(n); err != nil || length < 0 {
				return nil, nil, 0, fmt.Errorf("OriginalContent announces a length of %.20q", n)
			}
		case strings.EqualFold(name, "Content-Type") && strings.TrimSpace(value) == "application/octet-stream":
			octets = true
			body = body[read:]
		}
	}
	body = bytes.TrimSuffix(body, []byte("\r\n"))
	for _, end := range []string{boundary + "--", "-- Encrypted Boundary--"} {
		if rest, ok := bytes.CutSuffix(body, []byte(end)); ok {
			if length < 0 || len(rest) < 4+signatureLen || binary.LittleEndian.Uint32(rest) != signatureLen {
				return nil, nil, 0, errors.New("a sealed body lacks its length or its 16-byte signature")
			}
			return rest[4 : 4+signatureLen], rest[4+signatureLen:], length, nil
		}
	}
	return nil, nil, 0, errors.New("a sealed body does not end with its boundary")
}
