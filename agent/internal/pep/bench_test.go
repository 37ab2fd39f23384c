package pep

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/masterzen/simplexml/dom"
	"github.com/masterzen/winrm"
	"github.com/masterzen/winrm/soap"

	"github.com/azs-courier/azs-courier/agent/internal/wsman"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// What the sealed transport costs beside its envelopes: the two messages of NTLM.
const logins = 2

// Without the probe that pypsrp sends first, and with it, and what masterzen's
// transport sends for each envelope: the refused request, the challenge, the
// proof, and the envelope.
const (
	pypsrpLogins   = 3
	masterzenPosts = 4
)

// trip is a session whose WSMan round trips can be told beforehand.
type trip struct {
	name     string
	opening  int // Receives until the pool is open: hosts differ
	run      func(context.Context, *Session, secret.Text) error
	commands int

	// recorded is what another client needed on a real Windows for as many
	// commands, without a Signal that ends each: 7 in recordings of 2016, 6 on a
	// newer host, 9 on a JEA endpoint with two commands. Where nothing was
	// recorded it is reckoned the same way: the opening, two for each command,
	// and one to close.
	recorded int
}

func ask(times int) func(context.Context, *Session, secret.Text) error {
	return func(ctx context.Context, s *Session, _ secret.Text) error {
		for range times {
			if _, err := s.Stamp(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func tokenTrip(ctx context.Context, s *Session, _ secret.Text) error {
	st, err := s.Stamp(ctx)
	if err != nil {
		return err
	}
	if err := s.SetKeyPair(ctx, st); err != nil {
		return err
	}
	_, _, err = s.NewToken(ctx, st, capacity())
	return err
}

func activationTrip(ctx context.Context, s *Session, key secret.Text) error {
	if _, err := s.Stamp(ctx); err != nil {
		return err
	}
	return s.NewActivation(ctx, key, Watch{Begin: func(Attempt) error { return nil }})
}

func trips() []trip {
	return []trip{
		{"one command", 3, ask(1), 1, 7},
		{"one command on a newer host", 2, ask(1), 1, 6},
		{"two commands as on JEA", 3, ask(2), 2, 9},
		{"token", 3, tokenTrip, 3, 4 + 3*2 + 1},
		{"activation", 3, activationTrip, 2, 4 + 2*2 + 1}, // that takes no time: a long one is asked for once a minute
	}
}

// once runs the trip in a session of its own.
func (tr trip) once(ctx context.Context, o Options, key secret.Text) error {
	session, err := Open(ctx, o)
	if err != nil {
		return err
	}
	err = tr.run(ctx, session, key)
	if closing := session.Close(ctx); err == nil {
		err = closing
	}
	return err
}

// sent counts what the endpoint saw: round trips of WSMan, and HTTP requests,
// which are those and the login.
func (s *site) sent() (wsman, requests int) {
	all := s.Requests()
	for _, r := range all {
		if r.MessageID != "" {
			wsman++
		}
	}
	return wsman, len(all)
}

// The budget: what was recorded, one Signal for each command, because the endpoint
// counts commands until they are ended, and one login for the whole session.
func TestRoundTrips(t *testing.T) {
	for _, tr := range trips() {
		t.Run(tr.name, func(t *testing.T) {
			s := newSite(t, peptest.WithOpeningReceives(tr.opening))
			if err := tr.once(t.Context(), s.Options, s.key(t)); err != nil {
				t.Fatal(err)
			}
			round, requests := s.sent()
			if budget := tr.recorded + tr.commands; round > budget || requests != round+logins {
				t.Errorf("%d round trips and %d requests, want at most %d (%d recorded and %d Signals) and %d more for the login", round, requests, budget, tr.recorded, tr.commands, logins)
			}
			if n := s.count("Signal"); n != tr.commands {
				t.Errorf("%d Signals for %d commands", n, tr.commands)
			}
		})
	}
}

// BenchmarkRoundTrips tells how much is sent, next to what was recorded or is
// known of other clients. Neither depends on the machine.
func BenchmarkRoundTrips(b *testing.B) {
	for _, tr := range trips() {
		b.Run(tr.name, func(b *testing.B) {
			s := newSite(b, peptest.WithOpeningReceives(tr.opening))
			key, n := s.key(b), 0
			for b.Loop() {
				if err := tr.once(b.Context(), s.Options, key); err != nil {
					b.Fatal(err)
				}
				n++
			}
			round, requests := s.sent()
			b.ReportMetric(0, "ns/op") // BenchmarkSession tells times
			b.ReportMetric(float64(round)/float64(n), "trips")
			b.ReportMetric(float64(tr.recorded), "recorded-trips")
			b.ReportMetric(float64(requests)/float64(n), "requests")
			b.ReportMetric(float64(tr.recorded+pypsrpLogins), "pypsrp-requests")
			b.ReportMetric(float64(tr.recorded*masterzenPosts), "masterzen-requests")
		})
	}
}

// BenchmarkSession measures a session of one command, from nothing to the deleted
// shell, on loopback and over a link on which every turn takes 20 ms. The client is
// the same on both sides, and so are the envelopes; what differs is what carries
// them: package sealed, or the sealing transport of the library masterzen/winrm.
// Both begin each session with a new connection, and take turns, so that a busy
// machine slows both.
//
// On a busy machine a session of the library fails now and then, with a reply that
// comes out empty and without an error. Those are counted and not timed.
func BenchmarkSession(b *testing.B) {
	for _, link := range []struct {
		name  string
		delay time.Duration
	}{{"loopback", 0}, {"20ms", 10 * time.Millisecond}} {
		b.Run(link.name, func(b *testing.B) {
			s := newSite(b)
			other := peptest.NewServer()
			defer other.Close()
			ours, theirs := s.Options, s.Options
			theirs.Addresses = other.Addresses
			theirs.Dial = dialMasterzen(other.User, other.Password)
			if link.delay > 0 {
				ours.Addresses = []string{slow(b, ours.Addresses[0], link.delay)}
				theirs.Addresses = []string{slow(b, theirs.Addresses[0], link.delay)}
			}
			one := trip{run: ask(1)}
			var mine, peer []time.Duration
			failed := 0
			for b.Loop() {
				began := time.Now()
				if err := one.once(b.Context(), ours, secret.Text{}); err != nil {
					b.Fatal(err)
				}
				mine = append(mine, time.Since(began))
				began = time.Now()
				if err := one.once(b.Context(), theirs, secret.Text{}); err != nil {
					failed++
					continue
				}
				peer = append(peer, time.Since(began))
			}
			sealedAll(b, other, failed == 0)
			median := func(d []time.Duration) float64 {
				slices.Sort(d)
				return float64(d[len(d)/2].Microseconds()) / 1000
			}
			if len(peer) == 0 {
				b.Fatal("every session of the other transport failed")
			}
			b.ReportMetric(0, "ns/op") // of both together: it says nothing
			b.ReportMetric(median(mine), "ms")
			b.ReportMetric(median(peer), "masterzen-ms")
			b.ReportMetric(median(mine)/median(peer), "ours/masterzen")
			b.ReportMetric(float64(failed), "masterzen-failed")
		})
	}
}

// sealedAll holds that the peer did the same work, else its times would say
// nothing: whole sessions of eight round trips, no envelope in clear.
func sealedAll(b *testing.B, srv *peptest.Server, whole bool) {
	envelopes := 0
	log := srv.Requests()
	for _, r := range log {
		if r.MessageID != "" {
			envelopes++
			if !r.Sealed {
				b.Errorf("the other transport sent %s in clear", r.Action)
			}
		}
	}
	if whole && (envelopes%8 != 0 || len(log) != envelopes*masterzenPosts) {
		b.Errorf("the other transport sent %d envelopes in %d requests, want 8 a session and %d requests for each", envelopes, len(log), masterzenPosts)
	}
}

// masterzen is a [wsman.Poster] on winrm.Encryption.
type masterzen struct {
	url        string
	client     *winrm.Client
	encryption *winrm.Encryption
}

func dialMasterzen(user, password string) Dialer {
	return func(_ context.Context, address, sessionID string) (Conn, error) {
		return wsman.New(func() (wsman.Poster, error) {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(port)
			if err != nil {
				return nil, err
			}
			m := &masterzen{url: "http://" + address + "/wsman"}
			if m.encryption, err = winrm.NewEncryption("ntlm"); err != nil {
				return nil, err
			}
			parameters := *winrm.DefaultParameters
			parameters.TransportDecorator = func() winrm.Transporter { return m.encryption }
			m.client, err = winrm.NewClientWithParameters(winrm.NewEndpoint(host, n, false, false, nil, nil, nil, 0), user, password, &parameters)
			return m, err
		}, rand.Reader, sessionID)
	}
}

func (m *masterzen) URL() string { return m.url }

// Close closes the connections, which the library keeps in the transport that the
// whole process shares.
func (m *masterzen) Close() { http.DefaultClient.CloseIdleConnections() }

// PostContext hands the library the same bytes. It tells no status, so a fault is
// known by its body.
func (m *masterzen) PostContext(_ context.Context, envelope []byte) ([]byte, int, error) {
	message := soap.NewMessage()
	message.Doc().DocType = false
	root, err := element(envelope)
	if err != nil {
		return nil, 0, err
	}
	message.Doc().SetRoot(root)
	if strings.TrimSuffix(message.String(), "\n") != string(envelope) {
		return nil, 0, fmt.Errorf("the library spells the envelope otherwise: %s", message.String())
	}
	reply, err := m.encryption.Post(m.client, message)
	status := http.StatusOK
	if bytes.Contains([]byte(reply), []byte("<s:Fault>")) {
		status = http.StatusInternalServerError
	}
	return []byte(reply), status, err
}

// element makes the library's element of a document, whose content it takes raw.
func element(document []byte) (*dom.Element, error) {
	d := xml.NewDecoder(bytes.NewReader(document))
	token, err := d.RawToken()
	if err != nil {
		return nil, err
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return nil, fmt.Errorf("the document begins with a %T", token)
	}
	name := func(n xml.Name) string { return n.Space + ":" + n.Local }
	root := dom.CreateElement(name(start.Name))
	for _, a := range start.Attr {
		root.SetAttr(name(a.Name), a.Value)
	}
	inner := bytes.TrimSuffix(document[d.InputOffset():], []byte("</"+name(start.Name)+">"))
	root.SetContent(string(inner))
	return root, nil
}

// slow forwards TCP connections to an address and delivers every byte delay later,
// both ways; a new connection takes as long as a turn on top. It returns the
// address to use.
func slow(b *testing.B, to string, delay time.Duration) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	b.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				return
			}
			up := time.Now().Add(2 * delay) // that the handshake would take
			all.Go(func() { carry(far, near, up, delay) })
			all.Go(func() { carry(near, far, up, delay) })
		}
	})
	return ln.Addr().String()
}

// carry moves what comes from one connection to the other, each piece delay after
// it came, but none earlier than delay after up.
func carry(to, from net.Conn, up time.Time, delay time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 64)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 64<<10)
			n, err := from.Read(data)
			now := time.Now()
			if now.Before(up) {
				now = up
			}
			if n > 0 {
				pieces <- piece{now.Add(delay), data[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range pieces { // the reader ends with its connection
	}
}
