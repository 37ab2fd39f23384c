package peptest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// Defaults of a Server.
const (
	DefaultVersion = "1.2311.1.22" // of the stamp
	DefaultUser    = `AZURESTACK\CloudAdmin`

	domainName    = "AZURESTACK"
	dnsDomainName = "azurestack.local"
	computerName  = "AZS-ERCS01"
)

// Server is a simulated privileged endpoint.
type Server struct {
	Addresses []string // HOST:PORT of each
	User      string   // DOMAIN\NAME
	Password  string
	CloudID   string
	CAPEM     []byte // the CA of the server's certificate; nil without TLS

	config config
	ca     *authority

	http    []*http.Server
	serving sync.WaitGroup // listeners, pipelines, actions
	ctx     context.Context
	stop    context.CancelFunc

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener // nil where the address is refused
	faults    []*Fault
	numbered  int
	released  chan struct{} // closed by Release, then replaced
	held      int
	log       []Request
	logged    chan struct{} // closed by the next entry, then replaced
	shells    map[string]*shell
	stamp     stamp
	conns     map[net.Conn]int // open connections, with the numbers of their addresses
}

type config struct {
	password        string
	cloudID         string
	version         string
	versionAsString bool
	nodes           int
	addresses       int
	activation      time.Duration
	opening         int
	maxShells       int
	maxCommands     int
	tls             bool
	basic           bool
	idle            time.Duration
	now             func() time.Time
	deployment      string
	streams         Streams
	timedOut200     bool
	spaced          bool
	ownShellIDs     bool
	mic             bool
}

// Option changes a Server before it starts.
type Option func(*config)

// WithPassword sets the account's password; the default is a random one.
func WithPassword(p string) Option { return func(c *config) { c.password = p } }

// WithCloudID sets the stamp's cloud id.
func WithCloudID(id string) Option { return func(c *config) { c.cloudID = id } }

// WithStampVersion sets the stamp's version, such as 1.2311.1.22, by which
// cmdlets and parameters are known or not. With asString the property
// StampVersion is a string instead of a Version.
func WithStampVersion(v string, asString bool) Option {
	return func(c *config) { c.version, c.versionAsString = v, asString }
}

// WithNodes sets the number of physical hosts.
func WithNodes(n int) Option { return func(c *config) { c.nodes = n } }

// WithAddresses sets how many addresses are served, one to three: 127.0.0.1 to
// 127.0.0.3 with one port, or other ports of 127.0.0.1 where a system has no such
// addresses.
func WithAddresses(n int) Option { return func(c *config) { c.addresses = n } }

// WithActivation sets how long an activation or its removal runs; the default
// is no time at all.
func WithActivation(d time.Duration) Option { return func(c *config) { c.activation = d } }

// WithOpeningReceives sets in how many replies the pool's opening messages come:
// 2, or 3 as by default. Real hosts differ.
func WithOpeningReceives(n int) Option { return func(c *config) { c.opening = n } }

// WithQuota limits the shells, and the commands within one shell that were not
// terminated.
func WithQuota(shells, commands int) Option {
	return func(c *config) { c.maxShells, c.maxCommands = shells, commands }
}

// WithTLS serves HTTPS with a certificate of the server's own CA. Within TLS
// bodies may be in clear, as Windows allows it.
func WithTLS() Option { return func(c *config) { c.tls = true } }

// WithBasic accepts Basic authentication, over TLS only.
func WithBasic() Option { return func(c *config) { c.basic = true } }

// WithIdleConnections sets after how long without a request a connection is
// closed, and its NTLM context with it; the default is two minutes.
func WithIdleConnections(d time.Duration) Option { return func(c *config) { c.idle = d } }

// WithDeploymentID sets the stamp's deployment id, spelled as it is told: stamps
// differ in upper and lower case. The default is a random one in lower case.
func WithDeploymentID(id string) Option { return func(c *config) { c.deployment = id } }

// Streams is how fragments lie in the Stream elements of a reply.
type Streams string

// The ways, of which Windows was only ever seen to use the first.
const (
	OneFragment    Streams = "one"      // each fragment in a Stream of its own
	AllFragments   Streams = "together" // all fragments of a reply in one Stream
	SplitFragments Streams = "split"    // each fragment cut over two Streams
)

// WithStreams sets how fragments lie in Streams.
func WithStreams(how Streams) Option { return func(c *config) { c.streams = how } }

// WithTimedOut200 sends the fault w:TimedOut with the HTTP status 200 instead of
// 500, as one recording has it.
func WithTimedOut200() Option { return func(c *config) { c.timedOut200 = true } }

// WithSpacedBoundary writes "-- Encrypted Boundary", as Exchange does.
func WithSpacedBoundary() Option { return func(c *config) { c.spaced = true } }

// WithOwnShellIDs gives each shell another id than the one that was asked for,
// which a host may do.
func WithOwnShellIDs() Option { return func(c *config) { c.ownShellIDs = true } }

// WithMIC refuses a login without a MIC. A client must send one to a host that
// tells its time ([MS-NLMP] 3.1.5.1.2), as this one does; but hosts do not insist,
// and gss-ntlmssp 1.2 sends none. A MIC that does not fit is always refused.
func WithMIC() Option { return func(c *config) { c.mic = true } }

// WithNow sets the clock by which shells grow idle and challenges are dated.
func WithNow(now func() time.Time) Option { return func(c *config) { c.now = now } }

// NewServer starts a server on loopback and panics if it cannot, as
// httptest.NewServer does.
func NewServer(opts ...Option) *Server {
	s, err := Start("127.0.0.1:0", opts...)
	if err != nil {
		panic("peptest: " + err.Error())
	}
	return s
}

// Start starts a server on a loopback address; port 0 is any free one.
func Start(addr string, opts ...Option) (*Server, error) {
	c := config{version: DefaultVersion, nodes: 4, addresses: 1, opening: 3, maxShells: 30, maxCommands: 1000,
		idle: 2 * time.Minute, now: time.Now, streams: OneFragment}
	for _, o := range opts {
		o(&c)
	}
	version, err := parseVersion(c.version)
	switch {
	case err != nil:
		return nil, err
	case c.nodes < 1:
		return nil, fmt.Errorf("a stamp has at least one node, not %d", c.nodes)
	case c.addresses < 1 || c.addresses > 3:
		return nil, fmt.Errorf("an endpoint has one to three addresses, not %d", c.addresses)
	case c.streams != OneFragment && c.streams != AllFragments && c.streams != SplitFragments:
		return nil, fmt.Errorf("streams %q is none of %s, %s, %s", c.streams, OneFragment, AllFragments, SplitFragments)
	case c.opening != 2 && c.opening != 3:
		return nil, fmt.Errorf("a pool opens in 2 or 3 replies, not %d", c.opening)
	}
	if c.cloudID == "" { // also WithCloudID("")
		c.cloudID = officialtest.CloudID(uint64(c.now().UnixNano()))
	}
	if _, err := psrp.ParseGUID(c.cloudID); err != nil {
		return nil, fmt.Errorf("cloud id: %w", err)
	}
	if c.deployment == "" {
		c.deployment = strings.ToLower(newGUID().String())
	}
	if _, err := psrp.ParseGUID(c.deployment); err != nil {
		return nil, fmt.Errorf("deployment id: %w", err)
	}
	if c.password == "" {
		c.password = rand.Text()
	}
	s := &Server{User: DefaultUser, Password: c.password, CloudID: c.cloudID, config: c,
		released: make(chan struct{}), logged: make(chan struct{}), shells: map[string]*shell{}, conns: map[net.Conn]int{}}
	s.stamp = stamp{version: version, deployment: c.deployment, finish: make(chan struct{})}
	if c.tls {
		if s.ca, err = newAuthority(); err != nil {
			return nil, err
		}
		s.CAPEM = s.ca.pem
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for i := range c.addresses {
		ln, err := s.listenFirst(addr, i)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.Addresses = append(s.Addresses, ln.Addr().String())
		s.http = append(s.http, s.newHTTP(i+1))
		s.listeners = append(s.listeners, nil)
		s.serve(i, ln)
	}
	return s, nil
}

// listenFirst listens on the address of number i, from 0.
func (s *Server) listenFirst(addr string, i int) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("address %q is not on loopback: a simulation serves this machine only", addr)
	}
	if i == 0 {
		return net.Listen("tcp", addr)
	}
	_, port, err := net.SplitHostPort(s.Addresses[0])
	if err != nil {
		return nil, err
	}
	if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%s", i+1, port)); err == nil {
		return ln, nil
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}

func (s *Server) newHTTP(address int) *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(s.exchange),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       s.config.idle,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only
		ErrorLog:          quiet,
		ConnState: func(c net.Conn, state http.ConnState) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if delete(s.conns, c); state != http.StateClosed && state != http.StateHijacked {
				s.conns[c] = address
			}
		},
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &connection{address: address})
		},
	}
}

func (s *Server) serve(i int, ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = ln.Close()
		return
	}
	s.listeners[i] = ln
	if s.ca != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{s.ca.server}, MinVersion: tls.VersionTLS12})
	}
	web := s.http[i]
	s.serving.Go(func() { _ = web.Serve(ln) })
}

// refuse closes the listener of an address, 0 for all. Connections stay.
func (s *Server) refuse(address int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ln := range s.listeners {
		if ln != nil && (address == 0 || address == i+1) {
			_ = ln.Close()
			s.listeners[i] = nil
		}
	}
}

// listenAgain undoes refuse.
func (s *Server) listenAgain() error {
	var failed []error
	for i, addr := range s.Addresses {
		s.mu.Lock()
		refused := s.listeners[i] == nil && !s.closed
		s.mu.Unlock()
		if !refused {
			continue
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.serve(i, ln)
	}
	return errors.Join(failed...)
}

// reset resets the connections of an address.
func (s *Server) reset(address int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, at := range s.conns {
		if at != address {
			continue
		}
		raw := c
		if secured, ok := c.(*tls.Conn); ok {
			raw = secured.NetConn()
		}
		if tcp, ok := raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = raw.Close()
	}
}

// Close ends the server: connections are closed, pipelines and actions end where
// they are, and every goroutine has ended when it returns. A second Close does
// nothing.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	for _, web := range s.http {
		_ = web.Close()
	}
	s.refuse(0)
	s.serving.Wait()
}

// Release lets held cmdlets go on and returns how many there were.
func (s *Server) Release() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.released)
	s.released = make(chan struct{})
	n := s.held
	s.held = 0
	return n
}

// account splits the user name of the server.
func (s *Server) account() (domain, user string) {
	domain, user, _ = strings.Cut(s.User, `\`)
	return domain, user
}
