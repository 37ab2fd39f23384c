//go:build faultinject

package flow

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// TestMain lets the test binary be the agent that is killed.
func TestMain(m *testing.M) {
	verb := os.Getenv("AZS_FLOW_CHILD")
	if verb == "" {
		os.Exit(m.Run())
	}
	if err := child(verb, os.Getenv("AZS_FLOW_BASE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(fault.ExitCode(err))
	}
	os.Exit(0)
}

// The files of a rehearsal, beside the state folder "agent".
const (
	tokenName  = "RegistrationToken.txt"
	keyName    = "ActivationKey.txt"
	answerName = "answer.azc"
)

// openAgent opens a state folder as the program does.
func openAgent(base string) (*Agent, error) {
	dir := filepath.Join(base, "agent")
	l, err := ledger.Open(dir, ledger.Agent, clock.Fixed(noon))
	if err != nil {
		return nil, err
	}
	id, err := trust.At(dir).Unlock(unasked)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	peers, err := trust.At(dir).Peers()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Agent{Ledger: l, Identity: id, Peers: peers, Clock: clock.Fixed(noon), Rand: rand.Reader}, nil
}

func child(verb, base string) error {
	a, err := openAgent(base)
	if err != nil {
		return err
	}
	defer a.Ledger.Close()
	switch verb {
	case "token":
		_, err = a.Token(context.Background(), TokenFile(filepath.Join(base, tokenName)), order())
		return err
	case "activate":
		raw, err := os.ReadFile(filepath.Join(base, answerName))
		if err != nil {
			return err
		}
		_, err = a.Activate(context.Background(), raw, KeyFile(filepath.Join(base, keyName)))
		return err
	}
	return fmt.Errorf("no such verb %q", verb)
}

// killAt runs verb in a process that dies at write boundary n, and says at which
// one it died; "" when there are fewer.
func killAt(t *testing.T, n int, verb, base string) (at string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	count := filepath.Join(t.TempDir(), "count")
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AZS_FLOW_CHILD="+verb, "AZS_FLOW_BASE="+base,
		fmt.Sprintf("AZS_FAULT_KILL_AT=%d", n), "AZS_FAULT_COUNT_FILE="+count)
	out, err := cmd.CombinedOutput()
	if len(out) > 0 {
		t.Fatalf("killed at %d: %s failed by itself: %s", n, verb, out)
	}
	if err == nil {
		return ""
	}
	passed, err := os.ReadFile(count)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(passed)), "\n")
	return lines[len(lines)-1]
}

// eachKill makes a copy of the base for every boundary and kills verb there.
func eachKill(t *testing.T, verb, base string, check func(t *testing.T, base string)) {
	t.Helper()
	for n := 1; ; n++ {
		again := filepath.Join(t.TempDir(), "base")
		if err := os.CopyFS(again, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		at := killAt(t, n, verb, again)
		if at == "" {
			if n < 10 {
				t.Errorf("%s passes %d boundaries only", verb, n-1)
			}
			t.Logf("%s was killed at %d boundaries", verb, n-1)
			return
		}
		t.Run(strings.ReplaceAll(at, " ", "-"), func(t *testing.T) { check(t, again) })
	}
}

func mustOpen(t *testing.T, base string) *Agent {
	t.Helper()
	a, err := openAgent(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Ledger.Close() })
	return a
}

func count(l *ledger.Ledger, event string) (n int) {
	for _, e := range l.Entries() {
		if e.Event == event {
			n++
		}
	}
	return n
}

func noTemp(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".azs-*"))
	more, _ := filepath.Glob(filepath.Join(dir, "*", ".azs-*"))
	if err != nil || len(left)+len(more) > 0 {
		t.Errorf("left over: %q %q, %v", left, more, err)
	}
}

// Threat: the agent is killed while it makes a request. The same command makes
// one, and one only waits for an answer.
func TestTokenKilledAtEveryBoundary(t *testing.T) {
	in := newInside(t)
	base := filepath.Dir(in.dir)
	old := in.request(t, spec(1), order()) // to be superseded
	if err := in.Ledger.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(string(tokenFile(t, spec(1))))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, tokenName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	eachKill(t, "token", base, func(t *testing.T, base string) {
		a := mustOpen(t, base)
		r, err := a.Token(context.Background(), TokenFile(filepath.Join(base, tokenName)), order())
		if err != nil {
			t.Fatal(err)
		}
		if left := Pending(a.Ledger); len(left) != 1 || left[0].ID != r.Trip {
			t.Errorf("pending are %+v, want %s alone", left, r.Trip)
		}
		if got := state(t, a.Ledger, old.Trip); got != ledger.Superseded {
			t.Errorf("the old request is %s", got)
		}
		seqs := map[string]bool{}
		for _, trip := range a.Ledger.Trips() {
			if seqs[trip.Data[dataSeqOut]] {
				t.Errorf("two requests have the number %s", trip.Data[dataSeqOut])
			}
			seqs[trip.Data[dataSeqOut]] = true
		}
		act, err := a.Activate(context.Background(), in.relay.answer(t, r, spec(1), nil), keyFile(t))
		if err != nil || act.Outcome == "" {
			t.Errorf("the answer: %v", err)
		}
		wantNoSecret(t, filepath.Join(base, "agent"), officialtest.Token(spec(1)))
		wantWholeJournal(t, filepath.Join(base, "agent"), ledger.Agent)
		noTemp(t, filepath.Join(base, "agent"))
	})
}

// Threat: the agent is killed while it uses an answer. The same command finishes,
// and the answer is used exactly once.
func TestActivateKilledAtEveryBoundary(t *testing.T) {
	in := newInside(t)
	base := filepath.Dir(in.dir)
	r := in.request(t, spec(1), order())
	answer, other := in.relay.answer(t, r, spec(1), nil), in.relay.answer(t, r, spec(1), nil)
	key := officialKey(t, r, spec(1))
	if err := in.Ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, answerName), answer, 0o600); err != nil {
		t.Fatal(err)
	}
	finished := 0
	eachKill(t, "activate", base, func(t *testing.T, base string) {
		file := filepath.Join(base, keyName)
		if got, err := os.ReadFile(file); err == nil && !bytes.Contains(got, []byte(key)) {
			t.Errorf("half a key stands under the final name: %d bytes", len(got))
		}
		a := mustOpen(t, base)
		done, opened := count(a.Ledger, "receipt") == 1, count(a.Ledger, ledger.Opened) == 1
		act, err := a.Activate(context.Background(), answer, KeyFile(file))
		switch {
		case done:
			finished++
			wantKind(t, err, fault.Replay, "was already used")
		case err != nil:
			t.Fatal(err)
		case act.Again != opened:
			t.Errorf("again is %v, opened before is %v", act.Again, opened)
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Contains(got, []byte(key)) {
			t.Errorf("the key file has %d bytes, %v", len(got), err)
		}
		for _, event := range []string{ledger.Admitted, ledger.Opened, ledger.Applied, "receipt"} {
			if n := count(a.Ledger, event); n != 1 {
				t.Errorf("%d lines %q, want one", n, event)
			}
		}
		trip, _ := a.Ledger.Trip(r.Trip)
		if receipt, err := a.Ledger.Kept(trip.Data["receipt-file"]); err != nil || len(receipt) == 0 {
			t.Errorf("the receipt: %d bytes, %v", len(receipt), err)
		}
		for _, raw := range [][]byte{answer, other} {
			_, err := a.Activate(context.Background(), raw, keyFile(t))
			wantKind(t, err, fault.Replay)
		}
		wantNoSecret(t, filepath.Join(base, "agent"), officialtest.Token(spec(1)), key)
		wantWholeJournal(t, filepath.Join(base, "agent"), ledger.Agent)
		noTemp(t, filepath.Join(base, "agent"))
	})
	if finished == 0 {
		t.Error("no kill came after the receipt")
	}
}
