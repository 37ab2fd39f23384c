//go:build faultinject

package flow

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/secret"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// TestMain lets the test binary be the relay that is killed.
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

// site is how the child reaches the simulated Azure of its parent.
type site struct{ URL, Tenant, ClientID, Secret string }

// The files of a rehearsal, beside the state folder "relay".
const (
	siteName    = "site.json"
	caName      = "ca.pem"
	requestName = "request.azc"
	receiptName = "receipt.azc"
)

// openRelay opens a state folder as the program does and signs in.
func openRelay(base string) (*Relay, error) {
	dir := filepath.Join(base, "relay")
	text, err := os.ReadFile(filepath.Join(base, siteName))
	if err != nil {
		return nil, err
	}
	var s site
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	client, err := azure.Connect(context.Background(), azure.Options{ARMEndpoint: s.URL, CAFile: filepath.Join(base, caName), Auth: "client-secret",
		Tenant: s.Tenant, ClientID: s.ClientID, ClientSecret: secret.New(s.Secret)})
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(dir, ledger.Relay, clock.System{})
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
	return &Relay{Ledger: l, Identity: id, Peers: peers, Azure: client, Requests: client.Requests, Clock: clock.System{}, Rand: rand.Reader,
		Say: func(string, ...any) {}}, nil
}

func child(verb, base string) error {
	r, err := openRelay(base)
	if err != nil {
		return err
	}
	defer r.Ledger.Close()
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(base, name)) }
	switch verb {
	case "register":
		raw, err := read(requestName)
		if err != nil {
			return err
		}
		_, err = (&outside{Relay: r}).register(raw, Order{})
		return err
	case "handle":
		raw, err := read(requestName)
		if err != nil {
			return err
		}
		_, err = (&outside{Relay: r}).handle(raw, Order{})
		return err
	case "close":
		raw, err := read(receiptName)
		if err != nil {
			return err
		}
		_, _, err = r.Close(raw)
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

// prepared is the base of a rehearsal with nothing open.
func prepared(t *testing.T) (out *outside, base string) {
	t.Helper()
	out = newOutside(t)
	base = filepath.Dir(out.dir)
	text, err := json.Marshal(site{out.azure.URL, out.azure.Tenant, out.azure.ClientID, out.azure.ClientSecret})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, base, siteName, text)
	return out, base
}

func mustWrite(t *testing.T, base, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(base, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// copyOf copies a base without what is open.
func copyOf(t *testing.T, base string) string {
	t.Helper()
	again := filepath.Join(t.TempDir(), "base")
	if err := os.CopyFS(again, os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	return again
}

func mustOpen(t *testing.T, base string) *outside {
	t.Helper()
	r, err := openRelay(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Ledger.Close() })
	return &outside{Relay: r}
}

func keptAnswers(t *testing.T, base string) (answers [][]byte) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(base, "relay", "bundles", "azs-answer-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, text)
	}
	return answers
}

func noTemp(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".azs-*"))
	more, _ := filepath.Glob(filepath.Join(dir, "*", ".azs-*"))
	if err != nil || len(left)+len(more) > 0 {
		t.Errorf("left over: %q %q, %v", left, more, err)
	}
}

// Threat: the relay is killed anywhere, also between the registration and its
// lock. Run again, it ends in the same single registration and the same answer.
func TestRegisterKilledAtEveryBoundary(t *testing.T) {
	out, base := prepared(t)
	if err := out.Ledger.Close(); err != nil {
		t.Fatal(err)
	}
	keptBefore := 0
	for n := 1; ; n++ {
		again := copyOf(t, base)
		s := spec(uint64(n)) // each its own stamp, all in one Azure
		raw := out.agent.request(t, s, nil)
		mustWrite(t, again, requestName, raw)
		at := killAt(t, n, "register", again)
		if at == "" {
			// Six lines of 5 boundaries at least, and a new file of 9.
			if n-1 < 6*5+9 {
				t.Errorf("killed at %d boundaries only", n-1)
			}
			t.Logf("register was killed at %d boundaries", n-1)
			break
		}
		t.Run(strings.ReplaceAll(at, " ", "-"), func(t *testing.T) {
			before := keptAnswers(t, again)
			keptBefore += len(before)
			r := mustOpen(t, again)
			o := r.mustRegister(t, raw)
			if len(before) == 1 && (!o.Again || !bytes.Equal(before[0], o.Answer.Text())) {
				t.Error("the answer that was kept is not the one that is given")
			}
			found := 0
			for _, reg := range out.azure.State().Registrations {
				if strings.EqualFold(reg.CloudID, officialtest.CloudID(s.Seed)) {
					found++
				}
			}
			name := "*/registrations/AzureStack-" + officialtest.CloudID(s.Seed)
			if puts := out.azure.Count("PUT", name); found != 1 || puts > 2 {
				t.Errorf("%d registrations after %d PUTs", found, puts)
			}
			locked := 0
			for _, lock := range out.azure.State().Locks {
				if strings.Contains(strings.ToLower(lock.ID), officialtest.CloudID(s.Seed)) {
					locked++
				}
			}
			if locked != 1 {
				t.Errorf("%d locks", locked)
			}
			more := r.mustRegister(t, raw)
			if kept := keptAnswers(t, again); !more.Again || len(kept) != 1 || !bytes.Equal(kept[0], o.Answer.Text()) || !bytes.Equal(more.Answer.Text(), kept[0]) {
				t.Errorf("%d answers are kept; the third run gives the same: %v", len(kept), more.Again)
			}
			_, _, key := out.agent.open(t, o.Answer)
			trip, _ := r.Ledger.Trip(o.Trip)
			if trip.State != ledger.Answered || trip.Data[dataKey] != bundle.Sum([]byte(key)).String() || trip.Data[dataLocked] != "true" {
				t.Errorf("the trip is %s with %v", trip.State, trip.Data)
			}
			wantNoSecret(t, filepath.Join(again, "relay"), officialtest.Token(s), key, out.azure.ClientSecret)
			wantWholeJournal(t, filepath.Join(again, "relay"), ledger.Relay)
			noTemp(t, filepath.Join(again, "relay"))
		})
	}
	if keptBefore == 0 {
		t.Error("no kill came after the answer was kept")
	}
}

// The same for the receipt that closes a trip.
func TestCloseKilledAtEveryBoundary(t *testing.T) {
	out, base := prepared(t)
	o := out.mustRegister(t, out.agent.request(t, spec(1), nil))
	_, ans, _ := out.agent.open(t, o.Answer)
	receipt := out.agent.receipt(t, o.Answer, &bundle.Receipt{Label: "site-a", Outcome: bundle.OutcomeWritten, CloudID: ans.CloudID,
		Applied: agentTime, KeySHA256: ans.KeySHA256, Journal: bundle.Sum(nil)})
	mustWrite(t, base, receiptName, receipt)
	if err := out.Ledger.Close(); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		again := copyOf(t, base)
		at := killAt(t, n, "close", again)
		if at == "" {
			if n-1 != 5 {
				t.Errorf("killed at %d boundaries", n-1)
			}
			break
		}
		r := mustOpen(t, again)
		trip, _, err := r.Close(receipt)
		if err != nil || trip.State != ledger.Closed {
			t.Errorf("killed at %s: %s, %v", at, trip.State, err)
		}
		wantWholeJournal(t, filepath.Join(again, "relay"), ledger.Relay)
	}
}

// Threat: the relay is killed anywhere in a removal or a renewal, also between the
// deletion and the line that tells it, or while the registration has no lock. Run
// again, it ends as if it had not been killed: nothing is deleted twice or left
// behind, and there is one answer.
func TestRemovalAndRenewalKilledAtEveryBoundary(t *testing.T) {
	for name, request := range map[string]func(*farAgent, uint64) []byte{
		bundle.Unregister: func(far *farAgent, seed uint64) []byte { return far.removal(t, seed, nil) },
		bundle.Renew:      func(far *farAgent, seed uint64) []byte { return far.renewal(t, seed, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			out, base := prepared(t)
			out.mustRegister(t, out.agent.request(t, spec(1000), nil)) // makes the group
			if err := out.Ledger.Close(); err != nil {
				t.Fatal(err)
			}
			keptBefore := 0
			for n := 1; ; n++ {
				again, seed := copyOf(t, base), uint64(n)
				g, err := azure.ParseSubscriptionID(out.azure.Subscription)
				if err != nil {
					t.Fatal(err)
				}
				group, _ := g.Group("azurestack")
				id, err := group.Registration("AzureStack-" + officialtest.CloudID(seed))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := out.Azure.PutRegistration(t.Context(), id, secret.New(officialtest.Token(spec(seed)))); err != nil {
					t.Fatal(err)
				}
				if _, err := out.Azure.PutLock(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				raw := request(out.agent, seed)
				mustWrite(t, again, requestName, raw)
				at := killAt(t, n, "handle", again)
				if at == "" {
					if n-1 < 6*5+9 { // six lines of 5 boundaries at least, and a new file of 9
						t.Errorf("killed at %d boundaries only", n-1)
					}
					t.Logf("%s was killed at %d boundaries", name, n-1)
					break
				}
				before := keptAnswers(t, again)
				keptBefore += len(before)
				r := mustOpen(t, again)
				o, err := r.handle(raw, Order{})
				if err != nil {
					t.Fatalf("killed at %s: %v", at, err)
				}
				if len(before) == 2 && !bytes.Contains(bytes.Join(before, nil), o.Answer.Text()) {
					t.Errorf("killed at %s: the answer that was kept is not the one that is given", at)
				}
				more, err := r.handle(raw, Order{})
				if err != nil || !more.Again || !bytes.Equal(more.Answer.Text(), o.Answer.Text()) {
					t.Errorf("killed at %s: the third run gives another answer, %v", at, err)
				}
				found, locked := 0, 0
				st := out.azure.State()
				for _, reg := range st.Registrations {
					if strings.EqualFold(reg.CloudID, officialtest.CloudID(seed)) {
						found++
					}
				}
				for _, lock := range st.Locks {
					if strings.Contains(strings.ToLower(lock.ID), officialtest.CloudID(seed)) {
						locked++
					}
				}
				want := 0
				if name == bundle.Renew {
					want = 1
				}
				deletions := 0
				for _, q := range out.azure.Requests() {
					if q.Method == "DELETE" && strings.EqualFold(q.Path, id.String()) && q.Status == 200 {
						deletions++
					}
				}
				if found != want || locked != want || deletions != 1 {
					t.Errorf("killed at %s: %d registrations, %d locks, %d deletions", at, found, locked, deletions)
				}
				if o.Removed != id.String() && more.Removed != id.String() {
					t.Errorf("killed at %s: it is forgotten what was removed: %q", at, o.Removed)
				}
				wantWholeJournal(t, filepath.Join(again, "relay"), ledger.Relay)
				noTemp(t, filepath.Join(again, "relay"))
			}
			if keptBefore == 0 {
				t.Error("no kill came after the answer was kept")
			}
		})
	}
}
