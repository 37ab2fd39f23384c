package pgstate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// wire stands between a relay and the server and can be cut.
type wire struct {
	t      *testing.T
	server string
	dir    string
	in     net.Listener

	mu     sync.Mutex
	armed  string // how the next message with the mark in it is lost
	mark   string
	cuts   int
	closed bool
	stay   bool // the server is not told when a relay is gone
	conns  []net.Conn
}

// The two ways in which a message is lost; the relay cannot tell them apart.
const (
	lostOnTheWay = "the server never gets it"
	lostReply    = "the server does it and its answer is lost"
)

func newWire(t *testing.T, socketFolder string) *wire {
	dir, err := os.MkdirTemp("", "azs-wire-") // short, for the socket's path
	must(t, err)
	w := &wire{t: t, server: filepath.Join(socketFolder, ".s.PGSQL.5432"), dir: dir}
	w.listen()
	t.Cleanup(func() {
		w.down()
		os.RemoveAll(dir)
	})
	return w
}

func (w *wire) listen() {
	in, err := net.Listen("unix", filepath.Join(w.dir, ".s.PGSQL.5432"))
	must(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in, w.closed = in, false
	go func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
}

// down cuts every connection and lets no new one through.
func (w *wire) down() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.in.Close()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// vanish cuts the relays off without a word to the server, as a host does that
// loses its power.
func (w *wire) vanish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stay = true
	for i := 0; i < len(w.conns); i += 2 {
		w.conns[i].Close()
	}
}

// cutAt arms one cut, at the next message that holds the mark.
func (w *wire) cutAt(mark, how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mark, w.armed = mark, how
}

func (w *wire) carry(client net.Conn) {
	server, err := net.Dial("unix", w.server)
	if err != nil {
		client.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, client, server)
	gone := w.closed
	w.mu.Unlock()
	if gone {
		client.Close()
		server.Close()
		return
	}
	var swallow sync.Mutex // guards lost
	lost := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			swallow.Lock()
			gone := lost && n > 0
			swallow.Unlock()
			if gone || err != nil {
				client.Close()
				server.Close()
				return
			}
			client.Write(b[:n])
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			break
		}
		w.mu.Lock()
		how := ""
		if w.armed != "" && bytes.Contains(b[:n], []byte(w.mark)) {
			how, w.armed = w.armed, ""
			w.cuts++
		}
		w.mu.Unlock()
		if how == lostOnTheWay {
			break
		}
		if how == lostReply {
			swallow.Lock()
			lost = true
			swallow.Unlock()
		}
		if _, err := server.Write(b[:n]); err != nil {
			break
		}
	}
	client.Close()
	w.mu.Lock()
	stay := w.stay
	w.mu.Unlock()
	if !stay {
		server.Close()
	}
	<-done
}

// over is the place as a relay sees it that is behind the wire.
func (w *wire) over(p database) database {
	return database{p.tb, strings.Replace(p.url, server(w.t).Socket, w.dir, 1)}
}

// Threat: the connection breaks in the middle of a line. It is unknown whether the
// line is there; it must end up there once, whoever else was faster.
func TestALineSurvivesABrokenConnection(t *testing.T) {
	p := newDatabase(t)
	near, _ := newLedger(t, p)
	w := newWire(t, server(t).Socket)
	far, err := w.over(p).Open(ledger.Relay, clock.Fixed(noon))
	must(t, err)
	defer far.Close()

	const rounds = 24
	want := []string{}
	for i := range rounds {
		trip := fmt.Sprintf("TRIP%d", i)
		// The other relay is first with a line of its own in every third round.
		if i%3 == 2 {
			_, err := near.AppendNext("put", "", "P", nil)
			must(t, err)
			want = append(want, "put")
		}
		w.cutAt(trip, []string{lostOnTheWay, lostReply}[i%2])
		_, err := far.Append(ledger.Seen, trip, nil)
		must(t, err)
		want = append(want, trip)
	}
	if w.cuts != rounds {
		t.Fatalf("%d cuts, want %d", w.cuts, rounds)
	}
	r, err := p.Check(ledger.Relay)
	must(t, err)
	var got []string
	for _, e := range r.Entries[1:] {
		got = append(got, strings.TrimPrefix(e.Event+e.Trip, "seen"))
	}
	if r.Damage != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("damage %v, lines %v, want %v", r.Damage, got, want)
	}
}

// An equal line of another relay is not taken for the own one: both append the
// same at the same second behind the same line, and the answer of one is lost.
func TestAnEqualLineOfAnotherIsNotOurs(t *testing.T) {
	p := newDatabase(t)
	near, d := newLedger(t, p)
	other := p.open(t)
	line := (ledger.Entry{N: 2, Time: noon, Prev: near.Head(), Event: ledger.Seen, Trip: "T"}).Line()
	must(t, other.Append(2, near.Head(), line))
	if err := d.Append(2, near.Head(), line); !errors.Is(err, ledger.ErrMoved) {
		t.Errorf("got %v, want that another was first", err)
	}
	if err := d.Append(3, near.Head(), line); !errors.Is(err, ledger.ErrMoved) {
		t.Errorf("got %v for a line behind another one than was read", err)
	}
}

// What else is on its way when the connection breaks.
func TestBundlesAndFilesSurviveABrokenConnection(t *testing.T) {
	p := newDatabase(t)
	newLedger(t, p)
	w := newWire(t, server(t).Socket)
	d := w.over(p).open(t)
	l, err := ledger.OpenOn(d, ledger.Relay, clock.Fixed(noon))
	must(t, err)
	for _, how := range []string{lostOnTheWay, lostReply} {
		name := fmt.Sprintf("%d.azc", len(how))
		w.cutAt(name, how)
		must(t, l.Keep(name, []byte(how)))
		wantKind(t, l.Keep(name, []byte("other")), fault.Refused)
		w.cutAt("peers/", how)
		must(t, d.WriteFile("peers/a", []byte(how), false))
		w.cutAt("peers/b", how)
		must(t, d.RenameFile("peers/a", "peers/b"))
		if got, err := d.ReadFile("peers/b", 100); err != nil || string(got) != how {
			t.Errorf("%s: %q, %v", how, got, err)
		}
		w.cutAt("peers/b", how)
		must(t, d.RemoveFile("peers/b"))
	}
	if w.cuts != 8 {
		t.Errorf("%d cuts, want 8", w.cuts)
	}
}

// A restart of the server frees every claim; one that nobody took meanwhile goes
// on, one that another took ends with the context of its work.
func TestClaimsOverARestart(t *testing.T) {
	p := newDatabase(t)
	l, _ := newLedger(t, p)
	w := newWire(t, server(t).Socket)
	far, err := w.over(p).Open(ledger.Relay, clock.Fixed(noon))
	must(t, err)
	defer far.Close()
	kept, releaseKept, err := far.Claim(t.Context(), "kept")
	must(t, err)
	lost, releaseLost, err := far.Claim(t.Context(), "lost")
	must(t, err)
	dead, releaseDead, err := far.Claim(t.Context(), "dead")
	must(t, err)
	defer releaseDead()

	w.down()
	_, release, err := l.Claim(t.Context(), "lost") // free as soon as the server saw the end
	must(t, err)
	release()
	third, err := p.Open(ledger.Relay, clock.Fixed(noon))
	must(t, err)
	_, _, err = third.Claim(t.Context(), "dead")
	must(t, err)
	must(t, third.Close()) // it gave nothing back
	w.listen()
	_, err = far.Append(ledger.Seen, "T", nil)
	must(t, err)
	if lost.Err() == nil || dead.Err() == nil {
		t.Errorf("a claim that was another's meanwhile goes on: %v, %v", lost.Err(), dead.Err())
	}
	wantKind(t, context.Cause(lost), fault.Unreachable, "lost", "another relay")
	if kept.Err() != nil {
		t.Errorf("a claim that nobody took ended: %v", context.Cause(kept))
	}
	releaseLost()
	releaseKept()
	_, release, err = l.Claim(t.Context(), "kept", "lost")
	must(t, err)
	release()
}

// A relay that comes back while the server still believes its old session takes
// its claims over from it.
func TestAnOldSessionIsEnded(t *testing.T) {
	p := newDatabase(t)
	newLedger(t, p)
	w := newWire(t, server(t).Socket)
	far, err := w.over(p).Open(ledger.Relay, clock.Fixed(noon))
	must(t, err)
	defer far.Close()
	held, release, err := far.Claim(t.Context(), "T")
	must(t, err)
	defer release()
	w.vanish()
	_, err = far.Append(ledger.Seen, "T", nil)
	must(t, err)
	if held.Err() != nil {
		t.Errorf("the claim ended: %v", context.Cause(held))
	}
}

// A relay that cannot reach the server any more gives its claims up.
func TestClaimsEndWhenTheServerIsGone(t *testing.T) {
	p := newDatabase(t)
	newLedger(t, p)
	w := newWire(t, server(t).Socket)
	d := w.over(p).open(t)
	l, err := ledger.OpenOn(d, ledger.Relay, clock.Fixed(noon))
	must(t, err)
	held, release, err := l.Claim(t.Context(), "T")
	must(t, err)
	defer release()
	w.down()
	d.patience = time.Millisecond
	_, err = l.Append(ledger.Seen, "T", nil)
	wantKind(t, err, fault.Unreachable, "could not add a line")
	wantKind(t, context.Cause(held), fault.Unreachable, "cannot be reached")
	w.listen()
	d.patience = patience
	_, err = l.Append(ledger.Seen, "T", nil) // and works again when it is there again
	must(t, err)
}

func TestAClaimOfAnotherRelay(t *testing.T) {
	p := newDatabase(t)
	l, d := newLedger(t, p)
	_, release, err := l.Claim(t.Context(), "trip T")
	must(t, err)
	other := p.open(t)
	other.wait = time.Millisecond
	o, err := ledger.OpenOn(other, ledger.Relay, clock.Fixed(noon))
	must(t, err)
	_, _, err = o.Claim(t.Context(), "free", "trip T")
	wantKind(t, err, fault.Medium, d.holder, "works on trip T since ")
	other.wait = time.Minute
	got := make(chan error)
	go func() {
		_, release, err := o.Claim(t.Context(), "trip T", "free") // waits
		if err == nil {
			_, ok := o.Trip("T")
			if release(); !ok {
				err = errors.New("the line of the one that held it was not read")
			}
		}
		got <- err
	}()
	_, err = l.Append(ledger.Seen, "T", nil)
	must(t, err)
	release()
	must(t, <-got)
}

// child is another process: it claims, says so, and holds until it is killed.
func child(verb string) error {
	l, err := database{url: verb}.Open(ledger.Relay, clock.System{})
	if err != nil {
		return err
	}
	if _, _, err := l.Claim(context.Background(), "trip T"); err != nil {
		return err
	}
	if _, err := l.Append(ledger.Seen, "T", nil); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// Threat: a relay dies with kill -9 while it holds a claim. The next one goes on
// from its lines.
func TestKillNineFreesAClaim(t *testing.T) {
	p := newDatabase(t)
	l, d := newLedger(t, p)
	d.wait = time.Minute
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AZS_PGSTATE_CHILD="+p.url)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	var free bool
	conn := server(t).Connect(t, p.url)
	defer conn.Close(t.Context())
	must(t, conn.QueryRow(t.Context(), takeLock, lockOf("trip T")).Scan(&free))
	if free {
		t.Fatal("the claim of the other process holds nobody off")
	}
	must(t, cmd.Process.Kill())
	cmd.Wait() // killed, as it should be
	_, release, err := l.Claim(t.Context(), "trip T")
	must(t, err)
	defer release()
	if trip, ok := l.Trip("T"); !ok || trip.State != ledger.Seen {
		t.Errorf("the trip is %v", trip)
	}
	_, err = l.Append(ledger.Admitted, "T", nil)
	must(t, err)
}
