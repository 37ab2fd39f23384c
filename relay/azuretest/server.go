package azuretest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxBody is the size of a request that Resource Manager takes: 4 MiB.
const maxBody = 4 << 20

// Server is a running simulation. Its exported fields are set by [Start] and
// must not be changed.
type Server struct {
	// URL is the Resource Manager endpoint, https://127.0.0.1:PORT without a
	// trailing slash.
	URL string
	// Authority is the Entra authority host, with the trailing slash that
	// azcore's cloud.Configuration wants. It is on the same listener.
	Authority string
	// Audience is audiences[0] of the metadata: what a bearer should be asked
	// for. URL is accepted as an audience too, as the real one is.
	Audience string
	// Tenant, Subscription, ClientID and ClientSecret are the first of each.
	Tenant, Subscription, ClientID, ClientSecret string
	// CAPEM is the certificate of the throw-away CA, in PEM.
	CAPEM []byte

	ca       *authority
	http     *http.Server
	served   sync.WaitGroup // the accept loop and every request in flight
	signer   *ecdsa.PrivateKey
	signerID string
	now      func() time.Time
	drift    atomic.Int64 // by which Advance moved the clock, in nanoseconds

	// settings
	tenants       []string
	tenantNames   map[string]string // folded name or id → tenant id
	clients       []*Client
	user          User
	locations     []string
	pageSize      int
	tokenLifetime time.Duration
	devicePolls   int
	keyExpires    time.Time
	opaqueCloudID string
	metadataList  bool
	limits        *Limits
	speed         float64   // of the throttling clock
	began         time.Time // when that clock and the server's showed the same
	moves         Moves
	trouble       *trouble
	mandatoryMFA  bool
	seedSubs      []Subscription
	seedGroups    []Group
	seedRegs      []Registration

	// mu guards everything below; a call acts while it holds mu, so calls act
	// one after the other.
	mu         sync.Mutex
	subs       map[string]*subscription
	groups     map[string]*group
	regs       map[string]*registration
	locks      map[string]*lock // by folded lock id
	taken      map[string]bool
	devices    map[string]*device
	refresh    map[string]grant
	buckets    map[string]*bucket
	runs       map[string]*longRun
	codes      map[string]*authorization
	faults     []*Fault
	faultCount int
	log        []*Request
	changed    chan struct{} // closed and replaced when the log changes
	release    chan struct{} // closed and replaced by Release
	closing    chan struct{}
}

// NewServer starts a server on a free port of 127.0.0.1. Like
// httptest.NewServer it panics when it cannot; [Start] gives the error.
func NewServer(opts ...Option) *Server {
	s, err := Start("127.0.0.1:0", opts...)
	if err != nil {
		panic("azuretest: " + err.Error())
	}
	return s
}

// Start starts a server on addr, a loopback HOST:PORT. The caller must Close it.
func Start(addr string, opts ...Option) (*Server, error) {
	s := &Server{
		tenantNames: map[string]string{}, pageSize: 100, tokenLifetime: time.Hour, devicePolls: 1,
		subs: map[string]*subscription{}, groups: map[string]*group{}, regs: map[string]*registration{},
		locks: map[string]*lock{}, taken: map[string]bool{}, devices: map[string]*device{},
		refresh: map[string]grant{}, buckets: map[string]*bucket{}, runs: map[string]*longRun{}, codes: map[string]*authorization{}, speed: 1,
		changed: make(chan struct{}), release: make(chan struct{}), closing: make(chan struct{}),
	}
	for _, o := range opts {
		o(s)
	}
	if err := s.defaults(); err != nil {
		return nil, err
	}
	var err error
	if s.ca, err = newAuthority(); err != nil {
		return nil, err
	}
	if s.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	ln, err := ListenLoopback(addr)
	if err != nil {
		return nil, err
	}
	s.CAPEM, s.signerID = s.ca.pem, newGUID()
	s.URL = "https://" + ln.Addr().String()
	s.Authority = s.URL + "/"
	s.Audience = "https://management.azuretest.invalid/" + s.Tenant
	s.http = &http.Server{
		Handler:  s,
		ErrorLog: log.New(io.Discard, "", 0), // a client that does not trust the CA is no news here
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.ca.server},
			MinVersion:   tls.VersionTLS12,
		},
		// HTTP/1.1 only: one call, one connection to drop.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	s.served.Go(func() { _ = s.http.ServeTLS(ln, "", "") })
	return s, nil
}

// ListenLoopback listens on a HOST:PORT whose host is a loopback address or
// localhost, and refuses every other.
func ListenLoopback(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("address %q is not on loopback: a simulation serves this machine only", addr)
	}
	return net.Listen("tcp", addr)
}

// Close ends the server: held calls are dropped, connections closed, and every
// goroutine has ended when it returns. A second Close does nothing.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.closing:
		s.mu.Unlock()
		return
	default:
	}
	close(s.closing)
	s.mu.Unlock()
	_ = s.http.Close()
	s.served.Wait()
}

// enter counts a request in, unless the server is closing.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return false
	default:
	}
	s.served.Add(1)
	return true
}

// CertPool returns a pool that holds the server's CA only.
func (s *Server) CertPool() *x509.CertPool { return s.ca.pool.Clone() }

// Client returns an HTTP client that trusts the server's CA and nothing else.
// Each call makes a new one with its own connections.
func (s *Server) Client() *http.Client {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.Proxy = nil
	tr.TLSClientConfig = &tls.Config{RootCAs: s.CertPool(), MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: tr}
}

// answer is what a call comes to. A nil body is an empty answer. The names of
// the header are canonical, so that a later value replaces an earlier one.
type answer struct {
	status int
	header map[string]string
	body   any
}

// call is one request with what the server found out about it.
type call struct {
	*http.Request
	body   []byte
	op     *operation        // nil outside Resource Manager
	params map[string]string // the path's {names}, spelt as the caller did
	who    *principal        // nil before the bearer was checked
}

// ServeHTTP answers one request of Entra or Resource Manager.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.served.Done()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	c := &call{Request: r, body: body}
	c.op, c.params = route(r.Method, r.URL.Path)

	entry, fault := s.begin(c)
	defer s.settle(entry)
	if fault.holds(BeforeActing) && !s.hold(entry, r) || fault.drops(BeforeActing) {
		panic(http.ErrAbortHandler)
	}
	var a answer
	switch {
	case err != nil:
		a = tooLarge(err)
	case fault != nil && fault.fails() && !fault.Acted:
		a = s.failure(fault, c)
	default:
		a = s.act(c, entry)
		if fault != nil && fault.fails() {
			a = s.failure(fault, c)
		}
	}
	if fault.holds(AfterActing) && !s.hold(entry, r) || fault.drops(AfterActing) {
		panic(http.ErrAbortHandler)
	}
	s.write(w, c, a, entry)
}

// act lets the call change the state, alone.
func (s *Server) act(c *call, entry *Request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry.Acted = true
	if tenant, rest, ok := entraPath(c.URL.Path); ok {
		return s.entra(c, tenant, rest)
	}
	return s.arm(c)
}

func (s *Server) write(w http.ResponseWriter, c *call, a answer, entry *Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	id := newGUID()
	h.Set("x-ms-request-id", id)
	if _, _, isEntra := entraPath(c.URL.Path); !isEntra {
		h.Set("x-ms-correlation-request-id", or(c.Header.Get("x-ms-correlation-request-id"), id))
		h.Set("x-ms-routing-request-id", "AZURETEST:"+s.now().UTC().Format("20060102T150405Z")+":"+id)
	}
	if v := c.Header.Get("x-ms-client-request-id"); v != "" && strings.EqualFold(c.Header.Get("x-ms-return-client-request-id"), "true") {
		h.Set("x-ms-client-request-id", v)
	}
	for k, v := range a.header {
		h.Set(k, v)
	}
	var out []byte
	switch page, ok := a.body.(htmlBody); {
	case ok:
		h.Set("Content-Type", "text/html; charset=utf-8")
		out = page
	case a.body != nil:
		h.Set("Content-Type", "application/json; charset=utf-8")
		out = encode(a.body)
	}
	s.mu.Lock()
	entry.Status = a.status
	s.mu.Unlock()
	w.WriteHeader(a.status)
	_, _ = w.Write(out)
}

func tooLarge(err error) answer {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return fail(http.StatusRequestEntityTooLarge, "RequestContentTooLarge",
			"The request content size exceeds the maximum size of %d bytes.", maxBody)
	}
	return fail(http.StatusBadRequest, "InvalidRequestContent", "The request content could not be read: %v", err)
}

// armError is the ErrorResponse of the swagger.
type armError struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// fail is Resource Manager's error answer.
func fail(status int, code, format string, args ...any) answer {
	var e armError
	e.Error.Code, e.Error.Message = code, fmt.Sprintf(format, args...)
	return answer{status: status, body: e}
}

// encode writes JSON without the HTML escapes of encoding/json.
func encode(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // every body is ours
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}

// fold gives the form by which names and paths are compared.
func fold(s string) string { return strings.ToLower(s) }

func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return guid(b[:])
}

func guid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
